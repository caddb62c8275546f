//! What is counted, in the OpenMetrics text format. Every label has a bounded set of values.

use std::{
    collections::HashSet,
    fmt::Write,
    sync::{Arc, Mutex},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// All metrics of the process; clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    methods: Arc<Mutex<HashSet<Method>>>,
    /// Forwarded and refused calls that ended.
    pub requests: Family<RequestLabels, Counter>,
    /// Calls that were placed again.
    pub retries: Family<RetryLabels, Counter>,
    /// Calls that were ended since they took too long.
    pub timeouts: Family<RetryLabels, Counter>,
    /// From a call's head to the end of its streams, in seconds.
    pub request_duration: Family<RouteLabels, Histogram, fn() -> Histogram>,
    /// Calls in flight.
    pub streams: Family<RouteLabels, Gauge>,
    /// Health checks answered.
    pub health_answers: Family<AnswerLabels, Counter>,
    /// Payload bytes forwarded.
    pub bytes: Family<BytesLabels, Counter>,
    /// Open client connections.
    pub connections: Family<ListenerLabels, Gauge>,
    /// Client connections accepted.
    pub connections_accepted: Family<ListenerLabels, Counter>,
    /// Client connections closed at once, since their address had enough.
    pub connections_refused: Family<ListenerLabels, Counter>,
    /// Open connections to an endpoint.
    pub upstream_connections: Family<EndpointLabels, Gauge>,
    /// Connections to an endpoint that could not be made.
    pub upstream_connect_failures: Family<EndpointLabels, Counter>,
    /// 1 where the endpoint is ejected, else 0.
    pub endpoint_ejected: Family<EndpointLabels, Gauge>,
    /// Calls in flight on an endpoint.
    pub endpoint_in_flight: Family<EndpointLabels, Gauge>,
    /// How many may be, where that is bounded.
    pub endpoint_limit: Family<EndpointLabels, Gauge>,
    /// Ejections, by the fault that led to them.
    pub ejections: Family<EjectionLabels, Counter>,
    /// Calls that were turned away since their upstream had enough.
    pub shed: Family<ShedLabels, Counter>,
    /// 1 where the endpoint is healthy, else 0.
    pub endpoint_healthy: Family<EndpointLabels, Gauge>,
    /// 1 where the service is SERVING, else 0.
    pub service_serving: Family<ServiceLabels, Gauge>,
    /// Probes, by their result.
    pub probes: Family<ProbeLabels, Counter>,
    /// How long probes took, in seconds.
    pub probe_duration: Family<EndpointLabels, Histogram, fn() -> Histogram>,
    /// Endpoints that were found.
    pub discovery_endpoints: Family<UpstreamLabels, Gauge>,
    /// Times that finding them failed.
    pub discovery_failures: Family<UpstreamLabels, Counter>,
    /// When they were found last, in seconds since 1970.
    pub discovery_last_success: Family<UpstreamLabels, Gauge>,
}

/// A service and one of its methods.
type Method = (Box<str>, Box<str>);

/// Labels of a call that ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The listener's name.
    pub listener: Text,
    /// The upstream's name; "" where the call was refused before one was chosen.
    pub upstream: Text,
    /// The gRPC service; `other` beyond the bound.
    pub service: Text,
    /// The gRPC method; `other` beyond the bound.
    pub method: Text,
    /// The grpc-status, or `RESET` or `HTTP` where there was none.
    pub code: &'static str,
}

/// Labels of a call that is placed again, or took too long.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RetryLabels {
    /// The listener's name.
    pub listener: Text,
    /// The upstream's name.
    pub upstream: Text,
    /// `refused`, `goaway`, `unsent`, `status`, `lost`, `reset` or `timeout`; of what took too
    /// long `deadline`, `response`, `idle` or `call`.
    pub reason: &'static str,
}

/// Labels of a listener and the upstream behind it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    /// The listener's name.
    pub listener: Text,
    /// The upstream's name.
    pub upstream: Text,
}

/// Labels of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ListenerLabels {
    /// The listener's name.
    pub listener: Text,
}

/// Labels of a health check that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AnswerLabels {
    /// The listener's name.
    pub listener: Text,
    /// `check`, `watch`, `list`, `alb`, `http`.
    pub dialect: &'static str,
}

/// Labels of payload bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BytesLabels {
    /// The listener's name.
    pub listener: Text,
    /// `request` or `response`.
    pub direction: &'static str,
}

/// Labels of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndpointLabels {
    /// The upstream's name.
    pub upstream: Text,
    /// The endpoint's address.
    pub endpoint: Text,
}

/// Labels of an ejection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EjectionLabels {
    /// The upstream's name.
    pub upstream: Text,
    /// The endpoint's address.
    pub endpoint: Text,
    /// One of [`FAULTS`].
    pub reason: &'static str,
}

/// Labels of a call that was turned away.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ShedLabels {
    /// The upstream's name.
    pub upstream: Text,
    /// What there was too much of.
    pub reason: &'static str,
}

/// Labels of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UpstreamLabels {
    /// The upstream's name.
    pub upstream: Text,
}

/// Labels of a health service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ServiceLabels {
    /// The service's name; "" is the overall state.
    pub service: Text,
}

/// Labels of a probe that ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProbeLabels {
    /// The upstream's name.
    pub upstream: Text,
    /// The endpoint's address.
    pub endpoint: Text,
    /// One of [`RESULTS`].
    pub result: &'static str,
}

/// A label's value; clones share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Text(pub Arc<str>);

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(&self.0)
    }
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("upbeat");
        let mut metrics = Self {
            registry: Arc::default(),
            methods: Arc::default(),
            requests: Family::default(),
            retries: Family::default(),
            timeouts: Family::default(),
            request_duration: Family::new_with_constructor(latency),
            streams: Family::default(),
            health_answers: Family::default(),
            bytes: Family::default(),
            connections: Family::default(),
            connections_accepted: Family::default(),
            connections_refused: Family::default(),
            upstream_connections: Family::default(),
            upstream_connect_failures: Family::default(),
            endpoint_ejected: Family::default(),
            endpoint_in_flight: Family::default(),
            endpoint_limit: Family::default(),
            ejections: Family::default(),
            shed: Family::default(),
            endpoint_healthy: Family::default(),
            service_serving: Family::default(),
            probes: Family::default(),
            probe_duration: Family::new_with_constructor(latency),
            discovery_endpoints: Family::default(),
            discovery_failures: Family::default(),
            discovery_last_success: Family::default(),
        };
        let build: Family<[(&str, &str); 1], Gauge> = Family::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        /// Registers a clone of a family, which shares its values.
        macro_rules! add {
            ($family:expr, $name:literal, $help:literal) => {
                registry.register($name, $help, $family.clone())
            };
            ($family:expr, $name:literal, $help:literal, $unit:expr) => {
                registry.register_with_unit($name, $help, $unit, $family.clone())
            };
        }
        add!(build, "build_info", "The version that runs");
        add!(metrics.requests, "requests", "Calls forwarded or refused, by their end");
        add!(metrics.retries, "retries", "Calls placed again, unseen by their clients");
        add!(metrics.timeouts, "timeouts", "Calls ended since they took too long");
        add!(
            metrics.request_duration,
            "request_duration",
            "From a call's head to the end of its streams",
            Unit::Seconds
        );
        add!(metrics.streams, "streams", "Calls in flight");
        add!(metrics.health_answers, "health_answers", "Health checks answered");
        add!(metrics.bytes, "forwarded", "Payload forwarded", Unit::Bytes);
        add!(metrics.connections, "connections", "Open client connections");
        add!(metrics.connections_accepted, "connections_accepted", "Client connections accepted");
        add!(
            metrics.connections_refused,
            "connections_refused",
            "Client connections closed at once, since their address had enough"
        );
        add!(
            metrics.upstream_connections,
            "upstream_connections",
            "Open connections to an endpoint"
        );
        add!(
            metrics.upstream_connect_failures,
            "upstream_connect_failures",
            "Connections to an endpoint that could not be made"
        );
        add!(metrics.endpoint_ejected, "endpoint_ejected", "1 where the endpoint is ejected");
        add!(metrics.endpoint_in_flight, "endpoint_in_flight", "Calls in flight on an endpoint");
        add!(metrics.endpoint_limit, "endpoint_limit", "How many calls may be in flight on it");
        add!(metrics.ejections, "ejections", "Ejections of an endpoint, by the last fault");
        add!(metrics.shed, "shed", "Calls turned away since their upstream had enough");
        add!(metrics.endpoint_healthy, "endpoint_healthy", "1 where the endpoint is healthy");
        add!(metrics.service_serving, "service_serving", "1 where the service is SERVING");
        add!(metrics.probes, "probes", "Probes, by their result");
        add!(metrics.probe_duration, "probe_duration", "How long probes took", Unit::Seconds);
        add!(metrics.discovery_endpoints, "discovery_endpoints", "Endpoints that were found");
        add!(metrics.discovery_failures, "discovery_failures", "Times that finding them failed");
        add!(
            metrics.discovery_last_success,
            "discovery_last_success_timestamp",
            "When they were found last, since 1970",
            Unit::Seconds
        );
        metrics.registry = Arc::new(registry);
        metrics
    }

    /// The labels of a gRPC method. A new one is taken up only when `known` says that a backend
    /// has it, and no more than 256 in all, so that clients cannot make labels up.
    pub fn method(&self, service: &str, method: &str, known: bool) -> (Text, Text) {
        let key = (Box::from(service), Box::from(method));
        let mut methods = self.methods.lock().expect("no holder of this lock panics");
        if methods.contains(&key) || (known && methods.len() < METHODS && methods.insert(key)) {
            return (service.into(), method.into());
        }
        (OTHER.into(), OTHER.into())
    }

    /// Takes away what was counted of an endpoint: addresses that come and go would add up.
    pub fn forget(&self, endpoint: &EndpointLabels) {
        self.upstream_connect_failures.remove(endpoint);
        self.probe_duration.remove(endpoint);
        for gauge in [
            &self.upstream_connections,
            &self.endpoint_healthy,
            &self.endpoint_in_flight,
            &self.endpoint_ejected,
            &self.endpoint_limit,
        ] {
            gauge.remove(endpoint);
        }
        for reason in FAULTS {
            let EndpointLabels { upstream, endpoint } = endpoint.clone();
            self.ejections.remove(&EjectionLabels { upstream, endpoint, reason });
        }
        for result in RESULTS {
            let EndpointLabels { upstream, endpoint } = endpoint.clone();
            self.probes.remove(&ProbeLabels { upstream, endpoint, result });
        }
    }

    /// Everything, as `application/openmetrics-text; version=1.0.0`.
    pub fn render(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Buckets from half a millisecond to ten seconds, about 2.2 apart.
fn latency() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ])
}

/// Results of a probe: `inconclusive` where the cause was on our side.
pub const RESULTS: [&str; 3] = ["passed", "failed", "inconclusive"];
/// What endpoints are ejected for.
pub const FAULTS: [&str; 6] = ["connect", "tls", "reset", "goaway", "closed", "timeout"];
/// How many gRPC methods have labels of their own.
const METHODS: usize = 256;
const OTHER: &str = "other";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_no_backend_has_are_other() {
        let metrics = Metrics::new();
        assert_eq!(metrics.method("a.B", "C", false).0, OTHER.into());
        assert_eq!(metrics.method("a.B", "C", true).0, "a.B".into());
        assert_eq!(metrics.method("a.B", "C", false).1, "C".into());
    }

    #[test]
    fn methods_beyond_the_bound_are_other() {
        let metrics = Metrics::new();
        for number in 0..METHODS {
            metrics.method("a.B", &format!("M{number}"), true);
        }
        assert_eq!(metrics.method("a.B", "OneMore", true).1, OTHER.into());
        assert_eq!(metrics.method("a.B", "M7", false).1, "M7".into());
    }

    #[test]
    fn label_values_are_escaped() {
        let metrics = Metrics::new();
        metrics.service_serving.get_or_create(&ServiceLabels { service: "a\"\n\\".into() }).set(1);
        assert!(metrics.render().contains(r#"upbeat_service_serving{service="a\"\n\\"} 1"#));
    }
}
