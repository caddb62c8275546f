//! One endpoint: its address, its health as its prober sees it, and its calls in flight.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::SystemTime,
};

use tokio::sync::watch;

use super::{Changes, History};

/// One address that calls go to.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    state: watch::Sender<State>,
    healthy: AtomicBool,
    in_flight: AtomicUsize,
    changes: Changes,
}

/// What is known of an endpoint.
#[derive(Debug, Clone)]
pub struct State {
    /// As the thresholds have it.
    pub health: Health,
    /// Why it is not healthy: what the last failed probe saw. Empty where it is.
    pub reason: Arc<str>,
    /// What to know of its probes whatever its health, such as that it has no Watch; else empty.
    pub note: Arc<str>,
    /// Since when `health` is what it is.
    pub since: SystemTime,
    /// Its last changes.
    pub history: History<Health>,
}

/// Whether an endpoint takes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Not probed yet, or not for too long.
    Unknown,
    /// It takes calls.
    Healthy,
    /// It does not.
    Unhealthy,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        })
    }
}

impl Endpoint {
    pub(super) fn new(address: SocketAddr, changes: Changes) -> Self {
        let state = State {
            health: Health::Unknown,
            reason: "not probed yet".into(),
            note: "".into(),
            since: SystemTime::now(),
            history: History::default(),
        };
        Self {
            address,
            state: watch::Sender::new(state),
            healthy: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            changes,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it takes calls.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Relaxed)
    }

    /// What is known of it.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Calls in flight, over all workers.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
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
        if changed {
            self.healthy.store(health == Health::Healthy, Relaxed);
            self.changes.tell();
        }
    }

    /// Leaves a note beside its health. Only the endpoint's prober calls this.
    pub fn note(&self, note: &str) {
        self.state.send_modify(|state| state.note = note.into());
    }

    /// Registers a call; it is in flight until the guard is dropped.
    pub fn start(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(Arc::clone(self))
    }
}

/// A call in flight on an endpoint.
#[derive(Debug)]
pub struct InFlight(Arc<Endpoint>);

impl InFlight {
    /// The endpoint that the call is on.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
