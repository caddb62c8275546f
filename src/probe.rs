//! Probes: what we send to endpoints to learn whether they are well.
//!
//! A supervisor follows an upstream's endpoint set and keeps one prober for each endpoint. A
//! prober runs all checks at once, at once after it starts and then at each interval, and is the
//! only writer of its endpoint's health.

mod channel;
mod grpc;
mod http;
mod tcp;
mod threshold;

use std::{fmt, future::pending, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use thiserror::Error;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

pub use self::channel::{Channel, Reply};
use self::threshold::Threshold;
use crate::{
    config,
    metrics::{EndpointLabels, Metrics, ProbeLabels},
    upstream::{Endpoint, Health, Upstream},
};

/// Why a check did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// The endpoint could not be reached.
    #[error("{0}")]
    Connect(String),
    /// It was reached, and the exchange failed.
    #[error("{0}")]
    Rpc(String),
    /// It answered that it does not serve.
    #[error("{0}")]
    NotServing(String),
}

/// One check against one address, with its connection kept between runs.
#[derive(Debug)]
pub struct Check {
    kind: Kind,
    timeout: Duration,
}

#[derive(Debug)]
enum Kind {
    Otlp(grpc::Otlp),
    Grpc(grpc::Health),
    Http(http::Get),
    Tcp(SocketAddr),
}

impl Check {
    /// A check of the endpoint at `address`, or of its other port where the check names one, that
    /// fails after `timeout`. `path` is where it stands in the configuration, if it does, for
    /// failures that name the key to set.
    pub fn new(
        config: &config::Check,
        address: SocketAddr,
        timeout: Duration,
        path: Option<&str>,
    ) -> Self {
        let hints = |kind| grpc::Hints(path.map(|path| format!("{path}.{kind}")));
        let at = |port: Option<u16>| match port {
            Some(port) => SocketAddr::new(address.ip(), port),
            None => address,
        };
        let kind = match config {
            config::Check::Otlp { port } => {
                Kind::Otlp(grpc::Otlp::new(at(*port), timeout, hints("otlp")))
            }
            config::Check::Grpc(grpc) => {
                Kind::Grpc(grpc::Health::new(at(grpc.port), timeout, grpc, hints("grpc")))
            }
            config::Check::Http(http) => Kind::Http(http::Get::new(at(http.port), http)),
            config::Check::Tcp { port } => Kind::Tcp(at(*port)),
        };
        Self { kind, timeout }
    }

    /// Runs it once.
    ///
    /// # Errors
    /// Why it did not pass.
    pub async fn run(&mut self) -> Result<(), Failure> {
        let run = async {
            match &mut self.kind {
                Kind::Otlp(otlp) => otlp.run().await,
                Kind::Grpc(health) => health.run().await,
                Kind::Http(get) => get.run().await,
                Kind::Tcp(address) => tcp::connect(*address).await.map(drop),
            }
        };
        let outcome = timeout(self.timeout, run).await;
        outcome.unwrap_or_else(|_| {
            let late = format!("no answer within {}", humantime::format_duration(self.timeout));
            Err(match self.kind {
                Kind::Tcp(_) => Failure::Connect(late),
                _ => Failure::Rpc(late),
            })
        })
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Otlp(_) => "otlp",
            Kind::Grpc(_) => "grpc",
            Kind::Http(_) => "http",
            Kind::Tcp(_) => "tcp",
        })
    }
}

/// Probes the endpoints of `upstream` as `config` says, for as long as it is polled: a new
/// endpoint at once, a removed one no more.
pub async fn supervise(upstream: Arc<Upstream>, config: config::Probe, metrics: Metrics) {
    let mut endpoints = upstream.follow();
    let mut probers = JoinSet::new();
    let mut running = Vec::new();
    while endpoints.changed().await.is_ok() {
        let current = endpoints.borrow_and_update().clone();
        running.retain(|(endpoint, prober): &(Arc<Endpoint>, tokio::task::AbortHandle)| {
            let kept = current.iter().any(|other| Arc::ptr_eq(other, endpoint));
            if !kept {
                prober.abort();
            }
            kept
        });
        for endpoint in current.iter() {
            if running.iter().any(|(other, _)| Arc::ptr_eq(other, endpoint)) {
                continue;
            }
            let prober = Prober::new(upstream.name(), Arc::clone(endpoint), &config, &metrics);
            running.push((Arc::clone(endpoint), probers.spawn(prober.run())));
        }
    }
    pending().await
}

/// Probes one endpoint.
#[derive(Debug)]
struct Prober {
    upstream: Arc<str>,
    endpoint: Arc<Endpoint>,
    checks: Vec<Check>,
    threshold: Threshold,
    interval: Duration,
    metrics: Metrics,
    labels: EndpointLabels,
}

impl Prober {
    fn new(
        upstream: &Arc<str>,
        endpoint: Arc<Endpoint>,
        config: &config::Probe,
        metrics: &Metrics,
    ) -> Self {
        let check = |(index, check)| {
            let path = format!("{}.checks[{index}]", config.path);
            Check::new(check, endpoint.address(), config.timeout, Some(&path))
        };
        let labels = EndpointLabels {
            upstream: (&**upstream).into(),
            endpoint: endpoint.address().to_string().as_str().into(),
        };
        // At zero from the start, so that the first event is seen as a change.
        metrics.endpoint_healthy.get_or_create(&labels).set(0);
        metrics.upstream_connections.get_or_create(&labels).inc_by(0);
        metrics.upstream_connect_failures.get_or_create(&labels).inc_by(0);
        Self {
            upstream: Arc::clone(upstream),
            checks: config.checks.iter().enumerate().map(check).collect(),
            threshold: Threshold::new(config.healthy_threshold, config.unhealthy_threshold),
            interval: config.interval,
            metrics: metrics.clone(),
            labels,
            endpoint,
        }
    }

    async fn run(mut self) {
        loop {
            let started = Instant::now();
            let failures = self.probe().await;
            self.record(started.elapsed(), &failures);
            sleep_until(started + jittered(self.interval)).await;
        }
    }

    /// Runs all checks at the same time; the failures, in words, or "".
    async fn probe(&mut self) -> String {
        let mut running: FuturesUnordered<_> = self
            .checks
            .iter_mut()
            .enumerate()
            .map(async |(index, check)| (index, check.run().await, check.to_string()))
            .collect();
        let mut failed = Vec::new();
        while let Some((index, outcome, name)) = running.next().await {
            if let Err(failure) = outcome {
                failed.push((index, format!("{name}: {failure}")));
            }
        }
        failed.sort();
        failed.into_iter().map(|(_, words)| words).collect::<Vec<_>>().join("; ")
    }

    fn record(&mut self, took: Duration, failures: &str) {
        let passed = failures.is_empty();
        let labels = ProbeLabels {
            upstream: self.labels.upstream.clone(),
            endpoint: self.labels.endpoint.clone(),
            result: if passed { "passed" } else { "failed" },
        };
        self.metrics.probes.get_or_create(&labels).inc();
        self.metrics.probe_duration.get_or_create(&self.labels).observe(took.as_secs_f64());
        let from = self.threshold.health();
        let changed = self.threshold.record(passed);
        let health = self.threshold.health();
        // While failures are fewer than the threshold the endpoint is healthy, without a reason.
        match health {
            Health::Healthy => self.endpoint.publish(health, ""),
            _ if passed => {}
            _ => self.endpoint.publish(health, failures),
        }
        self.metrics
            .endpoint_healthy
            .get_or_create(&self.labels)
            .set((health == Health::Healthy).into());
        let (upstream, address) = (&*self.upstream, self.endpoint.address());
        match changed {
            Some(Health::Healthy) => {
                info!(upstream, endpoint = %address, %from, to = %health, "endpoint health changed");
            }
            Some(_) => {
                warn!(upstream, endpoint = %address, %from, to = %health, reason = failures, "endpoint health changed");
            }
            None => {}
        }
    }
}

/// The interval, give or take a tenth, so that many probers do not fall into step.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}
