//! The board: endpoint states folded into one published answer.
//!
//! One task folds; everything else reads the last [`Snapshot`]. So all dialects agree at every
//! instant, an answer costs a look-up, and no health check ever causes a probe. A [`Reader`] withholds
//! a snapshot where the task has not looked at the endpoints for too long.

mod reader;
mod service;
mod view;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::service::Told;
pub use self::{
    reader::{Follow, Reader},
    view::Views,
};
use crate::{
    config,
    grpc::ServingStatus,
    metrics::{Metrics, ServiceLabels},
    upstream::{Changes, History, Upstream},
    watchdog::{STALLED, Trouble, Vitals},
};

/// The state of every service at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    services: BTreeMap<Arc<str>, Service>,
    draining: bool,
    withheld: Option<&'static str>,
}

/// One service's state.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// SERVING or NOT_SERVING.
    pub status: ServingStatus,
    /// Since when.
    pub since: SystemTime,
    /// Why it does not serve, or, behind `held: `, why it soon may not; else empty.
    pub reason: Arc<str>,
    /// Its last changes.
    pub history: History<ServingStatus>,
}

impl Snapshot {
    /// The service of that name; "" is the overall state.
    pub fn service(&self, name: &str) -> Option<&Service> {
        if name.is_empty() {
            // Asked most, and the first by its name: nothing is compared.
            let (first, service) = self.services.first_key_value()?;
            return first.is_empty().then_some(service);
        }
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

    /// Brings to the metrics what is told.
    pub fn measure(&self, metrics: &Metrics) {
        for (name, service) in &self.services {
            let labels = ServiceLabels { service: (&**name).into() };
            let gauge = metrics.service_serving.get_or_create(&labels);
            gauge.set((service.status == ServingStatus::Serving).into());
        }
    }

    /// The same services, of which none serves.
    fn withheld(&self, trouble: Trouble) -> Self {
        let services = self.services.iter().map(|(name, service)| {
            let mut service = service.clone();
            if service.status == ServingStatus::Serving {
                (service.status, service.since) = (ServingStatus::NotServing, trouble.since);
            }
            service.reason = trouble.reason.into();
            (Arc::clone(name), service)
        });
        let (draining, withheld) = (self.draining, Some(trouble.reason));
        Self { services: services.collect(), draining, withheld }
    }
}

/// Folds the upstreams' endpoints into a [`Snapshot`] and publishes it.
#[derive(Debug)]
pub struct Board {
    published: watch::Sender<Arc<Snapshot>>,
    given: watch::Sender<Views>,
    /// The last ones of `given`.
    views: Views,
    /// In the order of `views`.
    services: Vec<Told>,
    metrics: Metrics,
    vitals: Vitals,
}

impl Board {
    /// A board for the configured services. Until the endpoints are probed nothing serves.
    ///
    /// # Panics
    /// A service names an upstream that is not among `upstreams`; a checked configuration has none.
    pub fn new(config: &config::Health, upstreams: &[Arc<Upstream>], metrics: &Metrics) -> Self {
        let views = Views::new(config, upstreams);
        let mut board = Self {
            published: watch::Sender::new(Arc::default()),
            given: watch::Sender::new(views.clone()),
            views,
            services: config.services.values().map(|service| Told::new(service.hold)).collect(),
            metrics: metrics.clone(),
            vitals: Vitals::default(),
        };
        board.fold(false);
        board
    }

    /// A reader of what is published.
    pub fn subscribe(&self) -> Reader {
        Reader::new(self.published.subscribe(), &self.vitals)
    }

    /// What must run for its readers to believe it.
    pub fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    /// What its services stand for, and where it is told that they stand for something else. Those
    /// that stay keep what is told of them until their endpoints say otherwise.
    pub fn views(&self) -> watch::Sender<Views> {
        self.given.clone()
    }

    /// Publishes each change until the process ends, and looks at the endpoints at least once a
    /// second. From `drain` on nothing serves, whatever the endpoints say.
    pub async fn run(mut self, changes: Changes, drain: CancellationToken) {
        let mut changes = changes.subscribe();
        changes.mark_changed();
        let mut given = self.given.subscribe();
        loop {
            self.catch_up().await;
            // Before the fold: what changed with it would else be judged by what was before.
            if given.has_changed().is_ok_and(|changed| changed) {
                let views = given.borrow_and_update().clone();
                self.look_at(views);
            }
            let due = self.fold(drain.is_cancelled());
            // Only now: it says that what is published is true.
            self.vitals.control().beat();
            self.vitals.trouble();
            let look = Instant::now() + LOOK;
            let due = due.map_or(look, |due| due.min(look));
            tokio::select! {
                _ = changes.changed() => {}
                _ = given.changed() => given.mark_changed(),
                () = sleep_until(due) => {}
                () = drain.cancelled(), if !drain.is_cancelled() => {}
            }
        }
    }

    /// Where nothing was looked at for so long that health is withheld, such as in a process that was
    /// stopped, leaves it so until the probers have seen what is overdue.
    async fn catch_up(&self) {
        let late = self.vitals.control().age();
        if late >= STALLED {
            warn!(?late, "the control plane stood still: health was NOT_SERVING meanwhile");
            sleep(SETTLE).await;
        }
    }

    /// Makes `views` what is folded. Those who watch a service that is gone are told so.
    fn look_at(&mut self, views: Views) {
        let names = self.views.holds().map(|(name, _)| Arc::clone(name));
        let mut told: BTreeMap<_, _> = names.zip(self.services.drain(..)).collect();
        for (name, hold) in views.holds() {
            let mut service = told.remove(name).unwrap_or_else(|| Told::new(hold));
            service.set_hold(hold);
            self.services.push(service);
        }
        self.metrics.keep_services(|name| !told.contains_key(name));
        self.views = views;
    }

    /// Publishes what the endpoints say now; when to look again, where a change is held back.
    fn fold(&mut self, draining: bool) -> Option<Instant> {
        let now = Instant::now();
        let mut services = BTreeMap::new();
        for ((name, verdict), told) in self.views.judge(|_, _| false).zip(&mut self.services) {
            let service = match draining {
                true => told.drain(name),
                false => told.tell(name, &verdict, self.views.all_down(), now),
            };
            services.insert(Arc::clone(name), service);
        }
        let snapshot = Snapshot { services, draining, withheld: None };
        snapshot.measure(&self.metrics);
        self.published.send_if_modified(|told| {
            let changes = **told != snapshot;
            if changes {
                *told = Arc::new(snapshot);
            }
            changes
        });
        self.services.iter().filter_map(Told::due).min()
    }
}

/// How seldom the endpoints are looked at where nothing changes.
const LOOK: Duration = Duration::from_secs(1);
/// How long probers have to see what they are late for.
const SETTLE: Duration = Duration::from_millis(250);
