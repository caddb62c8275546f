//! One endpoint: its address, its health as its prober sees it, its faults as calls see them, and
//! its calls in flight.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

use super::{
    Ejected, Fault, Health, History, State,
    adaptive::Adaptive,
    ejection::{Ejector, Source},
    pool::{Pool, Total},
};
use crate::metrics::{EjectionLabels, EndpointLabels};

/// One address that calls go to.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    state: watch::Sender<State>,
    /// [`HEALTHY`], [`EJECTED`], [`COLD`], [`REMOVED`]: one load tells what a pick needs to know.
    condition: AtomicU8,
    backup: AtomicBool,
    /// Calls at a time; where it is not bounded, more than there can be.
    pub(super) limit: AtomicU32,
    /// Faults since the last response.
    pub(super) row: AtomicU32,
    /// In the low half calls in flight, in the high one those that were ever started: one addition
    /// counts both.
    pub(super) calls: AtomicU64,
    pub(super) total: Option<Arc<Total>>,
    pub(super) adaptive: Option<Mutex<Adaptive>>,
    ejector: Mutex<Ejector>,
    /// Why the last handshake of TLS with it failed, in a word; none where it did not.
    handshake: Mutex<Option<&'static str>>,
    /// How often connections to it were found to be dead while it was alive.
    doubts: AtomicU32,
    /// When it became available, in milliseconds of its pool.
    cold_since: AtomicU64,
    /// When that no connection could be made was a fault last, in milliseconds of its pool from 1
    /// on; else 0.
    unreachable_at: AtomicU64,
    pool: Arc<Pool>,
}

impl Endpoint {
    pub(super) fn new(address: SocketAddr, backup: bool, pool: &Arc<Pool>) -> Self {
        let state = State {
            health: Health::Unknown,
            reason: "not probed yet".into(),
            note: "".into(),
            since: SystemTime::now(),
            history: History::default(),
        };
        let adaptive = pool.adaptive.then(|| Adaptive::new(pool.limit, Instant::now()));
        let limit = adaptive.as_ref().map_or(pool.limit, Adaptive::limit);
        Self {
            address,
            state: watch::Sender::new(state),
            condition: AtomicU8::new(0),
            backup: AtomicBool::new(backup),
            limit: AtomicU32::new(limit),
            row: AtomicU32::new(0),
            calls: AtomicU64::new(0),
            total: pool.total.clone(),
            adaptive: adaptive.map(Mutex::new),
            ejector: Mutex::default(),
            handshake: Mutex::default(),
            doubts: AtomicU32::new(0),
            cold_since: AtomicU64::new(0),
            unreachable_at: AtomicU64::new(0),
            pool: Arc::clone(pool),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it takes calls only while no endpoint is available that is no backup.
    pub fn is_backup(&self) -> bool {
        self.backup.load(Relaxed)
    }

    pub(super) fn set_backup(&self, backup: bool) {
        self.backup.store(backup, Relaxed);
    }

    /// Whether its prober says that it takes calls. Health checks are answered from this alone: an
    /// ejection leaves enough others to take the calls, and says nothing that a probe confirmed.
    pub fn is_healthy(&self) -> bool {
        self.condition.load(Relaxed) & HEALTHY != 0
    }

    /// Whether nothing is known of it: it was not probed yet, or not for too long.
    pub(super) fn is_unknown(&self) -> bool {
        !self.is_removed() && self.state.borrow().health == Health::Unknown
    }

    /// Whether it is given calls: it is healthy, and not ejected.
    pub fn is_available(&self) -> bool {
        self.condition.load(Relaxed) & (HEALTHY | EJECTED) == HEALTHY
    }

    /// Whether it is ejected.
    pub fn is_ejected(&self) -> bool {
        self.condition.load(Relaxed) & EJECTED != 0
    }

    /// Its ejection, where one is under way.
    pub fn ejected(&self) -> Option<Ejected> {
        self.ejector().current()
    }

    /// Whether its upstream has it no more: its calls may end, and no new ones come.
    pub fn is_removed(&self) -> bool {
        self.condition.load(Relaxed) & REMOVED != 0
    }

    /// Nobody is to connect to it any more. Its prober may publish once more before it ends.
    pub(super) fn remove(&self) {
        self.pool.change(|| self.alter(REMOVED, HEALTHY));
    }

    /// Nobody is to keep connections to it any more.
    pub(super) fn retire(&self) {
        self.pool.change(|| self.alter(REMOVED, 0));
    }

    /// What is known of it.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits until a probe has said something of it.
    pub async fn known(&self) {
        let mut state = self.state.subscribe();
        _ = state.wait_for(|state| state.health != Health::Unknown).await;
    }

    /// Calls in flight, over all workers.
    pub fn in_flight(&self) -> usize {
        in_flight(self.calls.load(Relaxed)) as usize
    }

    /// How many may be, where that is bounded.
    pub fn limit(&self) -> Option<u32> {
        Some(self.limit.load(Relaxed)).filter(|limit| *limit < u32::MAX)
    }

    pub(super) fn has_room(&self) -> bool {
        in_flight(self.calls.load(Relaxed)) < self.limit.load(Relaxed)
    }

    /// Goes on from what is known of `other`, which was this endpoint under other rules.
    pub(super) fn inherit(&self, other: &Self) {
        let state = other.state();
        let healthy = state.health == Health::Healthy;
        self.state.send_replace(state);
        if healthy {
            // Warm as it was.
            self.pool.change(|| self.alter(HEALTHY, 0));
            self.condition.fetch_and(!COLD, Relaxed);
        }
    }

    /// Is ejected as `other` is.
    pub(super) fn inherit_ejection(&self, other: &Self) {
        if other.is_ejected() && self.pool.eject(self, || self.alter(EJECTED, 0)) {
            *self.ejector() = other.ejector().clone();
        }
    }

    /// Publishes what a probe found. Only the endpoint's prober calls this.
    pub fn publish(&self, health: Health, reason: &str) {
        let changed = self.state.send_if_modified(|state| {
            if state.health == health && *state.reason == *reason {
                return false;
            }
            if state.health != health {
                state.history.record(state.health, health, reason.into());
                state.health = health;
                state.since = SystemTime::now();
            }
            state.reason = reason.into();
            true
        });
        if !changed {
            return;
        }
        if health == Health::Healthy && !self.is_removed() {
            self.pool.change(|| self.alter(HEALTHY, 0));
        } else {
            self.pool.change(|| self.alter(0, HEALTHY));
            // What its probes see as well is theirs to tell: it comes back by their threshold.
            let mut ejector = self.ejector();
            if ejector.cancel(Instant::now()) {
                self.readmit();
            }
        }
        self.pool.changes.tell();
    }

    /// Leaves a note beside its health. Only the endpoint's prober calls this.
    pub fn note(&self, note: &str) {
        self.state.send_modify(|state| state.note = note.into());
    }

    /// Takes down that a probe has passed, which ends an ejection whose time has run out. Only the
    /// endpoint's prober calls this.
    pub fn passed(&self) {
        if self.is_ejected() && self.ejector().end(Instant::now()) {
            self.readmit();
            info!(upstream = &*self.pool.name, endpoint = %self.address, "endpoint takes calls again");
        }
    }

    /// Takes down that a probe passed on a new connection after silence on the one before: others that
    /// are as old may be dead as well. Only the endpoint's prober calls this.
    pub fn doubt_connections(&self) {
        self.doubts.fetch_add(1, Relaxed);
    }

    /// How often that was so.
    pub fn doubts(&self) -> u32 {
        self.doubts.load(Relaxed)
    }

    /// Takes down a fault of transport: once for each connection that is lost, however many calls were
    /// on it. Never for a complete response.
    pub fn fault(&self, fault: Fault) {
        let row = self.row.fetch_add(1, Relaxed).saturating_add(1);
        self.take_down(fault, Source::Connection { row });
    }

    /// Takes down a stream that failed while its connection lives, of a call of `client`: it may be the
    /// call's own fault, and one client must not have the endpoint ejected for all.
    pub fn stream_fault(&self, fault: Fault, client: IpAddr) {
        self.take_down(fault, Source::Stream { client });
    }

    fn take_down(&self, fault: Fault, source: Source) {
        if let Some(adaptive) = &self.adaptive {
            adaptive.lock().expect("no holder of this lock panics").failed();
        }
        let started = (self.calls.load(Relaxed) >> 32) as u32;
        let (rules, now) = (&self.pool.ejection, Instant::now());
        let mut ejector = self.ejector();
        let due = ejector.fault(rules, source, started, now);
        if !due || !self.pool.eject(self, || self.alter(EJECTED, 0)) {
            return;
        }
        let time = ejector.eject(rules, fault, now);
        drop(ejector);
        let EndpointLabels { upstream, endpoint } = self.labels();
        let labels = EjectionLabels { upstream, endpoint, reason: fault.label() };
        self.pool.metrics.ejections.get_or_create(&labels).inc();
        let (upstream, reason) = (&*self.pool.name, fault.label());
        warn!(upstream, endpoint = %self.address, reason, ?time, "endpoint ejected");
    }

    /// The same for a connection that could not be made, tried `after` so long a pause. All workers
    /// try, and that is one fault each time: an endpoint that restarts is not ejected the sooner, the
    /// more of them there are.
    pub fn unreachable(&self, fault: Fault, after: Duration) {
        let now = self.age() + 1;
        let before = self.unreachable_at.load(Relaxed);
        let apart = after.mul_f64(0.8).max(TOGETHER).as_millis();
        if before == 0 || u128::from(now.saturating_sub(before)) >= apart {
            self.unreachable_at.store(now, Relaxed);
            self.fault(fault);
        }
    }

    /// Takes down how a handshake of TLS with it went; whether it failed for another cause than the
    /// one before, on whatever worker, so that this is told once and not at each attempt.
    pub fn shook_hands(&self, failure: Option<&'static str>) -> bool {
        let mut last = self.handshake.lock().expect("no holder of this lock panics");
        let before = std::mem::replace(&mut *last, failure);
        failure.is_some() && failure != before
    }

    fn readmit(&self) {
        self.row.store(0, Relaxed);
        self.pool.change(|| self.alter(0, EJECTED));
    }

    /// Changes the condition; one that becomes available by it is cold.
    fn alter(&self, set: u8, clear: u8) {
        let before = self.condition.load(Relaxed);
        let mut after = before & !clear | set;
        let [was, is] = [before, after].map(|it| it & (HEALTHY | EJECTED) == HEALTHY);
        if !was && is && !self.pool.slow_start.is_zero() {
            self.cold_since.store(self.age(), Relaxed);
            after |= COLD;
        }
        // Under the pool's lock: nothing else changes these bits but warming up, which may repeat.
        self.condition.store(after, Relaxed);
    }

    /// Whether it became available only lately.
    pub(super) fn is_cold(&self) -> bool {
        self.condition.load(Relaxed) & COLD != 0
    }

    /// Whether, by chance, a warm endpoint should take the call in its place.
    pub(super) fn yields(&self) -> bool {
        if !self.is_cold() {
            return false;
        }
        let since =
            Duration::from_millis(self.age() - self.cold_since.load(Relaxed).min(self.age()));
        let share = warmth(since, self.pool.slow_start);
        if share >= 1.0 {
            self.condition.fetch_and(!COLD, Relaxed);
        }
        fastrand::f64() >= share
    }

    /// How old its pool is, in milliseconds.
    fn age(&self) -> u64 {
        u64::try_from(self.pool.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn ejector(&self) -> MutexGuard<'_, Ejector> {
        self.ejector.lock().expect("no holder of this lock panics")
    }

    pub(super) fn labels(&self) -> EndpointLabels {
        EndpointLabels {
            upstream: (&*self.pool.name).into(),
            endpoint: self.address.to_string().as_str().into(),
        }
    }
}

/// The share of its calls that an endpoint takes so long after it became available.
fn warmth(since: Duration, slow_start: Duration) -> f64 {
    let part = since.as_secs_f64() / slow_start.as_secs_f64();
    (COLDEST + (1.0 - COLDEST) * part).min(1.0)
}

/// Of an endpoint's count of calls, those in flight.
pub(super) fn in_flight(calls: u64) -> u32 {
    calls as u32
}

/// First attempts to connect that fail within this time are one fault.
const TOGETHER: Duration = Duration::from_millis(50);
/// Its prober says so.
const HEALTHY: u8 = 1;
/// Its calls say that it should be left alone.
const EJECTED: u8 = 2;
/// It became available lately, and is not to be given its whole share.
const COLD: u8 = 4;
/// Its upstream has it no more.
const REMOVED: u8 = 8;
const COLDEST: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_warms_up_from_a_tenth_to_the_whole() {
        let whole = Duration::from_secs(10);
        let share = |seconds| (warmth(Duration::from_secs(seconds), whole) * 100.0).round();
        assert_eq!([0, 5, 10, 99].map(share), [10.0, 55.0, 100.0, 100.0]);
    }
}
