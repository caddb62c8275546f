//! A listener as the relay knows it: what it answers, and where its calls go.

use std::{net::IpAddr, sync::Arc};

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    End,
    quota::{Held, Quota, Shed},
    target::{Target, Way},
    watches::Watches,
};
use crate::{
    answer::Answers,
    auth::{Denied, Gate, Keys, Peer, Said},
    config,
    grpc::Code,
    metrics::{
        AnswerLabels, BytesLabels, KeyLabels, ListenerLabels, Metrics, RefusedLabels,
        RequestLabels, RetryLabels, Text,
    },
    net,
    refusals::Refusals,
    route::{self, Candidates, Dialect, Router, Table},
    tls,
    upstream::Upstream,
};

/// What the relay knows of a listener; shared by all workers.
#[derive(Debug)]
pub struct Listener {
    pub(super) name: Text,
    pub(super) router: Router,
    pub(super) answers: Answers,
    /// What decides which of `ways` a call takes.
    table: Table,
    pub(super) ways: Vec<Way>,
    pub(super) targets: Vec<Target>,
    /// The way of calls that no route fits.
    default: Option<u16>,
    access: config::Access,
    gate: Option<Gate>,
    /// Of each tenant and of each client address, where these are bounded; looked at behind a gate.
    pub(super) tenants: Option<Arc<Quota>>,
    pub(super) addresses: Option<Arc<Quota>>,
    /// What the log was told of those that were turned away.
    refusals: Arc<Refusals>,
    pub(super) limits: config::Limits,
    pub(super) max_message_size: u64,
    pub(super) metrics: Metrics,
    pub(super) requested: Counter,
    pub(super) responded: Counter,
    /// The Watch streams of the process.
    watches: Watches,
    /// How its clients speak TLS, where they do.
    tls: Option<Arc<tls::Acceptor>>,
    /// Cancelled when its socket is given up, by a drain or since it is configured no more.
    stop: CancellationToken,
}

impl Listener {
    /// A listener that forwards to those of `upstreams` that it names, or answers health only
    /// where it names none.
    pub fn new(
        config: &config::Listener,
        health: &config::Health,
        upstreams: &[Arc<Upstream>],
        answers: Answers,
        metrics: &Metrics,
    ) -> Self {
        let name: Text = config.name.as_str().into();
        let bytes = |direction| {
            let labels = BytesLabels { listener: name.clone(), direction };
            metrics.bytes.get_or_create(&labels)
        };
        let quota = |limits, per| {
            let labels = KeyLabels { listener: name.clone(), per };
            Arc::new(Quota::new(limits, metrics.limited_keys.get_or_create(&labels)))
        };
        let named = |name: &str| upstreams.iter().find(|upstream| **upstream.name() == *name);
        let mut targets: Vec<Target> = Vec::new();
        let mut target = |upstream: &str| {
            let known = targets.iter().position(|target| **target.upstream.name() == *upstream);
            let index = known.or_else(|| {
                targets.push(Target::new(&name, Arc::clone(named(upstream)?), metrics));
                Some(targets.len() - 1)
            });
            index.map(|index| index as u16)
        };
        let own = config.upstream.as_ref().map(|upstream| vec![(upstream.clone(), 1)]);
        let default = own.is_some().then_some(config.routes.len() as u16);
        let routes = config.routes.iter().map(|route| (&route.upstreams, &route.policy));
        let ways = routes
            .chain(own.iter().map(|own| (own, &config.policy)))
            .map(|(upstreams, policy)| {
                let weighed = upstreams
                    .iter()
                    .filter_map(|(name, weight)| target(name).map(|target| (target, *weight)));
                Way::new(weighed.collect(), policy.clone())
            })
            .collect();
        Self {
            tenants: config.limits_per.tenant.map(|limits| quota(limits, "tenant")),
            addresses: config.limits_per.address.map(|limits| quota(limits, "address")),
            requested: bytes("request"),
            responded: bytes("response"),
            router: Router::new(&health.paths, config.upstreams().next().is_some())
                .with_reflection(health.reflection),
            table: Table::new(config.routes.iter().map(|route| &route.matches)),
            ways,
            targets,
            default,
            refusals: Arc::new(Refusals::new(name.clone(), metrics)),
            name,
            answers,
            access: config.access.clone(),
            gate: Gate::new(config),
            limits: config.limits,
            max_message_size: config.max_message_size,
            metrics: metrics.clone(),
            watches: Watches::default(),
            tls: None,
            stop: CancellationToken::new(),
        }
    }

    /// Its connections are asked to end when `stop` is cancelled.
    pub fn until(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }

    /// What it counts of clients goes on from where `before` was, so far as their bounds are the
    /// same: a reload would give each of them a whole burst.
    pub fn following(mut self, before: Option<&Self>) -> Self {
        let Some(before) = before else { return self };
        self.refusals = Arc::clone(&before.refusals);
        for (own, old) in
            [(&mut self.tenants, &before.tenants), (&mut self.addresses, &before.addresses)]
        {
            if let (Some(own), Some(old)) = (own, old)
                && own.limits() == old.limits()
            {
                *own = Arc::clone(old);
            }
        }
        self
    }

    /// Its Watch streams are counted among these.
    pub fn with_watches(self, watches: Watches) -> Self {
        Self { watches, ..self }
    }

    /// The Watch streams of the process.
    pub(super) fn watches(&self) -> &Watches {
        &self.watches
    }

    /// Its clients speak TLS by `tls`.
    pub fn with_tls(self, tls: Option<Arc<tls::Acceptor>>) -> Self {
        Self { tls, ..self }
    }

    /// Its tokens are checked by `keys`, where these are fetched.
    pub fn with_keys(self, keys: Option<Keys>) -> Self {
        Self { gate: self.gate.map(|gate| gate.with_keys(keys)), ..self }
    }

    /// How its clients speak TLS, where they do.
    pub fn tls(&self) -> Option<&tls::Acceptor> {
        self.tls.as_deref()
    }

    /// When its connections are asked to end.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Whether it is this one, maybe by another configuration.
    pub fn is_named_as(&self, other: &Self) -> bool {
        self.name == other.name
    }

    /// Its routes.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Its answers to health checks.
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Its bounds.
    pub fn limits(&self) -> &config::Limits {
        &self.limits
    }

    /// Who may connect.
    pub fn access(&self) -> &config::Access {
        &self.access
    }

    /// Whether a connection may stay that was let in by other rules: with TLS or without, and with a
    /// certificate or none.
    pub fn keeps(&self, client: Option<IpAddr>, secured: bool, certified: bool) -> bool {
        client.is_none_or(|client| self.access.allows(client))
            && self.tls().is_none_or(|tls| tls.keeps(secured, certified))
    }

    /// Whether clients' certificates are checked by it as by `before`.
    pub fn trusts_as(&self, before: &Self) -> bool {
        self.tls().zip(before.tls()).is_none_or(|(tls, before)| tls.trusts_as(before))
    }

    /// What it asks of calls; none where it asks for nothing.
    pub fn gate(&self) -> Option<&Gate> {
        self.gate.as_ref()
    }

    /// Whom the certificate of a connection names, where that says who calls.
    pub fn peer(&self, certificate: Option<&tls::CertificateDer<'_>>) -> Peer {
        self.gate.as_ref().map(|gate| gate.peer(certificate)).unwrap_or_default()
    }

    /// Takes a call of what a client's address may make, where that is bounded.
    pub(super) fn take_of_address(
        &self,
        client: Option<IpAddr>,
        now: Instant,
    ) -> Result<Option<Held>, Shed> {
        let (Some(quota), Some(client)) = (&self.addresses, client) else { return Ok(None) };
        match net::client(client) {
            IpAddr::V4(address) => quota.take(&address.octets(), now),
            IpAddr::V6(address) => quota.take(&address.octets(), now),
        }
    }

    /// Whether a health check or a question to reflection may be answered.
    ///
    /// # Errors
    /// Why not, which is counted.
    pub fn lets_ask(
        &self,
        client: Option<IpAddr>,
        authorization: impl FnOnce() -> Said,
        peer: &Peer,
    ) -> Result<(), Denied> {
        let Some(gate) = self.gate.as_ref().filter(|gate| gate.guards_health()) else {
            return Ok(());
        };
        // It bounds those who guess.
        let answers = match self.take_of_address(client, Instant::now()) {
            Ok(_) => gate.answers(authorization, peer),
            Err(_) => Err(Denied::TooOften),
        };
        answers.inspect_err(|denied| self.refusals.denied(client, denied.label()))
    }

    /// Those that it turns away.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Where it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Its labels.
    pub fn labels(&self) -> ListenerLabels {
        ListenerLabels { listener: self.name.clone() }
    }

    /// Counts a health check.
    pub fn answered(&self, dialect: Dialect) {
        let labels = AnswerLabels { listener: self.name.clone(), dialect: dialect.label() };
        self.metrics.health_answers.get_or_create(&labels).inc();
    }

    /// The ways that calls to a method may take.
    pub(super) fn candidates(&self, path: &[u8]) -> Candidates {
        match self.table.candidates(path) {
            Candidates::Settled(way) => Candidates::Settled(way.or(self.default)),
            open @ Candidates::Open(_) => open,
        }
    }

    /// The way of a call with these candidates; see [`Table::choose`].
    pub(super) fn way(
        &self,
        candidates: &Candidates,
        value: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Option<u16> {
        self.table.choose(candidates, value).or(self.default)
    }

    /// The name of a call's upstream; "" where it has none.
    fn upstream(&self, target: Option<u16>) -> Text {
        let target = target.and_then(|target| self.targets.get(usize::from(target)));
        target.map_or("", |target| target.upstream.name()).into()
    }

    /// Counts a call that is kept here until its request is whole, for this reason.
    pub(super) fn held_back(&self, reason: &'static str) {
        let labels = RefusedLabels { listener: self.name.clone(), reason };
        self.metrics.refusals.calls_held_back.get_or_create(&labels).inc();
    }

    /// Counts a call that is placed again.
    pub(super) fn retried(&self, target: u16, reason: &'static str) {
        let (listener, upstream) = (self.name.clone(), self.upstream(Some(target)));
        self.metrics.retries.get_or_create(&RetryLabels { listener, upstream, reason }).inc();
    }

    /// Counts a call that took too long.
    pub(super) fn timed_out(&self, target: u16, reason: &'static str) {
        let (listener, upstream) = (self.name.clone(), self.upstream(Some(target)));
        self.metrics.timeouts.get_or_create(&RetryLabels { listener, upstream, reason }).inc();
    }

    /// Counts a call that ended by `end`, on its target or before it had one.
    pub(super) fn ended(&self, target: Option<u16>, path: &[u8], end: End) {
        // What the relay says in a backend's place, or says of its absence, tells nothing.
        let known = match end {
            End::Status(Code::Unimplemented | Code::Unavailable) => false,
            End::Status(_) => true,
            End::Refused(_) | End::Http | End::Reset => false,
        };
        let code = match end {
            End::Status(code) | End::Refused(code) => code.name(),
            End::Http => "HTTP",
            End::Reset => "RESET",
        };
        self.requests(target, path, code, known).inc();
    }

    /// The counter of calls to a method that ended in one way. `known` where a backend has it.
    pub(super) fn requests(
        &self,
        target: Option<u16>,
        path: &[u8],
        code: &'static str,
        known: bool,
    ) -> Counter {
        let (service, method) = route::method(path).unwrap_or_default();
        let (service, method) = self.metrics.method(service, method, known);
        let (listener, upstream) = (self.name.clone(), self.upstream(target));
        let labels = RequestLabels { listener, upstream, service, method, code };
        self.metrics.requests.get_or_create(&labels)
    }
}
