//! Calls that wait for room.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::sync::Notify;

use super::call::CallKey;
use crate::{http2::identity::ByIdentity, upstream::Upstream};

/// A worker's calls that wait until an endpoint has room.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// By the upstream's place in memory, which its queue holds.
    all: HashMap<usize, Queue, ByIdentity>,
    /// Told when another worker has found room that is for one of them.
    pub(super) woken: Arc<Notify>,
}

#[derive(Debug)]
struct Queue {
    upstream: Arc<Upstream>,
    /// By their tickets.
    calls: BTreeMap<u64, CallKey>,
}

impl Queues {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The upstreams that are waited for.
    pub(super) fn upstreams(&self) -> Vec<Arc<Upstream>> {
        self.all.values().map(|queue| Arc::clone(&queue.upstream)).collect()
    }

    pub(super) fn insert(&mut self, upstream: &Arc<Upstream>, ticket: u64, key: CallKey) {
        let new = || Queue { upstream: Arc::clone(upstream), calls: BTreeMap::new() };
        let queue = self.all.entry(Arc::as_ptr(upstream).addr()).or_insert_with(new);
        queue.calls.insert(ticket, key);
    }

    /// Takes a call out.
    pub(super) fn remove(&mut self, upstream: &Arc<Upstream>, ticket: u64) -> Option<CallKey> {
        self.all.get_mut(&Arc::as_ptr(upstream).addr())?.calls.remove(&ticket)
    }

    /// Forgets calls that wait no more, and upstreams that nobody waits for.
    pub(super) fn retain(&mut self, waits: impl Fn(CallKey) -> bool) {
        self.all.retain(|_, queue| {
            queue.calls.retain(|_, key| waits(*key));
            !queue.calls.is_empty()
        });
    }
}
