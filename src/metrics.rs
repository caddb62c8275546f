//! What is counted, in the OpenMetrics text format. Every label has a bounded set of values.

mod family;
mod keys;
mod labels;
mod machine;
mod refusals;

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

pub use self::{
    family::Family,
    keys::{FetchLabels, KeysMetrics},
    labels::{
        AnswerLabels, BytesLabels, CertificateLabels, EjectionLabels, EndedLabels, EndpointLabels,
        HashLabels, KeyLabels, ListenerLabels, ProbeLabels, RefusedLabels, ReloadLabels,
        RequestLabels, RetryLabels, RouteLabels, ServiceLabels, ShedLabels, Text, UpstreamLabels,
    },
    machine::{MachineMetrics, ThreadLabels},
    refusals::RefusalsMetrics,
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
    pub request_duration: Family<RouteLabels, Histogram>,
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
    /// Of those that are turned away or ended.
    pub refusals: RefusalsMetrics,
    /// Tenants or client addresses with bounds of their own.
    pub limited_keys: Family<KeyLabels, Gauge>,
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
    /// Calls that wait until an endpoint has room.
    pub queued: Family<UpstreamLabels, Gauge>,
    /// 1 where the endpoint is healthy, else 0.
    pub endpoint_healthy: Family<EndpointLabels, Gauge>,
    /// 1 where the service is SERVING, else 0.
    pub service_serving: Family<ServiceLabels, Gauge>,
    /// Probes, by their result.
    pub probes: Family<ProbeLabels, Counter>,
    /// How long probes took, in seconds.
    pub probe_duration: Family<EndpointLabels, Histogram>,
    /// Endpoints that were found.
    pub discovery_endpoints: Family<UpstreamLabels, Gauge>,
    /// Times that finding them failed.
    pub discovery_failures: Family<UpstreamLabels, Counter>,
    /// When they were found last, in seconds since 1970.
    pub discovery_last_success: Family<UpstreamLabels, Gauge>,
    /// When certificates end that are shown, in seconds since 1970.
    pub certificates: Family<CertificateLabels, Gauge>,
    /// Of keys that are fetched.
    pub keys: KeysMetrics,
    /// Of the process itself.
    pub machine: MachineMetrics,
    /// Configurations that were read since the start, by what came of them.
    pub config_reloads: Family<ReloadLabels, Counter>,
    /// 1 where the last configuration that was read is the one that runs, else 0.
    pub config_last_reload_successful: Gauge,
    /// When the configuration that runs was applied, in seconds since 1970.
    pub config_applied: Gauge,
    /// 1 for the hash of the configuration that runs.
    pub config_info: Family<HashLabels, Gauge>,
}

/// What a configuration names, and so what is counted of it; see [`Metrics::keep`].
#[derive(Debug, Default)]
pub struct Named {
    /// Listeners.
    pub listeners: BTreeSet<String>,
    /// Upstreams.
    pub upstreams: BTreeSet<String>,
    /// Endpoints, each with its upstream.
    pub endpoints: BTreeSet<(String, String)>,
}

/// A service and one of its methods.
type Method = (Box<str>, Box<str>);

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
            request_duration: Family::new(latency),
            streams: Family::default(),
            health_answers: Family::default(),
            bytes: Family::default(),
            connections: Family::default(),
            connections_accepted: Family::default(),
            refusals: RefusalsMetrics::default(),
            limited_keys: Family::default(),
            upstream_connections: Family::default(),
            upstream_connect_failures: Family::default(),
            queued: Family::default(),
            endpoint_healthy: Family::default(),
            endpoint_ejected: Family::default(),
            endpoint_in_flight: Family::default(),
            endpoint_limit: Family::default(),
            ejections: Family::default(),
            shed: Family::default(),
            discovery_endpoints: Family::default(),
            discovery_failures: Family::default(),
            discovery_last_success: Family::default(),
            service_serving: Family::default(),
            probes: Family::default(),
            probe_duration: Family::new(latency),
            certificates: Family::default(),
            keys: KeysMetrics::default(),
            machine: MachineMetrics::default(),
            config_reloads: Family::default(),
            config_last_reload_successful: Gauge::default(),
            config_applied: Gauge::default(),
            config_info: Family::default(),
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
        metrics.refusals.register(&mut registry);
        add!(metrics.limited_keys, "limited_keys", "Clients that are told apart by limits_per");
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
        add!(metrics.queued, "queued", "Calls that wait until an endpoint has room");
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
        add!(
            metrics.certificates,
            "tls_certificate_expiry_timestamp",
            "When a certificate ends that is shown, since 1970",
            Unit::Seconds
        );
        metrics.keys.register(&mut registry);
        metrics.machine.register(&mut registry);
        add!(metrics.config_reloads, "config_reloads", "Configurations read since the start");
        add!(
            metrics.config_last_reload_successful,
            "config_last_reload_successful",
            "1 where the last configuration read is the one that runs"
        );
        add!(
            metrics.config_applied,
            "config_applied_timestamp",
            "When the configuration that runs was applied",
            Unit::Seconds
        );
        add!(metrics.config_info, "config_info", "The hash of the configuration that runs");
        for result in ["applied", "unchanged", "refused"] {
            metrics.config_reloads.get_or_create(&ReloadLabels { result });
        }
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

    /// Forgets what is counted of anything that a configuration no longer names. What still goes on
    /// there counts on, unseen, and may come back for as long as it does: call it again later.
    pub fn keep(&self, named: &Named) {
        let listener = |name: &Text| named.listeners.contains(&*name.0);
        let upstream = |name: &Text| name.0.is_empty() || named.upstreams.contains(&*name.0);
        let endpoint = |upstream: &Text, endpoint: &Text| {
            named.endpoints.contains(&(upstream.0.to_string(), endpoint.0.to_string()))
        };
        self.requests.retain(|it| listener(&it.listener) && upstream(&it.upstream));
        self.retries.retain(|it| listener(&it.listener) && upstream(&it.upstream));
        let route = |it: &RouteLabels| listener(&it.listener) && upstream(&it.upstream);
        self.request_duration.retain(route);
        self.streams.retain(route);
        self.health_answers.retain(|it| listener(&it.listener));
        self.bytes.retain(|it| listener(&it.listener));
        let port = |it: &ListenerLabels| listener(&it.listener);
        self.connections.retain(port);
        self.connections_accepted.retain(port);
        self.refusals.retain(listener);
        self.keys.retain(listener);
        self.limited_keys.retain(|it| listener(&it.listener));
        self.timeouts.retain(|it| listener(&it.listener) && upstream(&it.upstream));
        self.shed.retain(|it| upstream(&it.upstream));
        self.queued.retain(|it| upstream(&it.upstream));
        self.discovery_endpoints.retain(|it| upstream(&it.upstream));
        self.discovery_failures.retain(|it| upstream(&it.upstream));
        self.discovery_last_success.retain(|it| upstream(&it.upstream));
        self.keep_endpoints(endpoint);
    }

    /// Forgets what is counted of an endpoint: addresses that come and go would add up.
    pub fn forget(&self, labels: &EndpointLabels) {
        self.keep_endpoints(|upstream, endpoint| {
            *upstream != labels.upstream || *endpoint != labels.endpoint
        });
    }

    fn keep_endpoints(&self, kept: impl Fn(&Text, &Text) -> bool) {
        self.refusals.retain_endpoints(&kept);
        let of = |it: &EndpointLabels| kept(&it.upstream, &it.endpoint);
        self.upstream_connections.retain(of);
        self.upstream_connect_failures.retain(of);
        self.endpoint_healthy.retain(of);
        self.endpoint_in_flight.retain(of);
        self.endpoint_ejected.retain(of);
        self.endpoint_limit.retain(of);
        self.probe_duration.retain(of);
        self.ejections.retain(|it| kept(&it.upstream, &it.endpoint));
        self.probes.retain(|it| kept(&it.upstream, &it.endpoint));
    }

    /// Forgets the services that `kept` does not admit.
    pub fn keep_services(&self, kept: impl Fn(&str) -> bool) {
        self.service_serving.retain(|it| kept(&it.service.0));
    }

    /// Notes when the certificates end that are shown from now on.
    pub fn shown(&self, ends: &[(CertificateLabels, i64)]) {
        self.certificates.retain(|it| ends.iter().any(|(labels, _)| labels == it));
        for (labels, end) in ends {
            self.certificates.get_or_create(labels).set(*end);
        }
    }

    /// Notes that the configuration of this hash runs from now on.
    pub fn applied(&self, hash: &str) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.config_applied.set(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        self.config_last_reload_successful.set(1);
        self.config_info.retain(|it| *it.hash.0 == *hash);
        self.config_info.get_or_create(&HashLabels { hash: hash.into() }).set(1);
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

/// How many gRPC methods have labels of their own.
const METHODS: usize = 256;
const OTHER: &str = "other";

#[cfg(test)]
mod tests;
