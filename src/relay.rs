//! A worker's streams: each one from a client is paired with one to an endpoint, or answered here.
//!
//! A worker owns its connections and calls outright, in one `Engine` that never waits:
//! what a socket read is taken through the protocol's end of its link, event by event, and written
//! into the buffers of the links that it is for. At the end of the turn each of these is written
//! once. Only `turn` knows of sockets being ready, of tasks and of time.

mod buffers;
mod call;
mod cause;
mod downstream;
mod engine;
mod lane;
mod link;
mod links;
mod local;
mod own;
mod parts;
mod payload;
mod pump;
mod reflection;
mod replay;
mod request;
mod times;
mod turn;
mod upstream;

use std::sync::Arc;

use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};

pub use self::turn::Relay;
use crate::{
    answer::Answers,
    config,
    grpc::Code,
    metrics::{
        AnswerLabels, BytesLabels, ListenerLabels, Metrics, RequestLabels, RetryLabels,
        RouteLabels, Text,
    },
    route::{self, Dialect, Router},
    upstream::Upstream,
};

/// What the relay knows of a listener; shared by all workers.
#[derive(Debug)]
pub struct Listener {
    name: Text,
    router: Router,
    answers: Answers,
    upstream: Option<Arc<Upstream>>,
    limits: config::Limits,
    max_message_size: u64,
    metrics: Metrics,
    /// Of calls; made once, since each one moves them.
    duration: Histogram,
    streams: Gauge,
    requested: Counter,
    responded: Counter,
}

impl Listener {
    /// A listener that forwards to the one of `upstreams` that it names, or answers health only
    /// where it names none.
    pub fn new(
        config: &config::Listener,
        health: &config::Health,
        upstreams: &[Arc<Upstream>],
        answers: Answers,
        metrics: &Metrics,
    ) -> Self {
        let upstream = config.upstream.as_ref().and_then(|name| {
            upstreams.iter().find(|upstream| **upstream.name() == **name).cloned()
        });
        let name: Text = config.name.as_str().into();
        let labels = RouteLabels {
            listener: name.clone(),
            upstream: upstream.as_ref().map_or("", |upstream| upstream.name()).into(),
        };
        let bytes = |direction| {
            let labels = BytesLabels { listener: name.clone(), direction };
            metrics.bytes.get_or_create(&labels).clone()
        };
        Self {
            duration: metrics.request_duration.get_or_create(&labels).clone(),
            streams: metrics.streams.get_or_create(&labels).clone(),
            requested: bytes("request"),
            responded: bytes("response"),
            name,
            router: Router::new(&health.paths, upstream.is_some())
                .with_reflection(health.reflection),
            answers,
            upstream,
            limits: config.limits,
            max_message_size: config.max_message_size,
            metrics: metrics.clone(),
        }
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

    fn route_labels(&self) -> RouteLabels {
        let upstream = self.upstream.as_ref().map_or("", |upstream| upstream.name());
        RouteLabels { listener: self.name.clone(), upstream: upstream.into() }
    }

    /// Counts a call that is placed again.
    fn retried(&self, reason: &'static str) {
        let RouteLabels { listener, upstream } = self.route_labels();
        self.metrics.retries.get_or_create(&RetryLabels { listener, upstream, reason }).inc();
    }

    /// Counts a call that ended by `end`.
    fn ended(&self, path: &[u8], end: End) {
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
        self.requests(path, code, known).inc();
    }

    /// The counter of calls to a method that ended in one way. `known` where a backend has it.
    fn requests(&self, path: &[u8], code: &'static str, known: bool) -> Counter {
        let (service, method) = route::method(path).unwrap_or_default();
        let (service, method) = self.metrics.method(service, method, known);
        let RouteLabels { listener, upstream } = self.route_labels();
        let labels = RequestLabels { listener, upstream, service, method, code };
        self.metrics.requests.get_or_create(&labels).clone()
    }
}

/// How a call ended, for its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// With this grpc-status.
    Status(Code),
    /// Without reaching a backend.
    Refused(Code),
    /// With a response that is not gRPC's.
    Http,
    /// With a reset from either side.
    Reset,
}
