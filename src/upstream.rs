//! Upstreams: named sets of endpoints, what is known of each, and which one the next call takes.

mod adaptive;
mod balance;
mod ejection;
mod endpoint;
mod endpoints;
mod fair;
mod history;
mod in_flight;
mod line;
mod picked;
mod places;
mod pool;
mod ring;
mod state;

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use tokio::sync::watch;

pub use self::ejection::{Ejected, Fault};
pub use self::endpoint::Endpoint;
pub use self::endpoints::Endpoints;
pub use self::fair::{Client, FairQueue, Turn};
pub use self::history::{History, Transition};
pub use self::in_flight::InFlight;
pub use self::line::{Line, Ticket};
pub use self::picked::Picked;
pub use self::places::Place;
pub use self::ring::hash;
pub use self::state::{Health, State};
use self::{
    balance::Balancer,
    places::{Places, budget},
    pool::{Pool, Total},
};
use crate::{
    config::{self, ProxyVersion, Quorum, Share},
    metrics::{Metrics, UpstreamLabels},
    tls::Connector,
};

/// A named set of endpoints that serve the same thing.
#[derive(Debug)]
pub struct Upstream {
    endpoints: watch::Sender<Endpoints>,
    pool: Arc<Pool>,
    /// Why the endpoints may not be what they should; mostly empty.
    note: watch::Sender<Arc<str>>,
    total: Option<Arc<Total>>,
    min_healthy: Quorum,
    panic_threshold: Share,
    balancer: Balancer,
    retries: Places,
    line: Arc<Line>,
    hash_by: Option<Box<str>>,
    connect_timeout: Duration,
    tls: Option<Arc<Connector>>,
    proxy_protocol: Option<ProxyVersion>,
}

impl Upstream {
    /// An upstream whose endpoints are not probed yet. Each change of theirs is told to `changes`.
    pub fn new(config: &config::Upstream, changes: &Changes, metrics: &Metrics) -> Self {
        let pool = Arc::new(Pool::new(config, changes, metrics));
        let upstream = Self {
            endpoints: watch::Sender::default(),
            total: pool.total.clone(),
            pool,
            note: watch::Sender::new("".into()),
            min_healthy: config.min_healthy,
            panic_threshold: config.panic_threshold,
            balancer: Balancer::new(config.load_balancing),
            retries: Places::default(),
            line: Arc::new(Line::new(&config.admission)),
            hash_by: config.hash_by.as_deref().map(Into::into),
            connect_timeout: config.connect_timeout,
            tls: None,
            proxy_protocol: config.proxy_protocol,
        };
        upstream.reconcile(&config.endpoints);
        upstream
    }

    /// Its endpoints speak TLS by `tls`.
    pub fn with_tls(self, tls: Option<Arc<Connector>>) -> Self {
        Self { tls, ..self }
    }

    /// How its endpoints speak TLS, where they do.
    pub fn tls(&self) -> Option<&Arc<Connector>> {
        self.tls.as_ref()
    }

    /// The PROXY header that connections to its endpoints begin with; each is for one client then.
    pub fn proxy_protocol(&self) -> Option<ProxyVersion> {
        self.proxy_protocol
    }

    /// Makes `wanted` the endpoints; those that were there before keep their state, and those that
    /// are no more are told so.
    pub fn reconcile(&self, wanted: &[config::Endpoint]) {
        self.inherit(wanted, &[]);
    }

    /// The same, where those that are new go on from what is known of `others` of their address.
    pub fn inherit(&self, wanted: &[config::Endpoint], others: &[Arc<Endpoint>]) {
        self.endpoints.send_modify(|endpoints| {
            let next = endpoints.reconciled(wanted, &self.pool, self.hash_by.is_some());
            let is_among = |it: &&Arc<Endpoint>, all: &[Arc<Endpoint>]| {
                all.iter().any(|other| Arc::ptr_eq(it, other))
            };
            let new = next.iter().filter(|it| !is_among(it, endpoints));
            let known =
                |new: &Arc<Endpoint>| others.iter().find(|it| it.address() == new.address());
            let heirs: Vec<_> = new.filter_map(|new| Some((new, known(new)?))).collect();
            heirs.iter().for_each(|(new, other)| new.inherit(other));
            let gone = endpoints.iter().filter(|it| !is_among(it, &next));
            gone.for_each(|endpoint| endpoint.remove());
            self.pool.set_members(&next);
            // Among them, since no more than a share of them may be.
            heirs.iter().for_each(|(new, other)| new.inherit_ejection(other));
            *endpoints = next;
        });
        self.pool.changes.tell();
    }

    /// Leaves a note on how its endpoints are found. Only what finds them calls this.
    pub fn leave_note(&self, note: &str) {
        let changed = self.note.send_if_modified(|old| {
            let changes = **old != *note;
            if changes {
                *old = note.into();
            }
            changes
        });
        if changed {
            self.pool.changes.tell();
        }
    }

    /// Why its endpoints may not be what they should; mostly empty.
    pub fn note(&self) -> Arc<str> {
        self.note.borrow().clone()
    }

    /// Lets all its endpoints go, since soon no new call comes here any more; one that still does
    /// is served.
    pub fn retire(&self) {
        self.endpoints.borrow().iter().for_each(|endpoint| endpoint.retire());
    }

    /// The name, as configured.
    pub fn name(&self) -> &Arc<str> {
        &self.pool.name
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

    /// Where calls wait while all endpoints are full.
    pub fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// Whether there are endpoints for calls, and none of them has room.
    pub fn is_full(&self) -> bool {
        let endpoints = self.endpoints.borrow();
        let (group, panicking) = self.group(&endpoints);
        let over = self.total.as_ref().is_some_and(|total| total.is_full());
        let mut fit = endpoints[group].iter().filter(|it| panicking || it.is_available());
        fit.next().is_some_and(|first| over || !(first.has_room() || fit.any(|it| it.has_room())))
    }

    /// The metadata whose value, by [`hash`], is to be given to [`Upstream::pick`].
    pub fn hash_by(&self) -> Option<&str> {
        self.hash_by.as_deref()
    }

    /// Picks an endpoint for the next call among those that are available and that `usable` admits,
    /// and registers the call there, in one step, so that no other takes its room. Calls with the
    /// same `hash` go to the same endpoint as far as that is available, usable and not loaded much
    /// more than others.
    ///
    /// Backups are picked only while nothing else is available: where all others are full the call
    /// is not for them, or an overload would reach them too.
    pub fn pick(&self, hash: Option<u64>, usable: impl Fn(&Arc<Endpoint>) -> bool) -> Picked {
        let endpoints = self.endpoints.borrow();
        self.pick_of(&endpoints, self.group(&endpoints), hash, usable)
    }

    /// The same for a call that could reach none of those: among backups, else among ejected ones, of
    /// which its probes at least speak well, and else among those of which nothing is known: in a
    /// process that stood still for a while they are all the same as before, mostly.
    pub fn pick_spare(&self, hash: Option<u64>, usable: impl Fn(&Arc<Endpoint>) -> bool) -> Picked {
        let endpoints = self.endpoints.borrow();
        let (backups, all) = (endpoints.primaries()..endpoints.len(), 0..endpoints.len());
        let healthy = |it: &Arc<Endpoint>| it.is_healthy() && usable(it);
        let unknown = |it: &Arc<Endpoint>| it.is_unknown() && usable(it);
        self.pick_of(&endpoints, (backups, false), hash, &usable)
            .or_else(|| self.pick_of(&endpoints, (all.clone(), true), hash, healthy))
            .or_else(|| self.pick_of(&endpoints, (all, true), hash, unknown))
    }

    fn pick_of(
        &self,
        endpoints: &Endpoints,
        (group, panicking): (Range<usize>, bool),
        hash: Option<u64>,
        usable: impl Fn(&Arc<Endpoint>) -> bool,
    ) -> Picked {
        let fits =
            |endpoint: &Arc<Endpoint>| (panicking || endpoint.is_available()) && usable(endpoint);
        let takes = |endpoint: &Arc<Endpoint>| endpoint.has_room() && fits(endpoint);
        for _ in 0..ATTEMPTS {
            if self.total.as_ref().is_some_and(|total| total.is_full()) {
                break;
            }
            let Some(endpoint) = self.choose(endpoints, &group, hash, &takes) else { break };
            if let Some(in_flight) = InFlight::of(endpoint) {
                return Picked::Endpoint(in_flight);
            }
        }
        if endpoints[group].iter().any(fits) { Picked::Full } else { Picked::None }
    }

    /// Whether calls go to endpoints that are not available, too.
    pub fn is_panicking(&self) -> bool {
        self.group(&self.endpoints.borrow()).1
    }

    /// Which of the endpoints calls go to now, and whether even where they are not available.
    fn group(&self, endpoints: &Endpoints) -> (Range<usize>, bool) {
        let (primaries, all) = (endpoints.primaries(), endpoints.len());
        if primaries == all && self.panic_threshold.0 == 0 {
            return (0..all, false);
        }
        let (group, available) = match self.pool.available() {
            [0, 0] => (0..all, 0),
            [0, backups] => (primaries..all, backups),
            [others, _] => (0..primaries, others),
        };
        let panicking = available * 100 < group.len() * usize::from(self.panic_threshold.0);
        (group, panicking)
    }

    /// One that takes the call. One that became available lately leaves a part to others.
    fn choose<'a>(
        &self,
        endpoints: &'a Endpoints,
        group: &Range<usize>,
        hash: Option<u64>,
        takes: &impl Fn(&Arc<Endpoint>) -> bool,
    ) -> Option<&'a Arc<Endpoint>> {
        let chosen = self.draw(&self.balancer, endpoints, group, hash, takes)?;
        if !chosen.yields() {
            return Some(chosen);
        }
        let warm = |endpoint: &Arc<Endpoint>| !endpoint.is_cold() && takes(endpoint);
        // It is nobody else's turn.
        let others = &Balancer::LeastRequest;
        Some(self.draw(others, endpoints, group, hash, &warm).unwrap_or(chosen))
    }

    fn draw<'a>(
        &self,
        balancer: &Balancer,
        endpoints: &'a Endpoints,
        group: &Range<usize>,
        hash: Option<u64>,
        takes: &impl Fn(&Arc<Endpoint>) -> bool,
    ) -> Option<&'a Arc<Endpoint>> {
        if let (Some(hash), Some(ring), Some(total)) = (hash, endpoints.ring(), &self.total) {
            // The bound of "Consistent Hashing with Bounded Loads" (Mirrokni and others, 2016), but
            // so few calls are no load.
            let available = self.pool.available().into_iter().find(|count| *count > 0);
            let sharing = available.unwrap_or(1);
            let bound = ((total.in_flight() + 1) * 5).div_ceil(sharing * 4).max(LIGHT);
            let found = ring.pick(hash, |index| {
                let endpoint = &endpoints[index];
                group.contains(&index) && endpoint.in_flight() < bound && takes(endpoint)
            });
            if let Some(index) = found {
                return Some(&endpoints[index]);
            }
        }
        balancer.pick(&endpoints[group.clone()], takes)
    }

    /// A place for a retry, where that share of the calls in flight leaves one.
    pub fn retry(&self, share: Share) -> Option<Place> {
        let in_flight = self.endpoints.borrow().iter().map(|endpoint| endpoint.in_flight()).sum();
        self.retries.take(budget(share, in_flight))
    }

    /// How many of `total` endpoints must be healthy.
    pub fn needed(&self, total: usize) -> usize {
        self.min_healthy.needed(total)
    }

    /// How many endpoints are healthy, of how many, and how many must be. Backups count as any
    /// other, since they take the calls where it comes to that; ejections do not count, since they
    /// leave enough endpoints and no probe has confirmed them.
    pub fn tally(&self) -> Tally {
        let endpoints = self.endpoints.borrow();
        let total = endpoints.len();
        let healthy = endpoints.iter().filter(|endpoint| endpoint.is_healthy()).count();
        Tally { healthy, total, needed: self.min_healthy.needed(total) }
    }

    /// Brings to the metrics what is known here anyway, for them to be shown.
    pub fn measure(&self) {
        let metrics = &self.pool.metrics;
        let labels = UpstreamLabels { upstream: (&**self.name()).into() };
        let queued = i64::try_from(self.line.length()).unwrap_or(i64::MAX);
        metrics.queued.get_or_create(&labels).set(queued);
        for endpoint in self.endpoints.borrow().iter() {
            let labels = endpoint.labels();
            let whole = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            let in_flight = whole(endpoint.in_flight());
            metrics.endpoint_in_flight.get_or_create(&labels).set(in_flight);
            metrics.endpoint_ejected.get_or_create(&labels).set(endpoint.is_ejected().into());
            if let Some(limit) = endpoint.limit() {
                metrics.endpoint_limit.get_or_create(&labels).set(limit.into());
            }
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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

/// Calls in flight up to which an endpoint is not passed over for its load.
const LIGHT: usize = 8;
/// Picks of one call: where calls race for the last room, the next endpoint may have some.
const ATTEMPTS: usize = 4;

#[cfg(test)]
mod tests;
