//! The board: endpoint states folded into one published answer.
//!
//! One task folds; everything else reads the last [`Snapshot`]. So all dialects agree at every
//! instant, an answer costs a look-up, and no health check ever causes a probe.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    config,
    grpc::ServingStatus,
    metrics::{Metrics, ServiceLabels},
    upstream::{Changes, Health, Upstream},
};

/// The state of every service at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    services: BTreeMap<Arc<str>, Service>,
    draining: bool,
}

/// One service's state.
#[derive(Debug, Clone)]
pub struct Service {
    /// SERVING or NOT_SERVING.
    pub status: ServingStatus,
    /// Since when.
    pub since: SystemTime,
    /// Why it does not serve; empty where it does.
    pub reason: Arc<str>,
}

impl Snapshot {
    /// The service of that name; "" is the overall state.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.get(name)
    }

    /// All services, in the order of their names.
    pub fn services(&self) -> impl Iterator<Item = (&str, &Service)> {
        self.services.iter().map(|(name, service)| (&**name, service))
    }

    /// The overall state.
    pub fn status(&self) -> ServingStatus {
        self.service("").map_or(ServingStatus::NotServing, |service| service.status)
    }

    /// Whether the process is about to stop.
    pub fn is_draining(&self) -> bool {
        self.draining
    }
}

/// What the board's readers hold; clones share it.
pub type Reader = watch::Receiver<Arc<Snapshot>>;

/// Folds the upstreams' endpoints into a [`Snapshot`] and publishes it.
#[derive(Debug)]
pub struct Board {
    published: watch::Sender<Arc<Snapshot>>,
    services: Vec<(Arc<str>, Vec<Arc<Upstream>>)>,
    metrics: Metrics,
}

impl Board {
    /// A board for the configured services. Until the endpoints are probed nothing serves.
    ///
    /// # Panics
    /// A service names an upstream that is not among `upstreams`; a checked configuration has none.
    pub fn new(config: &config::Health, upstreams: &[Arc<Upstream>], metrics: &Metrics) -> Self {
        let find = |name: &String| {
            let found = upstreams.iter().find(|upstream| **upstream.name() == **name);
            Arc::clone(found.expect("a checked configuration names upstreams that exist"))
        };
        let services = config.services.iter();
        let mut board = Self {
            published: watch::Sender::new(Arc::default()),
            services: services
                .map(|(name, all)| (name.as_str().into(), all.iter().map(find).collect()))
                .collect(),
            metrics: metrics.clone(),
        };
        board.fold(false);
        board
    }

    /// A reader of what is published.
    pub fn subscribe(&self) -> Reader {
        self.published.subscribe()
    }

    /// Publishes each change until the process ends. From `drain` on nothing serves, whatever the
    /// endpoints say.
    pub async fn run(mut self, changes: Changes, drain: CancellationToken) {
        let mut changes = changes.subscribe();
        changes.mark_changed();
        loop {
            self.fold(drain.is_cancelled());
            tokio::select! {
                _ = changes.changed() => {}
                () = drain.cancelled(), if !drain.is_cancelled() => {}
            }
        }
    }

    fn fold(&mut self, draining: bool) {
        let old = Arc::clone(&self.published.borrow());
        let services = self
            .services
            .iter()
            .map(|(name, upstreams)| {
                let reason = if draining { "draining".to_owned() } else { reason(upstreams) };
                let status = if reason.is_empty() {
                    ServingStatus::Serving
                } else {
                    ServingStatus::NotServing
                };
                let before = old.service(name);
                if before.is_some_and(|before| before.status != status) {
                    info!(service = %name, to = %status, reason, "serving status changed");
                }
                let since = before
                    .filter(|before| before.status == status)
                    .map_or_else(SystemTime::now, |before| before.since);
                let labels = ServiceLabels { service: (&**name).into() };
                let gauge = self.metrics.service_serving.get_or_create(&labels);
                gauge.set((status == ServingStatus::Serving).into());
                (Arc::clone(name), Service { status, since, reason: reason.into() })
            })
            .collect();
        self.published.send_replace(Arc::new(Snapshot { services, draining }));
    }
}

/// Why not all of `upstreams` serve, naming each one that does not and its endpoints' reasons;
/// empty where all do.
fn reason(upstreams: &[Arc<Upstream>]) -> String {
    let mut reasons = Vec::new();
    for upstream in upstreams {
        let tally = upstream.tally();
        if tally.is_serving() {
            continue;
        }
        let endpoints = upstream.endpoints();
        let ill: Vec<_> = endpoints
            .iter()
            .map(|endpoint| (endpoint.address(), endpoint.state()))
            .filter(|(_, state)| state.health != Health::Healthy)
            .take(LISTED)
            .map(|(address, state)| format!("{address}: {}", state.reason))
            .collect();
        reasons.push(format!(
            "{}: {} of {} endpoints healthy, {} needed ({})",
            upstream.name(),
            tally.healthy,
            tally.total,
            tally.needed,
            ill.join("; "),
        ));
    }
    reasons.join("; ")
}

/// How many endpoints a reason lists.
const LISTED: usize = 4;
