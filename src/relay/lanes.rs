//! What happens to lanes: connections to an endpoint are made, fail, are told to go and are lost.

use std::{rc::Rc, sync::Arc};

use super::{
    call::Peer,
    engine::{Command, Engine},
    lane::LaneKey,
    link::Kind,
    payload::Payload,
    replay::Again,
};
use crate::{
    http2::frame::Reason,
    upstream::{Fault, Turn},
};

impl Engine {
    /// An endpoint's SETTINGS have come: with the first ones its link takes calls.
    pub(super) fn settled(&mut self, id: usize) {
        let Some(link) = self.links.get(id) else { return };
        let Kind::Endpoint(at) = link.kind else { return };
        let told = Rc::clone(&link.settled);
        let retired = link.connection.is_told_to_go();
        if let Some(lane) = self.lanes.get_mut(&at) {
            if !lane.links.contains(&id) && !retired && !link.draining {
                if lane.is_connected() {
                    lane.failures = 0;
                }
                lane.links.push(id);
                lane.dialing = false;
                lane.failure = None;
                lane.made = self.context.now;
            }
            told.notify_one();
            self.place_waiting(at);
        }
    }

    /// An attempt to connect failed; the next one is put off.
    pub(super) fn dial_failed(&mut self, at: LaneKey, why: String) {
        let Some(lane) = self.lanes.get_mut(&at) else { return };
        lane.failures += 1;
        if lane.links.is_empty() {
            lane.failure = Some(why);
            self.turn_away(at);
        } else {
            // Calls can have the connection that is left, or wait for room on it.
            self.place_waiting(at);
        }
    }

    /// Calls that wait for a lane are placed anew.
    pub(super) fn turn_away(&mut self, at: LaneKey) {
        let Some(lane) = self.lanes.get_mut(&at) else { return };
        for key in lane.take_waiting() {
            if let Some(call) = self.call(key)
                && let Peer::Opening(opening) = &mut call.peer
            {
                (opening.waits_for, opening.waiting) = (None, None);
                self.place(key, Payload::NONE);
            }
        }
    }

    /// No more attempts, for now: nobody needs another connection, or the endpoint is not healthy.
    /// Then calls that wait go elsewhere: waiting on would last until it is.
    pub(super) fn dial_given_up(&mut self, at: LaneKey) {
        let Some(lane) = self.lanes.get_mut(&at) else { return };
        lane.failure = None;
        lane.dialing = false;
        if lane.is_connected() {
            return self.place_waiting(at);
        }
        let address = lane.endpoint.address();
        for (_, key) in
            lane.waiting.from(Turn::default()).chain(lane.held_back.from(Turn::default()))
        {
            if let Some(call) = self.calls.get_mut(key.index as usize)
                && let Peer::Opening(opening) = &mut call.peer
            {
                opening.tried.push(address);
                opening.why.get_or_insert_with(|| format!("{address} is not healthy"));
            }
        }
        self.turn_away(at);
    }

    /// The endpoint takes no new calls on this link, and has not taken those above `last`.
    pub(super) fn told_to_go(&mut self, id: usize, last: u32, reason: Reason) {
        self.retire(id, reason == Reason::NO_ERROR);
        let Some(link) = self.links.get_mut(id) else { return };
        link.told = Some(reason);
        if reason == Reason::ENHANCE_YOUR_CALM
            && link.pinged_at.is_some()
            && let Kind::Endpoint(at) = link.kind
            && let Some(lane) = self.lanes.get_mut(&at)
        {
            lane.pinged_too_often = (lane.pinged_too_often + 1).min(MOST_DOUBLINGS);
        }
        let mut calls: Vec<u32> = link.connection.calls_above(last).collect();
        let suspect = reason.blames().then(|| link.connection.call_after(last)).flatten();
        let why = format!("GOAWAY {reason} did not take the call up");
        if reason != Reason::NO_ERROR
            && let Kind::Endpoint(at) = link.kind
            && let Some(lane) = self.lanes.get(&at)
        {
            lane.endpoint.fault(Fault::GoAway);
        }
        if let Some(suspect) = suspect {
            // It comes next after what the endpoint took, and so was what it could not bear: other
            // connections are not given it.
            calls.retain(|index| *index != suspect);
            self.poisonous(suspect, &why);
        }
        let how = if reason == Reason::NO_ERROR { Again::GoAway } else { Again::Erred };
        for index in calls {
            self.endpoint_lost(index, how, &why);
        }
        self.end_doubts_of(id);
    }

    /// Lets a link's calls end, and then the link. `polite` where the endpoint asked for it as the
    /// protocol has it, or its age did.
    pub(super) fn retire(&mut self, id: usize, polite: bool) {
        let Some(link) = self.links.get_mut(id) else { return };
        link.draining = true;
        let Kind::Endpoint(at) = link.kind else { return };
        let served = link.served;
        self.lane_lost(at, id, served, polite);
    }

    /// A link takes no new calls: the next one should find another, or know that there is none.
    pub(super) fn lane_lost(&mut self, at: LaneKey, id: usize, served: bool, polite: bool) {
        let for_somebody = self.is_for_somebody(at);
        let Some(lane) = self.lanes.get_mut(&at) else { return };
        let before = lane.links.len();
        lane.links.retain(|link| *link != id);
        if lane.links.len() == before || !lane.links.is_empty() {
            return self.place_waiting(at);
        }
        // One that neither served nor lasted is no better than none.
        let worth = served || self.context.now.saturating_sub(lane.made) >= LASTING;
        lane.failures = if worth { 0 } else { lane.failures + 1 };
        let wanted = lane.endpoint.is_healthy() && !lane.endpoint.is_removed() && for_somebody;
        if !lane.dialing && wanted {
            lane.dialing = true;
            if lane.failures > PATIENCE && !polite {
                let address = lane.endpoint.address();
                lane.failure = Some(format!("{address} closes its connections"));
            }
            self.commands.push(Command::Dial(Arc::clone(&lane.upstream), at));
        }
        match lane.failure {
            Some(_) => self.turn_away(at),
            None => self.place_waiting(at),
        }
    }
}

/// Useless connections in a row from which calls go elsewhere; before, they wait for the next.
const PATIENCE: u32 = 3;
/// Of the interval between PINGs.
const MOST_DOUBLINGS: u32 = 16;
/// A connection that lives that long was worth making even unused, in milliseconds.
const LASTING: u64 = 1000;
