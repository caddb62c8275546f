//! Upstreams: named sets of endpoints, what is known of each, and which one the next call takes.

mod balance;
mod budget;
mod endpoint;
mod history;

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::watch;

pub use self::budget::Retrying;
pub use self::endpoint::{Endpoint, Health, InFlight, State};
pub use self::history::{History, Transition};
use self::{balance::Balancer, budget::Budget};
use crate::config::{self, Quorum, Share};

/// A named set of endpoints that serve the same thing.
#[derive(Debug)]
pub struct Upstream {
    name: Arc<str>,
    endpoints: watch::Sender<Endpoints>,
    changes: Changes,
    min_healthy: Quorum,
    panic_threshold: Share,
    balancer: Balancer,
    budget: Budget,
    connect_timeout: Duration,
}

/// The endpoints of an upstream at one moment.
pub type Endpoints = Arc<[Arc<Endpoint>]>;

impl Upstream {
    /// An upstream whose endpoints are not probed yet. Each change of theirs is told to `changes`.
    pub fn new(config: &config::Upstream, changes: &Changes) -> Self {
        let upstream = Self {
            name: config.name.as_str().into(),
            endpoints: watch::Sender::new(Arc::new([])),
            changes: changes.clone(),
            min_healthy: config.min_healthy,
            panic_threshold: config.panic_threshold,
            balancer: Balancer::new(config.load_balancing),
            budget: Budget::default(),
            connect_timeout: config.connect_timeout,
        };
        upstream.reconcile(&config.endpoints);
        upstream
    }

    /// Makes `wanted` the endpoints; those that were there before keep their state.
    pub fn reconcile(&self, wanted: &[config::Endpoint]) {
        self.endpoints.send_modify(|endpoints| {
            let known = |it: &config::Endpoint| {
                endpoints.iter().find(|endpoint| endpoint.address() == it.address).cloned()
            };
            *endpoints = wanted
                .iter()
                .map(|it| {
                    known(it).unwrap_or_else(|| {
                        Arc::new(Endpoint::new(it.address, self.changes.clone()))
                    })
                })
                .collect();
        });
        self.changes.tell();
    }

    /// The name, as configured.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The endpoints at this moment.
    pub fn endpoints(&self) -> Endpoints {
        self.endpoints.borrow().clone()
    }

    /// The endpoints, and their changes from now on.
    pub fn follow(&self) -> watch::Receiver<Endpoints> {
        let mut receiver = self.endpoints.subscribe();
        receiver.mark_changed();
        receiver
    }

    /// How long a TCP connect to one of the endpoints may take.
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// The endpoint for the next call, among those that are healthy and that `usable` admits.
    pub fn pick(&self, usable: impl Fn(&Arc<Endpoint>) -> bool) -> Option<Arc<Endpoint>> {
        let endpoints = self.endpoints.borrow();
        let panicking = self.panic_threshold.0 > 0 && {
            let healthy = endpoints.iter().filter(|endpoint| endpoint.is_healthy()).count();
            healthy * 100 < endpoints.len() * usize::from(self.panic_threshold.0)
        };
        let admitted =
            |endpoint: &Arc<Endpoint>| (panicking || endpoint.is_healthy()) && usable(endpoint);
        self.balancer.pick(&endpoints, admitted).cloned()
    }

    /// A place for a retry, where that share of the calls in flight leaves one.
    pub fn retry(&self, budget: Share) -> Option<Retrying> {
        let in_flight = self.endpoints.borrow().iter().map(|endpoint| endpoint.in_flight()).sum();
        self.budget.take(budget, in_flight)
    }

    /// How many of `total` endpoints must be healthy.
    pub fn needed(&self, total: usize) -> usize {
        self.min_healthy.needed(total)
    }

    /// How many endpoints are healthy, of how many, and how many must be.
    pub fn tally(&self) -> Tally {
        let endpoints = self.endpoints.borrow();
        let total = endpoints.len();
        let healthy = endpoints.iter().filter(|endpoint| endpoint.is_healthy()).count();
        Tally { healthy, total, needed: self.min_healthy.needed(total) }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// An upstream's endpoints, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Healthy ones.
    pub healthy: usize,
    /// All of them.
    pub total: usize,
    /// How many must be healthy.
    pub needed: usize,
}

impl Tally {
    /// Whether the upstream serves.
    pub fn is_serving(self) -> bool {
        self.healthy >= self.needed
    }
}

/// Tells that some endpoint of some upstream changed; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Changes(Arc<watch::Sender<()>>);

impl Changes {
    /// To be awaited.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }

    fn tell(&self) {
        self.0.send_replace(());
    }
}
