//! A worker's streams: each one from a client is paired with one to an endpoint, or answered here.
//!
//! This engine stands on the h2 crate on both sides, one task a request; `transport` and `pool`
//! are the only files that name its types.

mod connection;
mod forward;
mod local;
mod pool;
mod stream;
mod transport;

use std::sync::Arc;

pub use self::connection::serve;
pub use self::pool::Pool;
use crate::{
    answer::Answers,
    config,
    grpc::Code,
    metrics::{
        AnswerLabels, BytesLabels, ListenerLabels, Metrics, RequestLabels, RouteLabels, Text,
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
}

impl Listener {
    /// A listener that forwards to `upstream`, or answers health only where there is none.
    pub fn new(
        config: &config::Listener,
        health: &config::Health,
        upstream: Option<Arc<Upstream>>,
        answers: Answers,
        metrics: &Metrics,
    ) -> Self {
        Self {
            name: config.name.as_str().into(),
            router: Router::new(&health.paths, upstream.is_some()),
            answers,
            upstream,
            limits: config.limits.clone(),
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

    /// Counts a call that ended by `end`, with the status `code` where it had one.
    fn ended(&self, path: &str, end: End) {
        let known = !matches!(end, End::Status(Code::Unimplemented) | End::Refused(_));
        let (service, method) = route::method(path).unwrap_or_default();
        let (service, method) = self.metrics.method(service, method, known);
        let RouteLabels { listener, upstream } = self.route_labels();
        let code = match end {
            End::Status(code) | End::Refused(code) => code.name(),
            End::Http => "HTTP",
            End::Reset => "RESET",
        };
        let labels = RequestLabels { listener, upstream, service, method, code };
        self.metrics.requests.get_or_create(&labels).inc();
    }

    fn forwarded(&self, direction: &'static str, bytes: u64) {
        let labels = BytesLabels { listener: self.name.clone(), direction };
        self.metrics.bytes.get_or_create(&labels).inc_by(bytes);
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
