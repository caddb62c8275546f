//! Calls that wait for room.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::sync::Notify;

use super::call::CallKey;
use crate::{
    http2::identity::ByIdentity,
    upstream::{Line, Ticket, Turn, Upstream},
};

/// A worker's calls that wait until an endpoint has room.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// By the place in memory of the upstream's line, which the queue holds.
    all: HashMap<usize, Queue, ByIdentity>,
    /// Told when another worker has found room that is for one of them.
    pub(super) woken: Arc<Notify>,
}

#[derive(Debug)]
struct Queue {
    upstream: Arc<Upstream>,
    calls: BTreeMap<Turn, CallKey>,
}

impl Queues {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The upstreams that are waited for.
    pub(super) fn upstreams(&self) -> Vec<Arc<Upstream>> {
        self.all.values().map(|queue| Arc::clone(&queue.upstream)).collect()
    }

    pub(super) fn insert(&mut self, upstream: &Arc<Upstream>, turn: Turn, key: CallKey) {
        let new = || Queue { upstream: Arc::clone(upstream), calls: BTreeMap::new() };
        let queue = self.all.entry(place(upstream.line())).or_insert_with(new);
        queue.calls.insert(turn, key);
    }

    /// Takes a call out.
    pub(super) fn remove(&mut self, upstream: &Arc<Upstream>, turn: Turn) -> Option<CallKey> {
        self.all.get_mut(&place(upstream.line()))?.calls.remove(&turn)
    }

    /// Takes a call out that waits no more.
    pub(super) fn leave(&mut self, ticket: &Ticket) {
        if let Some(queue) = self.all.get_mut(&place(ticket.line())) {
            queue.calls.remove(&ticket.turn());
        }
    }

    /// Forgets upstreams that nobody waits for.
    pub(super) fn tidy(&mut self) {
        self.all.retain(|_, queue| !queue.calls.is_empty());
    }
}

fn place(line: &Arc<Line>) -> usize {
    Arc::as_ptr(line).addr()
}
