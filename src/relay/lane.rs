//! A worker's connections to one endpoint: shared by its calls, grown with them, renewed when
//! lost.

use std::{collections::VecDeque, net::SocketAddr, rc::Rc, sync::Arc};

use super::{
    call::{CallKey, Forwarded, Peer, StreamKey},
    engine::{Command, Engine},
    link::Direction,
};
use crate::{
    grpc::{Code, Status},
    upstream::{Endpoint, Upstream},
};

/// The connections to one endpoint, and the state of the attempts to make another.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) endpoint: Arc<Endpoint>,
    upstream: Arc<Upstream>,
    /// Those that take new calls.
    links: Vec<usize>,
    pub(super) dialing: bool,
    /// Why the last attempt failed, while the next one is put off.
    failure: Option<String>,
    waiting: VecDeque<CallKey>,
}

impl Lane {
    fn is_growing(&self) -> bool {
        self.dialing && self.failure.is_none()
    }
}

impl Engine {
    /// Opens a call's stream on the endpoint that is picked for it, or lets it wait for a
    /// connection. An endpoint that cannot be reached is passed over: nothing was sent to it.
    pub(super) fn place(&mut self, key: CallKey) {
        loop {
            let Some(call) = self.calls.get_mut(key.index as usize) else { return };
            let listener = Arc::clone(&call.listener);
            let Peer::Opening(opening) = &mut call.peer else { return };
            let upstream = listener.upstream.as_ref().expect("a listener that forwards has one");
            if opening.waits_for.is_none() {
                let lanes = &self.lanes;
                let usable = |endpoint: &Endpoint| {
                    let lane = lanes.get(&endpoint.address());
                    lane.is_none_or(|lane| lane.failure.is_none())
                };
                let tried = &opening.tried;
                let untried = |endpoint: &Endpoint| !tried.contains(&endpoint.address());
                let picked = upstream
                    .pick(|endpoint| untried(endpoint) && usable(endpoint))
                    .or_else(|| upstream.pick(untried));
                let Some(endpoint) = picked else {
                    let none = || format!("no healthy endpoint in upstream {}", upstream.name());
                    let why = opening.why.take().unwrap_or_else(none);
                    return self.fail(key.index, &Status::new(Code::Unavailable, why));
                };
                opening.waits_for = Some(endpoint.start());
            }
            let in_flight = opening.waits_for.as_ref().expect("it was just set");
            let endpoint = Arc::clone(in_flight.endpoint());
            let address = endpoint.address();
            let lane = self.lanes.entry(address).or_insert_with(|| Lane {
                endpoint,
                upstream: Arc::clone(upstream),
                links: Vec::new(),
                dialing: false,
                failure: None,
                waiting: VecDeque::new(),
            });
            let links = &self.links;
            let streams = |id: &usize| links[*id].connection.streams();
            let best = lane.links.iter().copied().min_by_key(streams);
            let busy = best.is_none_or(|best| {
                let limit = links[best].connection.max_streams().min(BUSY);
                links[best].connection.streams() >= limit - limit / 8
            });
            if busy && !lane.dialing && lane.failure.is_none() && lane.links.len() < CONNECTIONS {
                lane.dialing = true;
                self.commands.push(Command::Dial(Arc::clone(&lane.upstream), address));
            }
            match best {
                Some(best) if links[best].connection.may_open() => {
                    return self.open(key.index, best);
                }
                // Full, or about to have a companion.
                _ if best.is_some() || lane.is_growing() => {
                    lane.waiting.push_back(key);
                    return;
                }
                _ => {
                    let why = lane.failure.clone();
                    opening.waits_for = None;
                    opening.tried.push(address);
                    opening.why = why.or_else(|| opening.why.take());
                }
            }
        }
    }

    /// Opens the stream, and sends what has come of the request.
    fn open(&mut self, index: u32, id: usize) {
        let call = &mut self.calls[index as usize];
        let Peer::Opening(opening) = &mut call.peer else { return };
        let head = std::mem::take(&mut opening.head);
        let in_flight = opening.waits_for.take().expect("it was picked for an endpoint");
        let link = &mut self.links[id];
        let bodiless = opening.bodiless;
        let stream = link.connection.open(index, &head, bodiless, &mut link.out);
        call.request.done = bodiless;
        call.peer = Peer::Endpoint(Forwarded {
            at: StreamKey { link: id, stream },
            wants_status: false,
            _in_flight: in_flight,
        });
        self.context.recycle(head);
        self.touch(id);
        if !bodiless {
            self.push(index, Direction::Request, &[]);
        }
    }

    /// Calls that wait for a lane try again.
    fn place_waiting(&mut self, address: SocketAddr) {
        let Some(lane) = self.lanes.get_mut(&address) else { return };
        for _ in 0..lane.waiting.len() {
            let Some(lane) = self.lanes.get_mut(&address) else { return };
            let Some(key) = lane.waiting.pop_front() else { return };
            if self.is_opening(key) {
                self.place(key);
            }
        }
    }

    /// A stream of a link has ended: one that waits may take its place.
    pub(super) fn freed(&mut self, id: usize) {
        if let Some(super::link::Kind::Endpoint(address)) = self.links.get(id).map(|it| &it.kind) {
            let address = *address;
            if self.lanes.get(&address).is_some_and(|lane| !lane.waiting.is_empty()) {
                self.place_waiting(address);
            }
        }
    }

    /// An endpoint's SETTINGS have come: with the first ones its link takes calls.
    pub(super) fn settled(&mut self, id: usize) {
        let Some(link) = self.links.get(id) else { return };
        let super::link::Kind::Endpoint(address) = link.kind else { return };
        let told = Rc::clone(&link.settled);
        let retired = link.connection.is_told_to_go();
        if let Some(lane) = self.lanes.get_mut(&address) {
            if !lane.links.contains(&id) && !retired && !link.draining {
                lane.links.push(id);
                lane.dialing = false;
                lane.failure = None;
            }
            told.notify_one();
            self.place_waiting(address);
        }
    }

    /// An attempt to connect failed; the next one is put off.
    pub(super) fn dial_failed(&mut self, address: SocketAddr, why: String) {
        if let Some(lane) = self.lanes.get_mut(&address) {
            lane.failure = Some(why);
            for key in std::mem::take(&mut lane.waiting) {
                if let Some(call) = self.call(key)
                    && let Peer::Opening(opening) = &mut call.peer
                {
                    opening.waits_for = None;
                    self.place(key);
                }
            }
        }
    }

    /// No more attempts: the endpoint is not called healthy any more.
    pub(super) fn dial_given_up(&mut self, address: SocketAddr) {
        if let Some(lane) = self.lanes.get_mut(&address) {
            lane.failure = None;
            lane.dialing = false;
        }
    }

    /// The endpoint takes no new calls on this link, and has not taken those above `last`.
    pub(super) fn told_to_go(&mut self, id: usize, last: u32) {
        self.retire(id);
        let calls: Vec<u32> = self
            .calls
            .iter()
            .filter(|(_, call)| match &call.peer {
                Peer::Endpoint(peer) => peer.at.link == id && peer.at.stream > last,
                _ => false,
            })
            .map(|(index, _)| index as u32)
            .collect();
        for index in calls {
            self.endpoint_lost(index, "GOAWAY did not take the call up");
        }
    }

    /// Lets a link's calls end, and then the link.
    pub(super) fn retire(&mut self, id: usize) {
        let Some(link) = self.links.get_mut(id) else { return };
        link.draining = true;
        let super::link::Kind::Endpoint(address) = link.kind else { return };
        self.lane_lost(address, id);
    }

    /// A link takes no new calls: the next one should find another, or know that there is none.
    pub(super) fn lane_lost(&mut self, address: SocketAddr, id: usize) {
        let Some(lane) = self.lanes.get_mut(&address) else { return };
        lane.links.retain(|link| *link != id);
        if lane.links.is_empty() && !lane.dialing && lane.endpoint.is_healthy() {
            lane.dialing = true;
            self.commands.push(Command::Dial(Arc::clone(&lane.upstream), address));
        }
        if !lane.waiting.is_empty() {
            self.place_waiting(address);
        }
    }
}

/// Calls on one connection from which another one is made.
const BUSY: usize = 100;
/// Connections of one worker to one endpoint.
const CONNECTIONS: usize = 4;
