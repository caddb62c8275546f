//! Which endpoint a call gets, or that it waits for one, or that there is none.

use std::{collections::HashMap, sync::Arc};

use super::{
    call::{CallKey, Opening, Peer},
    engine::Engine,
    lane::{Lane, LaneKey},
    millis,
    payload::Payload,
};
use crate::{
    grpc::Status,
    http2::identity::ByIdentity,
    metrics::ShedLabels,
    upstream::{self, Client, Endpoint, Picked, Ticket, Upstream},
};

impl Engine {
    /// Registers a call on an endpoint that has room for it, unless it is on one already. False
    /// where it waits for room now, or has ended.
    pub(super) fn find_room(&mut self, key: CallKey) -> bool {
        loop {
            let Some(call) = self.calls.get_mut(key.index as usize) else { return false };
            let Peer::Opening(opening) = &mut call.peer else { return false };
            if opening.waits_for.is_some() {
                return true;
            }
            let upstream = &call.listener.targets[usize::from(call.target)].upstream;
            let line = upstream.line();
            let is_in_line = |(ticket, _): &(Ticket, u64)| ticket.is_for(line);
            if line.is_waited_in() && !opening.queued.as_ref().is_some_and(is_in_line) {
                // Those before it are to have the room first.
                self.queue(key);
                return false;
            }
            let (lanes, client) = (&self.lanes, call.client.link);
            let picked = pick(lanes, upstream, opening, client);
            match picked.or_else(|| pick_spare(lanes, upstream, opening, client)) {
                Picked::Endpoint(in_flight) => {
                    opening.waits_for = Some(in_flight);
                    opening.waits_since = self.context.now;
                    return true;
                }
                Picked::Full => {
                    self.queue(key);
                    return false;
                }
                Picked::None => {
                    let none = || format!("no healthy endpoint in upstream {upstream}");
                    opening.why.get_or_insert_with(none);
                    if !self.pass_target(key.index) {
                        return false;
                    }
                }
            }
        }
    }

    /// Turns a call to another target of its way, or ends it where none is left.
    pub(super) fn pass_target(&mut self, index: u32) -> bool {
        let call = &mut self.calls[index as usize];
        let Peer::Opening(opening) = &mut call.peer else { return false };
        opening.passed.push(call.target);
        let Some(next) = call.listener.ways[usize::from(call.way)].beside(&opening.passed) else {
            let why = opening.why.take().unwrap_or_default();
            self.fail(index, &Status::unavailable(why));
            return false;
        };
        call.listener.targets[usize::from(call.target)].streams.dec();
        call.listener.targets[usize::from(next)].streams.inc();
        call.target = next;
        true
    }

    /// Lets a call wait until an endpoint has room, behind those that do so already, or turns it
    /// away where enough wait.
    pub(super) fn queue(&mut self, key: CallKey) {
        let now = self.context.now;
        let client = self.client(self.calls[key.index as usize].client.link);
        // Links of several workers may have one number.
        let connection = client.connection ^ Arc::as_ptr(&self.queues.woken).addr();
        let client = Client { connection, ..client };
        let call = &mut self.calls[key.index as usize];
        let upstream = &call.listener.targets[usize::from(call.target)].upstream;
        let Peer::Opening(opening) = &mut call.peer else { return };
        let line = upstream.line();
        let (ticket, until) = match opening.queued.take() {
            Some((ticket, until)) if ticket.is_for(line) => (ticket, until),
            before => {
                if let Some((ticket, _)) = &before {
                    self.queues.leave(ticket);
                }
                let Some(ticket) = line.join(client, &self.queues.woken) else {
                    return self.shed(key.index, "full");
                };
                // One that comes from another line has waited there.
                let until = before.map_or_else(|| now + millis(line.timeout()), |(_, until)| until);
                if !upstream.is_full() {
                    // It may have been left before anyone could see that there is one more.
                    line.offer();
                    self.queues.woken.notify_one();
                }
                (ticket, until)
            }
        };
        self.queues.insert(upstream, ticket.turn(), key);
        opening.queued = Some((ticket, until));
        self.look_by(key.index, until);
    }

    /// Turns a call away, since its upstream has enough.
    pub(super) fn shed(&mut self, index: u32, reason: &'static str) {
        let call = &self.calls[index as usize];
        let upstream = &call.listener.targets[usize::from(call.target)].upstream;
        let labels = ShedLabels { upstream: (&**upstream.name()).into(), reason };
        call.listener.metrics.shed.get_or_create(&labels).inc();
        let status = Status::unavailable(format!("upstream {upstream} is full"));
        self.fail(index, &status);
    }

    /// There may be room in an upstream: those that wait for it are placed while there is some, in
    /// the order of all workers.
    pub(super) fn offer_room(&mut self, upstream: &Arc<Upstream>) {
        upstream.line().offer();
        self.place_queued(upstream);
    }

    /// Places this worker's calls while it is their turn.
    fn place_queued(&mut self, upstream: &Arc<Upstream>) {
        let line = upstream.line();
        while let Some(turn) = line.turn(&self.queues.woken) {
            let Some(key) = self.queues.remove(upstream, turn) else { continue };
            self.place(key, Payload::NONE);
            let call = self.calls.get(key.index as usize).filter(|call| call.serial == key.serial);
            if let Some(call) = call {
                if !Arc::ptr_eq(&call.listener.targets[usize::from(call.target)].upstream, upstream)
                {
                    // By a reload, or since nothing here is for it: it took no room of these.
                    continue;
                }
                if let Peer::Opening(opening) = &call.peer
                    && opening.queued.is_some()
                    && opening.tried.is_empty()
                    && opening.left.is_empty()
                    && upstream.proxy_protocol().is_none()
                {
                    // Room that it cannot use is for no other call of this worker.
                    line.pass(&self.queues.woken);
                }
            }
            if upstream.is_full() {
                return;
            }
        }
    }

    /// Another worker has found room that may be for calls of this one.
    pub(super) fn take_turns(&mut self) {
        for upstream in self.queues.upstreams() {
            self.place_queued(&upstream);
        }
    }

    /// Looks whether there is room that nobody told of: an endpoint may have become available.
    pub(super) fn place_all_queued(&mut self) {
        for upstream in self.queues.upstreams() {
            self.offer_room(&upstream);
        }
        self.queues.tidy();
    }
}

/// An endpoint for a call that was not tried for it, best one that can be reached and did not give
/// it back.
pub(super) fn pick(
    lanes: &HashMap<LaneKey, Lane, ByIdentity>,
    upstream: &Upstream,
    opening: &Opening,
    client: usize,
) -> Picked {
    let hash = hash(upstream, opening);
    let usable = |endpoint: &Arc<Endpoint>| is_usable(lanes, endpoint, upstream, client);
    let untried = |endpoint: &Arc<Endpoint>| !opening.tried.contains(&endpoint.address());
    let new = |endpoint: &Arc<Endpoint>| !opening.left.contains(&endpoint.address());
    upstream
        .pick(hash, |endpoint| new(endpoint) && untried(endpoint) && usable(endpoint))
        .or_else(|| upstream.pick(hash, |endpoint| untried(endpoint) && usable(endpoint)))
        .or_else(|| upstream.pick(hash, untried))
}

/// An endpoint for a call that could reach none of those that calls go to: a backup, or an ejected
/// one. Calls know that endpoints died before probes do.
pub(super) fn pick_spare(
    lanes: &HashMap<LaneKey, Lane, ByIdentity>,
    upstream: &Upstream,
    opening: &Opening,
    client: usize,
) -> Picked {
    upstream.pick_spare(hash(upstream, opening), |endpoint| {
        !opening.tried.contains(&endpoint.address()) && is_usable(lanes, endpoint, upstream, client)
    })
}

fn hash(upstream: &Upstream, opening: &Opening) -> Option<u64> {
    let value = upstream.hash_by().and_then(|name| opening.head.first_of(name.as_bytes()));
    value.map(|value| upstream::hash(&value))
}

fn is_usable(
    lanes: &HashMap<LaneKey, Lane, ByIdentity>,
    endpoint: &Arc<Endpoint>,
    upstream: &Upstream,
    client: usize,
) -> bool {
    lanes.get(&LaneKey::of(endpoint, upstream, client)).is_none_or(Lane::is_usable)
}
