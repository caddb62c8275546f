//! Payload, and heads of requests, that wait here, whose calls they are of, and what is done where it
//! is too much.
//!
//! A stream has its window back when its receiver took the bytes, and a connection when they came:
//! so a receiver that takes nothing holds up its own stream alone. What may pile up that way is
//! bounded. A client connection of whose calls much waits gets less of its window back; where a
//! connection or the worker still has too much, the calls that hold most are ended.

use std::{sync::Arc, time::Duration};

use bytesize::ByteSize;

use super::{
    call::{CallKey, Peer},
    engine::Engine,
    link::{Kind, Link},
    memory,
    turn::{CLIENT_WINDOW, STREAM_WINDOW},
};
use crate::{
    config::{Buffer, Limits},
    grpc::{Code, Status},
};

/// How much payload may wait in one worker.
pub fn worker_buffer(limits: &Limits) -> ByteSize {
    match limits.max_worker_buffer {
        Buffer::Auto => ByteSize::b(memory::share()),
        Buffer::Size(size) => size,
    }
}

/// The payload that waits in a worker.
#[derive(Debug)]
pub(super) struct Buffered {
    /// In bytes.
    bytes: usize,
    /// What may wait of one client connection and of all, in bytes.
    connection: usize,
    worker: usize,
    /// More may wait than is allowed.
    over: bool,
}

impl Buffered {
    pub(super) fn new(limits: &Limits) -> Self {
        let mut buffered = Self { bytes: 0, connection: 0, worker: 0, over: false };
        buffered.set_bounds(limits);
        buffered
    }

    pub(super) fn set_bounds(&mut self, limits: &Limits) {
        let bytes = |size: ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        self.connection = bytes(limits.max_connection_buffer);
        self.worker = bytes(worker_buffer(limits));
        self.over = true;
    }

    /// Whether much waits already in the worker.
    fn is_tight(&self) -> bool {
        self.bytes > self.worker / 2
    }

    /// How much may wait of a client connection before it has less of its window back.
    fn free(&self) -> usize {
        if self.is_tight() { 0 } else { self.connection.saturating_sub(CLIENT_WINDOW as usize) }
    }

    /// The window of an endpoint's stream that sends to `client`: wide only where that takes what
    /// comes.
    pub(super) fn stream_window(&self, client: &Link) -> u32 {
        if self.is_tight() || client.buffered > WIDE { 0 } else { STREAM_WINDOW }
    }
}

impl Engine {
    /// Gives a connection its window back for payload that came. A client of whose calls too much
    /// waits has it later.
    pub(super) fn credit(&mut self, id: usize, bytes: usize) {
        let link = &mut self.links[id];
        match link.kind {
            Kind::Client(_) => link.withheld += bytes,
            Kind::Endpoint(_) => link.connection.credit(bytes, &mut link.out),
        }
    }

    /// Gives a client's connection back what is no more to be withheld of its window.
    pub(super) fn settle_credit(&mut self, id: usize) {
        let Some(link) = self.links.get_mut(id) else { return };
        let due = link.withheld.min(link.buffered.saturating_sub(self.buffered.free()));
        if due < link.withheld {
            link.connection.credit(link.withheld - due, &mut link.out);
            link.withheld = due;
        }
    }

    /// Takes down how much waits of a call now.
    pub(super) fn account(&mut self, index: u32) {
        let call = &mut self.calls[index as usize];
        let head = match &call.peer {
            Peer::Opening(opening) => opening.head.size(),
            _ => 0,
        };
        let waits = head + call.request.queued().len() + call.response.queued().len();
        if waits != call.buffered {
            let before = std::mem::replace(&mut call.buffered, waits);
            let client = call.client.link;
            self.change_buffered(client, before, waits);
        }
    }

    /// Takes down that `after` bytes of a client's call wait and no more `before`.
    pub(super) fn change_buffered(&mut self, client: usize, before: usize, after: usize) {
        self.buffered.bytes = self.buffered.bytes + after - before;
        self.buffered.over |= self.buffered.bytes > self.buffered.worker;
        if let Some(link) = self.links.get_mut(client) {
            link.buffered = link.buffered + after - before;
            self.buffered.over |= link.buffered > self.buffered.connection;
            if after < before && link.withheld > 0 {
                self.settle_credit(client);
                self.touch(client);
            }
        }
    }

    /// Ends calls of those that hold most, where more waits than may.
    pub(super) fn relieve(&mut self) {
        if !std::mem::take(&mut self.buffered.over) {
            return;
        }
        let over = |link: &Link, most: usize| link.buffered > most;
        let full = self.links.iter().filter(|(_, link)| over(link, self.buffered.connection));
        for id in full.map(|(id, _)| id).collect::<Vec<_>>() {
            let most = self.buffered.connection;
            while self.links.get(id).is_some_and(|link| over(link, most))
                && self.end_largest(id, "connection_buffer", "limits.max_connection_buffer")
            {
            }
        }
        if self.buffered.bytes > self.buffered.worker {
            // Somewhat less than may wait, so that the next byte does not lead here again.
            let enough = self.buffered.worker - self.buffered.worker / 8;
            while self.buffered.bytes > enough {
                let largest = self.links.iter().max_by_key(|(_, link)| link.buffered);
                let Some((id, _)) = largest.filter(|(_, link)| link.buffered > 0) else { return };
                if !self.end_largest(id, "worker_buffer", "limits.max_worker_buffer") {
                    return;
                }
            }
        }
    }

    /// Ends the call of a client's connection that holds most. False where none holds anything.
    fn end_largest(&mut self, id: usize, reason: &'static str, key: &str) -> bool {
        let Some(link) = self.links.get(id) else { return false };
        let calls = link.connection.calls().filter_map(|index| {
            let call = self.calls.get(index as usize)?;
            (call.client.link == id && call.buffered > 0).then_some((call.buffered, index))
        });
        let Some((_, index)) = calls.max() else { return false };
        let words = format!("Upbeat holds too much that waits to be taken ({key})");
        self.cut(
            self.key(index),
            reason,
            Status { retry_delay: Some(LATER), ..Status::new(Code::ResourceExhausted, words) },
        );
        true
    }

    /// Ends a call for what its client, or its endpoint, does: told in the log, and counted.
    pub(super) fn cut(&mut self, key: CallKey, reason: &'static str, status: Status) {
        let Some(call) = self.call(key) else { return };
        let listener = Arc::clone(&call.listener);
        let client = call.client.link;
        let client = self.links.get(client).and_then(|link| link.client);
        listener.refusals().cut(client.map(|it| it.ip()), reason, &status.message);
        self.fail(key.index, &status);
    }
}

/// How much may wait of a client's calls for its endpoints' streams to have wide windows, in bytes.
const WIDE: usize = 4 << 20;
/// When a call that was ended for want of room may come again.
pub(super) const LATER: Duration = Duration::from_secs(1);
