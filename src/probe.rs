//! Probes: what we send to endpoints to learn whether they are well.
//!
//! A supervisor follows an upstream's endpoint set and keeps one prober for each endpoint. A
//! prober runs all checks at the same time, first when it starts and then at each interval, and is
//! the only writer of its endpoint's health.
//!
//! An interval is how late nothing in particular may be seen. What tells of itself is not waited
//! for: checks keep their connections, and the end of one is followed by probes at once; a Watch
//! brings an endpoint's own word when it is said.

mod channel;
mod grpc;
mod http;
mod pace;
mod prober;
mod target;
mod tcp;
mod threshold;
mod verdict;
mod watch;
mod words;

use std::{
    fmt,
    future::pending,
    net::SocketAddr,
    panic::resume_unwind,
    sync::{Arc, Weak},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

pub use self::channel::{Channel, Reply};
use self::prober::Prober;
pub use self::target::Target;
use crate::{
    config,
    metrics::{EndpointLabels, Metrics},
    upstream::{Endpoint, Upstream},
};

/// Why a check did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// The endpoint could not be reached.
    #[error("{0}")]
    Connect(String),
    /// Nobody listens at its port, which is known within a round trip and costs next to nothing.
    #[error("{0}")]
    Refused(String),
    /// It was reached, and the exchange failed.
    #[error("{0}")]
    Rpc(String),
    /// It said itself, by `grpc.health.v1`, that it does not serve.
    #[error("{0}")]
    NotServing(String),
    /// It answered, and not as it must. An HTTP status says less than NOT_SERVING does: servers
    /// answer 500 or 429 in passing.
    #[error("{0}")]
    Answered(String),
    /// There was no asking it, for a cause on this side.
    #[error("{0}")]
    Local(String),
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
    Tcp(Target),
}

impl Check {
    /// A check of the endpoint at `target`, or of its other port where the check names one, that
    /// fails after `timeout`. `path` is where it stands in the configuration, if it does, for
    /// failures that name the key to set.
    pub fn new(
        config: &config::Check,
        target: impl Into<Target>,
        timeout: Duration,
        path: Option<&str>,
    ) -> Self {
        let hints = |kind| grpc::Hints(path.map(|path| format!("{path}.{kind}")));
        let target = target.into();
        let kind = match config {
            config::Check::Otlp { port, plain } => {
                Kind::Otlp(grpc::Otlp::new(target.at(*port, *plain), timeout, hints("otlp")))
            }
            config::Check::Grpc(grpc) => {
                let target = target.at(grpc.port, grpc.plain);
                Kind::Grpc(grpc::Health::new(target, timeout, grpc, hints("grpc")))
            }
            config::Check::Http(http) => {
                Kind::Http(http::Get::new(target.at(http.port, http.plain), http))
            }
            config::Check::Tcp { port } => Kind::Tcp(target.at(*port, true)),
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
                Kind::Tcp(target) => tcp::connect(target.address).await.map(drop),
            }
        };
        let started = Instant::now();
        let outcome = timeout(self.timeout, run).await;
        outcome.unwrap_or_else(|_| {
            let took = started.elapsed();
            if took >= self.timeout + HELD_UP {
                // The answer may well be there; the timer was late, and so was whoever reads it.
                return Err(Failure::Local(format!("held up for {took:?}")));
            }
            let late = format!("no answer within {}", humantime::format_duration(self.timeout));
            Err(match self.kind {
                Kind::Tcp(_) => Failure::Connect(late),
                _ => Failure::Rpc(late),
            })
        })
    }
}

impl Check {
    /// Waits until the connection that it keeps between runs ends; for ever, where it keeps none.
    ///
    /// A TCP check keeps none, though its end would be news: to a gRPC server it would be a client
    /// that never sends its preface, for which grpc-go's graceful stop waits up to two minutes.
    async fn lost(&mut self) {
        match &mut self.kind {
            Kind::Otlp(otlp) => otlp.channel().lost().await,
            Kind::Grpc(health) => health.channel().lost().await,
            Kind::Http(get) => get.lost().await,
            Kind::Tcp(_) => pending().await,
        }
    }

    /// Whether a run found the kept connection ended, since this was asked last.
    fn broke(&mut self) -> bool {
        match &mut self.kind {
            Kind::Otlp(otlp) => otlp.channel().broke(),
            Kind::Grpc(health) => health.channel().broke(),
            Kind::Http(get) => get.broke(),
            Kind::Tcp(_) => false,
        }
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
    let mut leaving = Leaving { upstream: Arc::clone(&upstream), endpoints: Vec::new() };
    loop {
        tokio::select! {
            () = sleep(LOOK), if !leaving.endpoints.is_empty() => {
                leaving.forget_ended(&metrics);
                continue;
            }
            changed = endpoints.changed() => if changed.is_err() {
                // Without an upstream there is nothing to probe.
                return pending().await;
            },
            Some(ended) = probers.join_next() => match ended {
                // An endpoint without its prober would stay for ever what it was.
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                _ => continue,
            },
        }
        let current = endpoints.borrow_and_update().clone();
        running.retain(|(endpoint, prober): &(Arc<Endpoint>, tokio::task::AbortHandle)| {
            let kept = current.iter().any(|other| Arc::ptr_eq(other, endpoint));
            if !kept {
                prober.abort();
                leaving.endpoints.push((endpoint.address(), Arc::downgrade(endpoint)));
            }
            kept
        });
        for endpoint in current.iter() {
            if running.iter().any(|(other, _)| Arc::ptr_eq(other, endpoint)) {
                continue;
            }
            let prober = Prober::new(&upstream, Arc::clone(endpoint), &config, &metrics);
            running.push((Arc::clone(endpoint), probers.spawn(prober.run())));
        }
    }
}

/// Endpoints that were removed and still have calls or connections.
struct Leaving {
    upstream: Arc<Upstream>,
    endpoints: Vec<(SocketAddr, Weak<Endpoint>)>,
}

impl Leaving {
    /// Takes the metrics away of those that nothing holds any more, and which nothing can count
    /// again, unless their address has come back.
    fn forget_ended(&mut self, metrics: &Metrics) {
        let current = self.upstream.endpoints();
        self.endpoints.retain(|(address, endpoint)| {
            let ended = endpoint.strong_count() == 0;
            if ended && current.iter().all(|other| other.address() != *address) {
                metrics.forget(&EndpointLabels {
                    upstream: (&**self.upstream.name()).into(),
                    endpoint: address.to_string().as_str().into(),
                });
            }
            !ended
        });
    }
}

/// The interval, give or take a tenth, so that many probers do not fall into step.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// How often it is seen whether a removed endpoint has ended.
const LOOK: Duration = Duration::from_millis(500);
/// How late a timer is that says nothing of what it timed.
const HELD_UP: Duration = Duration::from_millis(500);
