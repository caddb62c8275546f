//! A worker's connections to one endpoint: shared by its calls, grown with them, renewed when
//! lost.

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use super::{
    call::{CallKey, Peer},
    engine::{Command, Engine},
    link::{Kind, Link},
    payload::Payload,
    replay::Again,
};
use crate::{
    http2::frame::Reason,
    net::proxy_protocol,
    upstream::{Endpoint, Fault, Upstream},
};

/// The connections to one endpoint, and the state of the attempts to make another.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) upstream: Arc<Upstream>,
    /// What they begin with before anything else; mostly empty.
    pub(super) header: Box<[u8]>,
    /// Those that take new calls.
    pub(super) links: Vec<usize>,
    pub(super) dialing: bool,
    /// Why there is no connection, while the next attempt is put off.
    pub(super) failure: Option<String>,
    /// Attempts in a row that led to no connection, or to one that did not last.
    failures: u32,
    /// How often it found PINGs too many: the interval is doubled by each.
    pub(super) pinged_too_often: u32,
    /// When the newest link was made, in milliseconds.
    made: u64,
    pub(super) waiting: VecDeque<CallKey>,
}

/// An endpoint, of one upstream: another upstream may have the same address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(Default))]
pub(super) struct LaneKey {
    endpoint: usize,
    /// The link of the only client whose calls these are; none is numbered 0.
    client: usize,
}

impl LaneKey {
    /// The lane holds the endpoint, so no other one can come to have its place in memory. Where
    /// endpoints hear who the client is, each client's calls have connections of their own.
    pub(super) fn of(endpoint: &Arc<Endpoint>, upstream: &Upstream, client: usize) -> Self {
        let endpoint = Arc::as_ptr(endpoint).addr();
        Self { endpoint, client: upstream.proxy_protocol().map_or(0, |_| client) }
    }

    /// The link of the client that it is for alone.
    pub(super) fn client(self) -> Option<usize> {
        (self.client != 0).then_some(self.client)
    }
}

impl Hash for LaneKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.endpoint ^ self.client.rotate_left(usize::BITS / 2));
    }
}

impl Lane {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        upstream: &Arc<Upstream>,
        client: Option<&Link>,
    ) -> Self {
        let header = upstream.proxy_protocol().map(|version| {
            let to = client.and_then(|client| client.socket.local_addr().ok());
            let from = client.and_then(|client| client.client);
            proxy_protocol::header(version, from.zip(to)).into()
        });
        Self {
            endpoint,
            upstream: Arc::clone(upstream),
            header: header.unwrap_or_default(),
            links: Vec::new(),
            dialing: false,
            failure: None,
            failures: 0,
            pinged_too_often: 0,
            made: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Whether a call has a chance there.
    pub(super) fn is_usable(&self) -> bool {
        self.failure.is_none() || !self.links.is_empty()
    }

    pub(super) fn is_growing(&self) -> bool {
        self.dialing && self.failure.is_none()
    }

    /// Whether it has a link that takes calls.
    pub(super) fn is_connected(&self) -> bool {
        !self.links.is_empty()
    }

    /// Takes the calls out that wait for one.
    pub(super) fn take_waiting(&mut self) -> VecDeque<CallKey> {
        std::mem::take(&mut self.waiting)
    }

    /// Lets a call wait.
    pub(super) fn wait(&mut self, key: CallKey) {
        self.waiting.push_back(key);
    }

    /// Whether calls wait for one.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How long to put the next attempt off: doubled with each failure, give or take 20 %.
    pub(super) fn pause(&self) -> Duration {
        match self.failures {
            0 => Duration::ZERO,
            failures => {
                let pause = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(10));
                LAST_PAUSE.min(pause).mul_f64(0.8 + 0.4 * fastrand::f64())
            }
        }
    }
}

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
        // With a connection left, calls can wait for room on it.
        if lane.links.is_empty() {
            lane.failure = Some(why);
            self.turn_away(at);
        }
    }

    /// Calls that wait for a lane are placed anew.
    pub(super) fn turn_away(&mut self, at: LaneKey) {
        let Some(lane) = self.lanes.get_mut(&at) else { return };
        for key in std::mem::take(&mut lane.waiting) {
            if let Some(call) = self.call(key)
                && let Peer::Opening(opening) = &mut call.peer
            {
                opening.waits_for = None;
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
        for key in &lane.waiting {
            if let Some(call) = self.calls.get_mut(key.index as usize)
                && call.serial == key.serial
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
        let calls: Vec<u32> = link.connection.calls_above(last).collect();
        let why = format!("GOAWAY {reason} did not take the call up");
        if reason != Reason::NO_ERROR
            && let Kind::Endpoint(at) = link.kind
            && let Some(lane) = self.lanes.get(&at)
        {
            lane.endpoint.fault(Fault::GoAway);
        }
        for index in calls {
            self.endpoint_lost(index, Again::GoAway, &why);
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

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// Useless connections in a row from which calls go elsewhere; before, they wait for the next.
const PATIENCE: u32 = 3;
/// Of the interval between PINGs.
const MOST_DOUBLINGS: u32 = 16;
/// A connection that lives that long was worth making even unused, in milliseconds.
const LASTING: u64 = 1000;
