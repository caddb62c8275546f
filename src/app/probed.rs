//! An upstream, and what finds and probes its endpoints.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::{JoinError, JoinSet},
    time::timeout,
};
use tracing::warn;

use super::Certificates;
use crate::{
    admin,
    config::{self, Config},
    discovery,
    metrics::{Metrics, Named},
    probe,
    upstream::{Changes, Endpoint, Health, Upstream},
};

/// An upstream whose endpoints are probed.
#[derive(Debug)]
pub(super) struct Probed {
    config: config::Upstream,
    upstream: Arc<Upstream>,
    tasks: JoinSet<()>,
}

impl Probed {
    /// Begins to find and to probe.
    pub(super) fn start(
        config: config::Upstream,
        certificates: &Certificates,
        changes: &Changes,
        metrics: &Metrics,
    ) -> Self {
        let tls = certificates.upstreams.get(&config.name).cloned();
        let upstream = Arc::new(Upstream::new(&config, changes, metrics).with_tls(tls));
        Self::of(config, upstream, metrics)
    }

    fn of(config: config::Upstream, upstream: Arc<Upstream>, metrics: &Metrics) -> Self {
        let mut tasks = JoinSet::new();
        let probe = config.probe.clone();
        tasks.spawn(probe::supervise(Arc::clone(&upstream), probe, metrics.clone()));
        if let Some(discovery) = config.discovery.clone() {
            tasks.spawn(discovery::follow(Arc::clone(&upstream), discovery, metrics.clone()));
        }
        Self { config, upstream, tasks }
    }

    pub(super) fn config(&self) -> &config::Upstream {
        &self.config
    }

    pub(super) fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Whether every endpoint was probed once, after they were looked for where that is needed.
    pub(super) fn is_known(&self) -> bool {
        let endpoints = self.upstream.endpoints();
        let looked = self.config.discovery.is_none()
            || !endpoints.is_empty()
            || !self.upstream.note().is_empty();
        let known = |it: &Arc<Endpoint>| it.state().health != Health::Unknown;
        looked && endpoints.iter().all(known)
    }

    /// How long a first probe may take, and be late.
    pub(super) fn patience(&self) -> Duration {
        self.config.probe.timeout + LATE
    }

    /// What probes endpoints that an upstream of this name will have and this one has not; none
    /// where nothing at all changes.
    pub(super) fn successor(
        before: Option<&Self>,
        config: &config::Upstream,
        certificates: &Certificates,
        changes: &Changes,
        metrics: &Metrics,
    ) -> Option<Self> {
        let mut config = config.clone();
        if let Some(before) = before {
            if before.config == config {
                return None;
            }
            let has = before.upstream.endpoints();
            config.endpoints.retain(|new| !has.iter().any(|it| it.address() == new.address));
        }
        Some(Self::start(config, certificates, changes, metrics))
    }

    /// Makes of this one, and of its `successor` with the endpoints that are new, what `config`
    /// says, and the upstream whose endpoints no new call is to take, if there is one. An endpoint's
    /// prober has ended before another begins.
    pub(super) async fn succeeded_by(
        self,
        successor: Self,
        config: &config::Upstream,
        metrics: &Metrics,
    ) -> (Self, Option<Arc<Upstream>>) {
        let (endpoints, probe) = (config.endpoints.clone(), config.probe.clone());
        if (config::Upstream { endpoints, probe, ..self.config.clone() }) == *config {
            // It goes by the same rules, and keeps its connections.
            let new = successor.end().await;
            let this = match self.config.probe == config.probe {
                true => Self { config: config.clone(), ..self },
                false => Self::of(config.clone(), self.end().await, metrics),
            };
            if config.discovery.is_none() {
                this.upstream.inherit(&config.endpoints, &new.endpoints());
            }
            return (this, None);
        }
        let old = self.end().await;
        let upstream = &successor.upstream;
        if config.discovery.is_none() {
            upstream.inherit(&config.endpoints, &old.endpoints());
        } else if upstream.endpoints().is_empty() {
            // Not found yet: what was found before stays until it is.
            let known: Vec<_> = old.endpoints().iter().map(|it| it.address().into()).collect();
            upstream.inherit(&known, &old.endpoints());
        }
        (Self { config: config.clone(), ..successor }, Some(old))
    }

    /// Finds and probes no more.
    pub(super) async fn end(mut self) -> Arc<Upstream> {
        self.tasks.shutdown().await;
        self.upstream
    }

    /// Waits for what should go on for ever.
    pub(super) async fn ended(&mut self) -> Option<Result<(), JoinError>> {
        self.tasks.join_next().await
    }
}

/// Waits until every endpoint was probed once, or should have been.
pub(super) async fn known<'a>(
    upstreams: impl Iterator<Item = &'a Probed> + Clone,
    changes: &Changes,
) {
    let mut changes = changes.subscribe();
    let patience = upstreams.clone().map(Probed::patience).max().unwrap_or_default();
    let known = async {
        while !upstreams.clone().all(Probed::is_known) {
            _ = changes.changed().await;
        }
    };
    if timeout(patience, known).await.is_err() {
        warn!(waited = ?patience, "taken over with endpoints that were not probed yet");
    }
}

/// The upstreams themselves.
pub(super) fn all(upstreams: &[Probed]) -> Arc<[Arc<Upstream>]> {
    upstreams.iter().map(|it| Arc::clone(it.upstream())).collect()
}

/// What a configuration names, with the endpoints that its upstreams have now.
pub(super) fn named(config: &Config, probed: &[Probed]) -> Named {
    let endpoints = probed.iter().flat_map(|it| {
        let endpoints = it.upstream().endpoints();
        let name = &it.config().name;
        let pair = |address: &dyn ToString| (name.clone(), address.to_string());
        endpoints.iter().map(|it| pair(&it.address())).collect::<Vec<_>>()
    });
    let listeners = config.listeners.iter().map(|it| &*it.name).chain([admin::LISTENER]);
    Named {
        listeners: listeners.map(ToOwned::to_owned).collect(),
        upstreams: config.upstreams.iter().map(|it| it.name.clone()).collect(),
        endpoints: endpoints.collect(),
    }
}

/// How late the first probe of a new endpoint may end.
const LATE: Duration = Duration::from_millis(500);
