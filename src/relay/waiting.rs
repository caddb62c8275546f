//! Calls that wait for a stream of an endpoint: who is next, and who has more than its share.
//!
//! An endpoint takes so many streams at a time. A client that opens calls and brings nothing must
//! not have them all: the last quarter is for calls whose request is whole, and for clients with less
//! than half of the streams; and where others wait, who has more than a fair share gives back what it
//! only holds.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use super::{
    buffered::LATER,
    call::{CallKey, Peer, Waiting},
    engine::{Command, Engine},
    lane::{Lane, LaneKey},
    link::Link,
    links::Links,
    payload::Payload,
};
use crate::{
    grpc::{Code, Status},
    http2::connection::Connection,
    net,
    upstream::Client,
};

impl Lane {
    /// The connection with the fewest streams among those that may be given more; one whose window
    /// is exhausted after these, one whose socket takes nothing last.
    pub(super) fn best(&self, links: &Links) -> Option<usize> {
        let open = |id: &usize| links[*id].is_open() && links[*id].connection.max_streams() > 0;
        let load = |id: &usize| {
            let connection = &links[*id].connection;
            (links[*id].room() == 0, connection.is_exhausted(), connection.streams())
        };
        self.links.iter().copied().filter(open).min_by_key(load)
    }

    /// Whether one of its connections takes no streams at all.
    pub(super) fn is_shut(&self, links: &Links) -> bool {
        self.links.iter().any(|id| links[*id].connection.max_streams() == 0)
    }

    /// Whether another connection is to be made now, since the best one has few streams left, or no
    /// window.
    pub(super) fn grows(&mut self, best: Option<usize>, links: &Links, most: usize) -> bool {
        let busy = best.is_none_or(|best| {
            let connection = &links[best].connection;
            let limit = connection.max_streams().min(BUSY);
            connection.streams() >= limit - limit / 8 || connection.is_exhausted()
        });
        if !busy || self.dialing || self.failure.is_some() {
            return false;
        }
        // One that looks dead, or that cannot be written to, is of no use any more.
        let alive = self.links.iter().filter(|id| links[**id].is_open()).count();
        self.dialing = alive < most && !self.is_shut(links);
        self.dialing
    }

    /// Has each of its connections tell when its socket takes more.
    fn await_room(&self, links: &mut Links) {
        for id in &self.links {
            links[*id].awaited = true;
        }
    }

    /// Whether a call can be opened now.
    fn takes_one(&self, links: &Links) -> bool {
        self.best(links).is_some_and(|best| self.takes_on(&links[best]))
    }

    /// Tells that the best one can be given a call now. Where that has no window another one is
    /// about to come, unless an attempt has failed: streams that are not read may keep its window for
    /// long.
    pub(super) fn takes_on(&self, best: &Link) -> bool {
        let better_comes = self.is_growing() && self.failures == 0;
        best.takes_call() && !(best.connection.is_exhausted() && better_comes)
    }

    /// Whether there is nothing here that a call could wait for.
    fn is_lost(&self, links: &Links) -> bool {
        self.best(links).is_none() && !self.is_growing()
    }
}

impl Engine {
    /// The client of a connection, as it has its share.
    pub(super) fn client(&self, link: usize) -> Client {
        let address = self.links.get(link).and_then(|link| link.client);
        let address = address.map_or(Client::UNKNOWN, |address| net::client(address.ip()));
        Client { address, connection: link }
    }

    /// Lets a call wait for a stream; `held_back` until its request is whole, or its client has less.
    pub(super) fn wait(&mut self, key: CallKey, at: LaneKey, held_back: bool) {
        let client = self.client(self.calls[key.index as usize].client.link);
        let Some(lane) = self.lanes.get_mut(&at) else { return };
        let queue = if held_back { &mut lane.held_back } else { &mut lane.waiting };
        let turn = queue.push(client, key);
        lane.await_room(&mut self.links);
        if let Some(call) = self.call(key)
            && let Peer::Opening(opening) = &mut call.peer
        {
            opening.waiting = Some(Waiting { at, turn, held_back });
            if held_back {
                call.listener.held_back("fair_share");
            }
        }
    }

    /// Takes a call out that waits for a stream no more.
    pub(super) fn leave(&mut self, waiting: Waiting) {
        if let Some(lane) = self.lanes.get_mut(&waiting.at) {
            let queue = if waiting.held_back { &mut lane.held_back } else { &mut lane.waiting };
            queue.remove(waiting.turn);
        }
    }

    /// Opens calls that wait for a stream, as far as there are some.
    pub(super) fn place_waiting(&mut self, at: LaneKey) {
        for held_back in [false, true] {
            while let Some(lane) = self.lanes.get_mut(&at)
                && (lane.takes_one(&self.links) || lane.is_lost(&self.links))
            {
                let queue = if held_back { &mut lane.held_back } else { &mut lane.waiting };
                let Some(key) = queue.pop() else { break };
                if self.place_waiter(key) {
                    break;
                }
            }
        }
        let Some(lane) = self.lanes.get_mut(&at) else { return };
        if lane.is_waited_for() {
            lane.await_room(&mut self.links);
        }
        if !lane.waiting.is_empty()
            && lane.grows(lane.best(&self.links), &self.links, self.most_links)
        {
            self.commands.push(Command::Dial(Arc::clone(&lane.upstream), at));
        }
    }

    /// Places a call that waited. True where it is held back now, and those behind it may be too.
    fn place_waiter(&mut self, key: CallKey) -> bool {
        let Some(call) = self.call(key) else { return false };
        let Peer::Opening(opening) = &mut call.peer else { return false };
        let before = opening.waiting.take();
        self.place(key, Payload::NONE);
        let now = self.call(key).and_then(|call| match &call.peer {
            Peer::Opening(opening) => opening.waiting,
            _ => None,
        });
        now.is_some_and(|now| now.held_back && before.is_some_and(|before| before.held_back))
    }

    /// The request of a call that is held back is whole: it needs the endpoint alone.
    pub(super) fn let_go(&mut self, key: CallKey) {
        let Some(call) = self.call(key) else { return };
        let Peer::Opening(opening) = &mut call.peer else { return };
        if let Some(waiting) = opening.waiting.take_if(|waiting| waiting.held_back) {
            self.leave(waiting);
            self.place(key, Payload::NONE);
        } else if opening.left.is_empty() && std::mem::take(&mut opening.delayed) {
            self.place(key, Payload::NONE);
        }
    }

    /// Whether a call's client has half of an endpoint's streams.
    pub(super) fn has_its_share(&self, key: CallKey, at: LaneKey) -> bool {
        let address = self.client(self.calls[key.index as usize].client.link).address;
        let Some(lane) = self.lanes.get(&at) else { return false };
        let has = self.streams_of(lane).get(&address).copied().unwrap_or_default();
        has * 2 >= self.streams_in_all(lane)
    }

    fn streams_in_all(&self, lane: &Lane) -> usize {
        lane.links.iter().map(|id| self.links[*id].connection.max_streams()).sum()
    }

    /// How many streams of an endpoint each client address has.
    fn streams_of(&self, lane: &Lane) -> HashMap<IpAddr, usize> {
        let mut counts = HashMap::new();
        for index in lane.links.iter().flat_map(|id| self.links[*id].connection.calls()) {
            if let Some(call) = self.calls.get(index as usize) {
                *counts.entry(self.client(call.client.link).address).or_default() += 1;
            }
        }
        counts
    }

    /// Where calls wait for a stream, ends calls of clients that have more than their share and bring
    /// nothing.
    pub(super) fn share_streams(&mut self) {
        let waited = self.lanes.iter().filter(|(_, lane)| {
            !lane.waiting.is_empty() && lane.is_connected() && !lane.takes_one(&self.links)
        });
        for at in waited.map(|(at, _)| *at).take(LANES).collect::<Vec<_>>() {
            let idle = self.idle_beyond_share(at);
            for key in idle {
                let words = "Upbeat: its client has more than a fair share of the endpoint's streams \
                             and brings nothing, while others wait";
                let status = Status {
                    retry_delay: Some(LATER),
                    ..Status::new(Code::ResourceExhausted, words)
                };
                self.cut(key, "fair_share", status);
            }
        }
    }

    /// Calls that are to make room for those that wait: of clients that have more streams than
    /// their share, those whose request has brought nothing for a while.
    fn idle_beyond_share(&self, at: LaneKey) -> Vec<CallKey> {
        let Some(lane) = self.lanes.get(&at) else { return Vec::new() };
        let mut counts = self.streams_of(lane);
        let mut clients: Vec<IpAddr> = counts.keys().copied().collect();
        clients.extend(lane.waiting.clients().map(|client| client.address));
        clients.sort_unstable();
        clients.dedup();
        let share = (self.streams_in_all(lane) / clients.len().max(1)).max(1);
        let mut needed: HashMap<IpAddr, usize> = HashMap::new();
        let others =
            |address: IpAddr| lane.waiting.clients().any(|client| client.address != address);
        for (address, count) in &mut counts {
            if *count > share && others(*address) {
                needed.insert(*address, *count - share);
            }
        }
        if needed.is_empty() {
            return Vec::new();
        }
        let mut most = lane.waiting.len();
        let mut idle = Vec::new();
        for index in lane.links.iter().flat_map(|id| self.links[*id].connection.calls()) {
            let Some(call) = self.calls.get(index as usize) else { continue };
            let since = self.context.now.saturating_sub(call.moved_at);
            if call.request.ended || !call.request.queued().is_empty() || since < IDLE {
                continue;
            }
            let address = self.client(call.client.link).address;
            if let Some(needed) = needed.get_mut(&address).filter(|needed| **needed > 0)
                && most > 0
            {
                (*needed, most) = (*needed - 1, most - 1);
                idle.push(self.key(index));
            }
        }
        idle
    }

    /// Moves a call on that has waited long for a connection to one endpoint, or for a stream of it,
    /// where there is another one for it: it may be frozen. Where its route says how long it waits for
    /// a connection, it waits no longer.
    pub(super) fn move_on(&mut self, key: CallKey) {
        let now = self.context.now;
        let Some(call) = self.calls.get_mut(key.index as usize) else { return };
        let Peer::Opening(opening) = &mut call.peer else { return };
        let Some(waiting) = opening.waiting else { return };
        let Some(lane) = self.lanes.get(&waiting.at) else { return };
        let (address, connected) = (lane.endpoint.address(), lane.is_connected());
        let policy = &call.listener.ways[usize::from(call.way)].policy;
        let upstream = &call.listener.targets[usize::from(call.target)].upstream;
        let waited = now.saturating_sub(opening.waits_since);
        if let Some(within) = policy.connect_timeout.filter(|_| !connected)
            && waited >= super::millis(within)
        {
            let within = humantime::format_duration(within);
            opening.why = Some(format!("no connection to {address} within {within}"));
            opening.tried.push(address);
            opening.waits_for = None;
            call.listener.timed_out(call.target, "connect");
        } else if waited >= super::millis(upstream.connect_timeout()) {
            opening.tried.push(address);
            let other = super::pick::pick(&self.lanes, upstream, opening, call.client.link);
            let crate::upstream::Picked::Endpoint(other) = other else {
                opening.tried.pop();
                return;
            };
            opening.waits_for = Some(other);
        } else {
            return;
        }
        opening.waiting = None;
        self.leave(waiting);
        self.place(key, Payload::NONE);
    }
}

/// Whether so many streams are open that the rest is kept for some.
pub(super) fn is_scarce(connection: &Connection) -> bool {
    connection.streams() >= connection.max_streams().div_ceil(4).saturating_mul(3)
}

/// How long a request may bring nothing before its stream may be needed for others, in milliseconds.
const IDLE: u64 = 1000;
/// Calls on one connection from which another one is made.
const BUSY: usize = 100;
/// Endpoints that are looked after at a time.
const LANES: usize = 16;
