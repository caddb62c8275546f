//! A worker's connections to one endpoint: shared by its calls, grown with them, renewed when
//! lost.

use std::{
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use super::call::CallKey;
use crate::{
    net::proxy_protocol,
    upstream::{Endpoint, FairQueue, Upstream},
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
    pub(super) failures: u32,
    /// How often it found PINGs too many: the interval is doubled by each.
    pub(super) pinged_too_often: u32,
    /// When the newest link was made, in milliseconds.
    pub(super) made: u64,
    /// Calls that wait for a stream.
    pub(super) waiting: FairQueue<CallKey>,
    /// Calls whose request is not whole, and whose client has more than its share of the streams.
    pub(super) held_back: FairQueue<CallKey>,
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
    /// Where endpoints hear of clients, `ends` says where the only one of this lane comes from, and
    /// what it connected to.
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        upstream: &Arc<Upstream>,
        ends: Option<(SocketAddr, SocketAddr)>,
    ) -> Self {
        let header =
            upstream.proxy_protocol().map(|version| proxy_protocol::header(version, ends).into());
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
            waiting: FairQueue::default(),
            held_back: FairQueue::default(),
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

    /// Takes the calls out that wait for a stream.
    pub(super) fn take_waiting(&mut self) -> Vec<CallKey> {
        let [waiting, held_back] =
            [std::mem::take(&mut self.waiting), std::mem::take(&mut self.held_back)];
        waiting.into_entries().chain(held_back.into_entries()).collect()
    }

    /// Whether calls wait for a stream.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty() || !self.held_back.is_empty()
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

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);
