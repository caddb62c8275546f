//! Calls find an endpoint and a connection to it, or wait for one.

use std::sync::Arc;

use super::{
    call::{CallKey, Forwarded, Peer, StreamKey},
    engine::{Command, Engine},
    lane::{Lane, LaneKey},
    late::Late,
    link::{Direction, Kind, Link},
    payload::Payload,
    waiting::is_scarce,
};
use crate::{grpc::timeout, http2::field::Role};

impl Engine {
    /// Opens a call's stream on the endpoint that is picked for it, or lets it wait for a
    /// connection. `payload` comes after what is queued of the request.
    pub(super) fn place(&mut self, key: CallKey, payload: Payload<'_>) {
        let now = self.context.now;
        let Some(call) = self.call(key) else { return };
        if call.deadline <= now {
            return self.end_call(key.index, Late::Deadline);
        }
        if let Some(link) = self.find_link(key) {
            if self.is_too_large_for(key.index, link) {
                return;
            }
            self.open(key.index, link, payload);
        } else if self.call(key).is_some() {
            self.push(key.index, Direction::Request, payload);
        }
    }

    /// The link on which a call can be opened now. An endpoint that cannot be reached is passed
    /// over: nothing was sent to it.
    fn find_link(&mut self, key: CallKey) -> Option<usize> {
        loop {
            if !self.find_room(key) {
                return None;
            }
            let call = self.calls.get_mut(key.index as usize)?;
            let Peer::Opening(opening) = &mut call.peer else { return None };
            let upstream = &call.listener.targets[usize::from(call.target)].upstream;
            let in_flight = opening.waits_for.as_ref().expect("it was just set");
            let endpoint = Arc::clone(in_flight.endpoint());
            let address = endpoint.address();
            let links = &self.links;
            let at = LaneKey::of(&endpoint, upstream, call.client.link);
            let lane = self.lanes.entry(at).or_insert_with(|| {
                let client = at.client().and_then(|client| links.get(client));
                Lane::new(endpoint, upstream, client.and_then(Link::ends))
            });
            let best = lane.best(links);
            if lane.grows(best, links, self.most_links) {
                self.commands.push(Command::Dial(Arc::clone(&lane.upstream), at));
            }
            match best {
                Some(best) if lane.takes_on(&links[best]) => {
                    opening.queued = None;
                    let grown = lane.links.len() >= self.most_links;
                    let scarce = grown && is_scarce(&links[best].connection);
                    if scarce && !call.request.ended && self.has_its_share(key, at) {
                        self.wait(key, at, true);
                        return None;
                    }
                    return Some(best);
                }
                // Full, or about to have a companion.
                _ if best.is_some() || lane.is_growing() => {
                    opening.queued = None;
                    self.wait(key, at, false);
                    return None;
                }
                _ => {
                    // It may say so for a short time only (RFC 9113, 6.5.2), or for ever.
                    let shut = lane.is_shut(links).then(|| format!("{address} takes no streams"));
                    let why = lane.failure.clone().or(shut);
                    opening.waits_for = None;
                    opening.tried.push(address);
                    opening.why = why.or_else(|| opening.why.take());
                }
            }
        }
    }

    /// Opens the stream, and sends what has come of the request.
    fn open(&mut self, index: u32, id: usize, payload: Payload<'_>) {
        let call = &mut self.calls[index as usize];
        let Peer::Opening(opening) = &mut call.peer else { return };
        let (mut head, left) =
            (std::mem::take(&mut opening.head), std::mem::take(&mut opening.left));
        let in_flight = opening.waits_for.take().expect("it was picked for an endpoint");
        let link = &mut self.links[id];
        let bodiless = opening.bodiless;
        let now = self.context.now;
        if call.deadline != u64::MAX && now > call.begun {
            // What the proxy took of it is not the endpoint's any more.
            let left = timeout::format(call.deadline.saturating_sub(now));
            head.replace(Role::GrpcTimeout, left.as_bytes());
        }
        call.moved_at = now;
        self.buffers.supply(&mut link.out);
        let stream = link.connection.open(index, &head, bodiless, &mut link.out);
        call.request.done = bodiless;
        call.peer = Peer::Endpoint(Forwarded {
            at: StreamKey { link: id, stream },
            missing: None,
            in_flight,
            head_end: link.end(),
            replay: self.replays.begin(head, bodiless, left, &mut self.context),
        });
        self.touch(id);
        if !bodiless {
            self.push(index, Direction::Request, payload);
        }
        if self.calls[index as usize].buffered > 0 {
            self.account(index);
        }
    }

    /// A stream of a link has ended: one that waits may take its place.
    pub(super) fn freed(&mut self, id: usize) {
        if let Some(Kind::Endpoint(at)) = self.links.get(id).map(|link| &link.kind) {
            let at = *at;
            let Some(lane) = self.lanes.get(&at) else { return };
            let upstream = lane.upstream.line().is_waited_in().then(|| Arc::clone(&lane.upstream));
            if !lane.waiting.is_empty() {
                self.place_waiting(at);
            }
            if let Some(upstream) = upstream {
                self.offer_room(&upstream);
            }
        }
    }
}
