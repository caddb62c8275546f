//! What the endpoints of one upstream share: its rules, and who of them takes calls.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{Changes, Endpoint};
use crate::{
    config::{self, Cap, Quorum},
    metrics::Metrics,
};

/// What the endpoints of one upstream share.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) name: Arc<str>,
    pub(super) changes: Changes,
    pub(super) metrics: Metrics,
    pub(super) ejection: config::Ejection,
    pub(super) slow_start: Duration,
    /// Calls on one endpoint at a time.
    pub(super) limit: u32,
    pub(super) adaptive: bool,
    pub(super) begun: Instant,
    /// Counts all calls in flight, where something asks for it.
    pub(super) total: Option<Arc<Total>>,
    min_healthy: Quorum,
    /// Every change of what is available is made under this lock, so that the counts agree. Weak,
    /// since endpoints hold their pool.
    members: Mutex<Vec<Weak<Endpoint>>>,
    primaries: AtomicUsize,
    backups: AtomicUsize,
}

impl Pool {
    pub(super) fn new(config: &config::Upstream, changes: &Changes, metrics: &Metrics) -> Self {
        let admission = config.admission;
        let counts = admission.max_in_flight != Cap::Unlimited || config.hash_by.is_some();
        Self {
            name: config.name.as_str().into(),
            changes: changes.clone(),
            metrics: metrics.clone(),
            ejection: config.ejection,
            slow_start: config.slow_start,
            limit: count(admission.max_in_flight_per_endpoint),
            adaptive: admission.adaptive,
            begun: Instant::now(),
            total: counts.then(|| Arc::new(Total::new(count(admission.max_in_flight)))),
            min_healthy: config.min_healthy,
            members: Mutex::default(),
            primaries: AtomicUsize::new(0),
            backups: AtomicUsize::new(0),
        }
    }

    /// How many endpoints are available: those that are no backups, and backups.
    pub(super) fn available(&self) -> [usize; 2] {
        [self.primaries.load(Relaxed), self.backups.load(Relaxed)]
    }

    /// Makes `endpoints` the members.
    pub(super) fn set_members(&self, endpoints: &[Arc<Endpoint>]) {
        let mut members = self.lock();
        *members = endpoints.iter().map(Arc::downgrade).collect();
        self.count(&members);
    }

    /// Changes what is available, and counts anew.
    pub(super) fn change(&self, change: impl FnOnce()) {
        let members = self.lock();
        change();
        self.count(&members);
    }

    /// Does `eject` unless that would leave too few: no more than their share may be ejected, and
    /// as many as must be healthy have to take calls. The share alone would let the last available
    /// one go where the others are down.
    pub(super) fn eject(&self, endpoint: &Endpoint, eject: impl FnOnce()) -> bool {
        let members = self.lock();
        let all: Vec<_> = members.iter().filter_map(Weak::upgrade).collect();
        let most = all.len() * usize::from(self.ejection.max_ejected.0) / 100;
        let ejected = all.iter().filter(|it| it.is_ejected()).count();
        let left = all.iter().filter(|it| it.is_available()).count().saturating_sub(1);
        let member = all.iter().any(|it| std::ptr::eq(&raw const **it, endpoint));
        let enough = left >= self.min_healthy.needed(all.len()).max(1);
        let may = member && ejected < most && enough && endpoint.is_available();
        if may {
            eject();
            self.count(&members);
        }
        may
    }

    fn count(&self, members: &[Weak<Endpoint>]) {
        let available = members.iter().filter_map(Weak::upgrade).filter(|it| it.is_available());
        let (backups, primaries): (Vec<_>, Vec<_>) = available.partition(|it| it.is_backup());
        self.primaries.store(primaries.len(), Relaxed);
        self.backups.store(backups.len(), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Endpoint>>> {
        self.members.lock().expect("no holder of this lock panics")
    }
}

/// Calls in flight on all endpoints of an upstream, and how many there may be.
#[derive(Debug)]
pub(super) struct Total {
    in_flight: AtomicU32,
    limit: u32,
}

impl Total {
    fn new(limit: u32) -> Self {
        Self { in_flight: AtomicU32::new(0), limit }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed) as usize
    }

    pub(super) fn is_full(&self) -> bool {
        self.in_flight.load(Relaxed) >= self.limit
    }

    /// Counts a call where there is room for it.
    pub(super) fn take(&self) -> bool {
        let room = self.in_flight.fetch_add(1, Relaxed) < self.limit;
        if !room {
            self.give_back();
        }
        room
    }

    pub(super) fn give_back(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }
}

fn count(cap: Cap) -> u32 {
    match cap {
        Cap::Unlimited => u32::MAX,
        Cap::Count(count) => count,
    }
}
