//! Which endpoint a call gets, or that it waits for one, or that there is none.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{
    call::{CallKey, Opening, Peer},
    engine::Engine,
    lane::{Lane, LaneKey},
    millis,
    payload::Payload,
    queue::Queue,
};
use crate::{
    grpc::Status,
    http2::identity::ByIdentity,
    metrics::ShedLabels,
    upstream::{self, Endpoint, Picked, Upstream},
};

impl Engine {
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

    /// Lets a call wait until an endpoint has room, or turns it away where enough wait.
    pub(super) fn queue(&mut self, key: CallKey) {
        let now = self.context.now;
        let call = &mut self.calls[key.index as usize];
        let upstream = &call.listener.targets[usize::from(call.target)].upstream;
        let Peer::Opening(opening) = &mut call.peer else { return };
        let again = opening.queued.is_some();
        if !again {
            let Some(place) = upstream.queue() else { return self.shed(key.index, "full") };
            opening.queued = Some((place, now + millis(upstream.queue_timeout())));
        }
        let queue = self.queues.entry(Arc::as_ptr(upstream).addr());
        let new = || Queue { upstream: Arc::clone(upstream), calls: VecDeque::new() };
        let calls = &mut queue.or_insert_with(new).calls;
        match again {
            true => calls.push_front(key),
            false => calls.push_back(key),
        }
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

    /// Places calls that wait for room in an upstream, the oldest first, while there is some.
    pub(super) fn place_queued(&mut self, upstream: &Arc<Upstream>) {
        let at = Arc::as_ptr(upstream).addr();
        while let Some(queue) = self.queues.get_mut(&at) {
            let Some(key) = queue.calls.pop_front() else {
                self.queues.remove(&at);
                return;
            };
            let waits = self.is_queued(key);
            if waits {
                self.place(key, Payload::NONE);
            }
            if waits && self.is_queued(key) {
                // Still no room.
                return;
            }
        }
    }

    /// The same for every upstream: the room may be another worker's calls'.
    pub(super) fn place_all_queued(&mut self) {
        let upstreams: Vec<_> = self.queues.values().map(|it| Arc::clone(&it.upstream)).collect();
        for upstream in upstreams {
            self.place_queued(&upstream);
        }
    }

    /// Calls that have waited long for a connection to one endpoint, or for room on it, go to another
    /// one where there is one for them: it may be frozen. Those whose route says how long they wait
    /// for a connection wait no longer.
    pub(super) fn move_on(&mut self) {
        let now = self.context.now;
        let waiting = self.lanes.iter().filter(|(_, lane)| lane.is_waited_for());
        let waiting: Vec<_> = waiting.map(|(at, _)| *at).collect();
        for at in waiting {
            let Some(lane) = self.lanes.get_mut(&at) else { continue };
            let (address, connected) = (lane.endpoint.address(), lane.is_connected());
            for key in lane.take_waiting() {
                let Some(call) = self.calls.get_mut(key.index as usize) else { continue };
                let Peer::Opening(opening) = &mut call.peer else { continue };
                if call.serial != key.serial {
                    continue;
                }
                let waited = now.saturating_sub(call.moved_at.max(call.begun));
                let policy = &call.listener.ways[usize::from(call.way)].policy;
                let upstream = &call.listener.targets[usize::from(call.target)].upstream;
                if let Some(within) = policy.connect_timeout.filter(|_| !connected)
                    && now.saturating_sub(opening.waits_since) >= millis(within)
                {
                    let within = humantime::format_duration(within);
                    opening.why = Some(format!("no connection to {address} within {within}"));
                    opening.tried.push(address);
                    opening.waits_for = None;
                    call.listener.timed_out(call.target, "connect");
                    self.place(key, Payload::NONE);
                    continue;
                }
                if waited >= millis(upstream.connect_timeout()) {
                    opening.tried.push(address);
                    let client = call.client.link;
                    if let Picked::Endpoint(other) = pick(&self.lanes, upstream, opening, client) {
                        opening.waits_for = Some(other);
                        self.place(key, Payload::NONE);
                        continue;
                    }
                    opening.tried.pop();
                }
                if let Some(lane) = self.lanes.get_mut(&at) {
                    lane.wait(key);
                }
            }
        }
    }

    fn is_queued(&self, key: CallKey) -> bool {
        let call = self.calls.get(key.index as usize).filter(|call| call.serial == key.serial);
        call.is_some_and(
            |call| matches!(&call.peer, Peer::Opening(opening) if opening.queued.is_some()),
        )
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
