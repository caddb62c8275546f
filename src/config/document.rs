//! The shape of the YAML, as serde and the JSON Schema see it. What must be there is checked in
//! `rules`, so that one missing key does not hide the other problems.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    limits::Limits,
    value::{Cap, Quorum, Share, Workers},
    view::Section,
};

/// The configuration of Upbeat.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Document {
    /// Where clients and load balancers connect. At least one.
    pub(super) listeners: Vec<Listener>,
    /// Named sets of endpoints. At least one.
    pub(super) upstreams: BTreeMap<String, Upstream>,
    /// What is answered to health checks.
    pub(super) health: Health,
    /// How the process stops.
    pub(super) drain: Drain,
    /// The administrative HTTP server.
    pub(super) admin: Admin,
    /// Worker threads: `auto` (default: one a core) or a number.
    pub(super) workers: Workers,
    /// Bounds on what a client or a backend may ask for.
    pub(super) limits: Limits,
    /// Logging, to standard error.
    pub(super) log: Log,
}

/// One address where clients connect.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Listener {
    /// The listener's name in logs and metrics. Required, unique.
    pub(super) name: Option<String>,
    /// IP address and port, such as `0.0.0.0:4317`. Required.
    #[schemars(with = "Option<String>")]
    pub(super) address: Option<SocketAddr>,
    /// The upstream that calls are forwarded to. Default: none, the listener answers health only.
    pub(super) upstream: Option<String>,
    /// Default: `limits.max_connections`.
    pub(super) max_connections: Option<u32>,
    /// Default: `limits.max_connections_per_address`.
    pub(super) max_connections_per_address: Option<Cap>,
    /// Default: `limits.max_concurrent_streams`.
    pub(super) max_concurrent_streams: Option<u32>,
    /// Default: `limits.idle_timeout`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(super) idle_timeout: Option<Duration>,
    /// Default: `limits.max_connection_age`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(super) max_connection_age: Option<Duration>,
    /// The largest gRPC message in either direction. Default: what the backend takes, 4 MiB where
    /// the upstream is probed by `otlp`, else 16 MiB.
    #[schemars(with = "Option<String>")]
    pub(super) max_message_size: Option<ByteSize>,
    /// Overrides of the `health` section for this listener.
    pub(super) health: ListenerHealth,
}

/// A listener's own way to answer health checks.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListenerHealth {
    /// Default: `health.not_serving_as`.
    pub(super) not_serving_as: Option<NotServingAs>,
    /// Beside those of `health.not_serving_as_for`, or in the place of those of the same name.
    pub(super) not_serving_as_for: BTreeMap<String, NotServingAs>,
}

/// A named set of endpoints that serve the same thing.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Upstream {
    /// The endpoints, IP address and port each. At least one.
    pub(super) endpoints: Vec<String>,
    /// How the endpoints are probed. Required: without it nothing could be said of them.
    pub(super) probe: Option<Probe>,
    /// How many endpoints must be healthy: a count, or a share such as `"50%"`. Default: 1.
    pub(super) min_healthy: Quorum,
    /// Below this share of healthy endpoints, calls go to all of them. Default: `"0%"`, never.
    pub(super) panic_threshold: Share,
    /// How an endpoint is picked for a call. Default: `least_request`.
    pub(super) load_balancing: LoadBalancing,
    /// How long a TCP connect may take. Default: 1s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(super) connect_timeout: Option<Duration>,
}

/// How an endpoint is picked for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalancing {
    /// The better of two random endpoints, by calls in flight.
    #[default]
    LeastRequest,
    /// Each endpoint in turn.
    RoundRobin,
}

/// How endpoints are probed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Probe {
    /// From one probe's start to the next, with up to 10 % of jitter. Default: 5s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(super) interval: Option<Duration>,
    /// How long all checks of one probe may take; shorter than the interval. Default: 2s, or half
    /// of the interval where that is shorter.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(super) timeout: Option<Duration>,
    /// Passed probes in a row that make an unhealthy endpoint healthy. Default: 2.
    pub(super) healthy_threshold: Option<u32>,
    /// Failed probes in a row that make a healthy endpoint unhealthy. One that answers a `grpc`
    /// check with NOT_SERVING is unhealthy at once. Where a connection that a check keeps, or a
    /// Watch, has broken, probes follow each other at once until one passes or there are enough
    /// of them (up to 10); else they are an interval apart. Default: 3.
    pub(super) unhealthy_threshold: Option<u32>,
    /// An endpoint that could not be probed for this long, for a cause on Upbeat's own side such
    /// as a lack of file descriptors, is unknown, which counts as not healthy; longer than
    /// the interval, its jitter and the timeout together. Default: three intervals and the timeout.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(super) stale_after: Option<Duration>,
    /// A probe passes when every check passes. At least one.
    pub(super) checks: Vec<Check>,
}

/// One part of a probe: exactly one of the keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Check {
    /// An empty OTLP Export, which every OpenTelemetry receiver answers with success.
    pub(super) otlp: Option<PortOnly>,
    /// A call of `grpc.health.v1.Health/Check` that must answer SERVING.
    pub(super) grpc: Option<Grpc>,
    /// An HTTP/1.1 GET.
    pub(super) http: Option<Http>,
    /// A TCP connect. The only kind that keeps no connection, so that a death is seen at the next
    /// interval only.
    pub(super) tcp: Option<PortOnly>,
}

/// A check that has only a port to choose.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PortOnly {
    /// Default: the endpoint's own port.
    pub(super) port: Option<u16>,
}

/// A call of `grpc.health.v1.Health/Check`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Grpc {
    /// Default: the endpoint's own port.
    pub(super) port: Option<u16>,
    /// The service asked for. Default: "", the server as a whole.
    pub(super) service: String,
    /// Metadata sent along, such as `x-scope-orgid` for a multi-tenant Tempo.
    pub(super) metadata: BTreeMap<String, String>,
    /// The `:authority` sent. Default: the endpoint's address.
    pub(super) authority: Option<String>,
    /// Hold a `Health/Watch` beside the calls of Check, so that NOT_SERVING is known when the
    /// endpoint says it. Where it has no Watch (UNIMPLEMENTED), Check alone decides. Default: false.
    pub(super) watch: bool,
}

/// An HTTP/1.1 GET.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Http {
    /// Default: the endpoint's own port.
    pub(super) port: Option<u16>,
    /// Default: `/ready`.
    pub(super) path: Option<String>,
    /// The status that passes. Default: 200.
    pub(super) status: Option<u16>,
}

/// What is answered to health checks.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Health {
    /// Service names and what they stand for: an expression over upstreams, such as
    /// `{ all: [otlp] }`. "" is the overall state, by default all upstreams.
    pub(super) services: BTreeMap<String, Section>,
    /// What is said when every endpoint is down.
    pub(super) all_down: AllDown,
    /// Whether `?verbose` and `Accept: application/json` tell why a service does not serve, which
    /// names endpoints. Default: true; false where strangers can ask.
    pub(super) details: Option<bool>,
    /// Paths beside `/` and `/grpc.health.v1.Health/Check` that a GET or HEAD may ask.
    /// Default: `/healthz`, `/readyz`, `/ready`.
    pub(super) paths: Option<Vec<String>>,
    /// How Check says that a service is not serving. Default: `message`.
    pub(super) not_serving_as: NotServingAs,
    /// The same for those whose `user-agent` begins so, such as `{ GoogleHC: message }`; the
    /// longest beginning that fits decides, before any `not_serving_as`.
    /// Default, beside what is given: `{ ELB-HealthChecker: status }`, since an AWS ALB reads the
    /// grpc-status alone, and with `message` would send calls to a target that is down.
    pub(super) not_serving_as_for: BTreeMap<String, NotServingAs>,
    /// Whether `grpc.reflection.v1` (and `v1alpha`) is answered on every listener, showing the
    /// health service and itself, so that grpcurl needs no proto file. A backend's own reflection
    /// is then out of reach. Default: false.
    pub(super) reflection: bool,
}

/// What a service says when none of its upstreams has a healthy endpoint left.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AllDown {
    /// Default: `withdraw`.
    pub policy: AllDownPolicy,
    /// How long it stays before it withdraws after all. Default: for as long as all are down.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub dwell: Option<Duration>,
}

/// What to say when all is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AllDownPolicy {
    /// NOT_SERVING, as for any other reason.
    #[default]
    Withdraw,
    /// SERVING, where it was SERVING before: every proxy of a fleet sees the same, and a balancer
    /// that loses them all at once answers in words that clients drop their data on. Calls get
    /// grpc-status 14 and a RetryInfo.
    Stay,
}

/// How Check says that a service is not serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotServingAs {
    /// grpc-status 0 and the message NOT_SERVING, as the protocol says.
    #[default]
    Message,
    /// A trailers-only grpc-status 14, for load balancers that read only the status.
    Status,
}

/// How the process stops on SIGTERM or SIGINT.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// How long calls are still accepted after health says NOT_SERVING. Default: 15s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub delay: Duration,
    /// How long calls in flight may take to end after that. Default: 30s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub timeout: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay: Duration::from_secs(15), timeout: Duration::from_secs(30) }
    }
}

/// The administrative HTTP server: `/metrics`, `/status`, `/livez`, `/readyz`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Default: `127.0.0.1:9901`.
    #[schemars(with = "String")]
    pub address: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 9901)) }
    }
}

/// Logging, to standard error.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Default: `text`.
    pub format: LogFormat,
    /// Default: `info`. `debug` and `trace` are compiled out of release builds.
    pub level: Level,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The least severe lines that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// What stops the work.
    Error,
    /// What somebody should look at.
    Warn,
    /// Changes of state.
    #[default]
    Info,
    /// For those who work on Upbeat.
    Debug,
    /// Everything.
    Trace,
}
