//! What the rest of the program takes its sections from: every reference resolved, every default
//! filled in, every rule between keys held.

mod access;
mod admin;
mod auth;
mod discovery;
mod tls;

use std::{collections::BTreeMap, fmt, net::SocketAddr, time::Duration};

pub use self::{
    access::Access,
    admin::Admin,
    auth::{Auth, CredentialsFile, Jwt, Kept, KeysFrom, Tenants},
    discovery::{Discovery, Dns, Family, File, Lookup},
    tls::{Clients, KeyPair, ListenerTls, UpstreamTls},
};
use super::{
    document::{
        Admission, AllDown, Drain, Ejection, LoadBalancing, Log, NotServingAs, ProxyVersion,
        Reload, RetryStatus,
    },
    limits::{Limits, LimitsPer},
    lines::Lines,
    value::{Quorum, Share, Watch, Workers},
    view::View,
    written::Written,
};

/// A whole, checked configuration. Only `app` holds one; every module takes its own section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// At least one.
    pub listeners: Vec<Listener>,
    /// At least one, in the order of their names.
    pub upstreams: Vec<Upstream>,
    /// Services and paths of health checks.
    pub health: Health,
    /// How the process stops.
    pub drain: Drain,
    /// The administrative server.
    pub admin: Admin,
    /// Worker threads.
    pub workers: Workers,
    /// Bounds that no listener overrides.
    pub limits: Limits,
    /// When the file is read again.
    pub reload: Reload,
    /// Logging.
    pub log: Log,
    /// What the file says, as it says it.
    pub written: Written,
    /// Where it says so.
    pub(super) lines: Lines,
}

/// One address where clients connect, its limits resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The name in logs and metrics.
    pub name: String,
    /// Where to bind.
    pub address: SocketAddr,
    /// How it speaks TLS, where it does.
    pub tls: Option<ListenerTls>,
    /// The upstream that calls go to that no route fits.
    pub upstream: Option<String>,
    /// Where other calls go. Without these and an upstream it answers health only.
    pub routes: Vec<Route>,
    /// How calls are treated that no route fits.
    pub policy: Policy,
    /// How Check says NOT_SERVING here.
    pub not_serving_as: NotServingAs,
    /// How it says so to those whose `user-agent` begins so; the longest beginning decides.
    pub not_serving_as_for: BTreeMap<String, NotServingAs>,
    /// The largest message in either direction, in bytes.
    pub max_message_size: u64,
    /// Who may connect.
    pub access: Access,
    /// What calls must prove; none where they need not.
    pub auth: Option<Auth>,
    /// Which tenants may call; none where that is not asked.
    pub tenants: Option<Tenants>,
    /// How much one client may ask for.
    pub limits_per: LimitsPer,
    /// `limits`, with this listener's overrides.
    pub limits: Limits,
}

impl Listener {
    /// Whence the keys of its tokens are fetched, where they are.
    pub fn keys_from(&self) -> Option<&KeysFrom> {
        self.auth.as_ref()?.jwt.as_ref()?.keys.as_ref()
    }

    /// The upstreams that its calls may go to, by their names; some more than once.
    pub fn upstreams(&self) -> impl Iterator<Item = &str> {
        let routed = self.routes.iter().flat_map(|route| &route.upstreams);
        self.upstream.as_deref().into_iter().chain(routed.map(|(name, _)| name.as_str()))
    }
}

/// Where calls go that fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Which calls.
    pub matches: Match,
    /// Upstreams by their names, and weights; at least one, and one of a weight over 0.
    pub upstreams: Vec<(String, u32)>,
    /// How these calls are treated.
    pub policy: Policy,
}

/// Which calls a route is for: all of it must fit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Match {
    /// A gRPC service's full name.
    pub service: Option<String>,
    /// How the path begins.
    pub prefix: Option<String>,
    /// The host, or host and port, in lower case.
    pub authority: Option<String>,
    /// Names and the value that each must have.
    pub metadata: BTreeMap<String, String>,
}

/// How a route's calls are treated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// How long a call waits for a connection to one endpoint.
    pub connect_timeout: Option<Duration>,
    /// From the request's end to the response's beginning.
    pub response_timeout: Option<Duration>,
    /// Without payload in either direction.
    pub idle_timeout: Option<Duration>,
    /// From beginning to end.
    pub call_timeout: Option<Duration>,
    /// When a call that a backend may have seen is placed again.
    pub retry: Option<Retry>,
}

/// When a call that a backend may have seen is placed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Statuses that stand alone.
    pub statuses: Vec<RetryStatus>,
    /// Whether calls may be processed twice.
    pub idempotent: bool,
    /// Placements of a call, the first one included; at least 1.
    pub attempts: u32,
    /// The share of an upstream's calls in flight that may be retries.
    pub budget: Share,
    /// The longest RetryInfo that is waited for.
    pub max_delay: Duration,
}

/// A named set of endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its key under `upstreams`.
    pub name: String,
    /// No two of one address. At least one, unless they are discovered.
    pub endpoints: Vec<Endpoint>,
    /// Where they are found, unless they are listed.
    pub discovery: Option<Discovery>,
    /// How they are probed.
    pub probe: Probe,
    /// How many must be healthy.
    pub min_healthy: Quorum,
    /// Below this available share, health is ignored when picking.
    pub panic_threshold: Share,
    /// How one is picked.
    pub load_balancing: LoadBalancing,
    /// Metadata whose value picks one, a lower-case name.
    pub hash_by: Option<String>,
    /// How long one that becomes available takes to have its whole share of calls.
    pub slow_start: Duration,
    /// When one that fails calls takes none for a while.
    pub ejection: Ejection,
    /// How many calls it takes at a time.
    pub admission: Admission,
    /// How long a TCP connect may take.
    pub connect_timeout: Duration,
    /// How its endpoints speak TLS, where they do.
    pub tls: Option<UpstreamTls>,
    /// The PROXY header that connections begin with; each is for one client then.
    pub proxy_protocol: Option<ProxyVersion>,
}

impl Upstream {
    /// Whether one of its checks is an OTLP Export, so that it is an OpenTelemetry receiver.
    pub(super) fn is_otlp(&self) -> bool {
        self.probe.checks.iter().any(|check| matches!(check, Check::Otlp { .. }))
    }
}

/// One address of an upstream; in order, backups are last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Whether it takes calls only while no endpoint is available that is no backup.
    pub backup: bool,
    /// Where it listens.
    pub address: SocketAddr,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.address, if self.backup { " (backup)" } else { "" })
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { address, backup: false }
    }
}

/// How the endpoints of one upstream are probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// From one probe's start to the next.
    pub interval: Duration,
    /// For all checks of one probe; shorter than the interval.
    pub timeout: Duration,
    /// Passed probes in a row that make an endpoint healthy; at least 1.
    pub healthy_threshold: u32,
    /// Failed probes in a row that make an endpoint unhealthy; at least 1.
    pub unhealthy_threshold: u32,
    /// How long what a probe found is knowledge; longer than `interval` and `timeout` together.
    pub stale_after: Duration,
    /// At least one; a probe passes when all do.
    pub checks: Vec<Check>,
    /// Where this section stands, for reports that name the key to set.
    pub path: String,
}

/// One part of a probe. `port` is another than the endpoint's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// An empty OTLP Export.
    Otlp {
        /// Another port than the endpoint's.
        port: Option<u16>,
        /// Without the upstream's TLS.
        plain: bool,
    },
    /// `grpc.health.v1.Health/Check`.
    Grpc(GrpcCheck),
    /// An HTTP/1.1 GET.
    Http(HttpCheck),
    /// A TCP connect.
    Tcp {
        /// Another port than the endpoint's.
        port: Option<u16>,
    },
}

/// `grpc.health.v1.Health/Check` as a probe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrpcCheck {
    /// Another port than the endpoint's.
    pub port: Option<u16>,
    /// The service asked for; "" is the server as a whole.
    pub service: String,
    /// Metadata sent along.
    pub metadata: http::HeaderMap,
    /// The `:authority`, where it is not the address.
    pub authority: Option<http::uri::Authority>,
    /// When a Watch is held too.
    pub watch: Watch,
    /// Without the upstream's TLS.
    pub plain: bool,
}

/// An HTTP GET as a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// Another port than the endpoint's.
    pub port: Option<u16>,
    /// The path and query asked for.
    pub path: http::uri::PathAndQuery,
    /// The status that passes.
    pub status: http::StatusCode,
    /// Without the upstream's TLS.
    pub plain: bool,
}

/// What health checks may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What each service name stands for. "" is always there.
    pub services: BTreeMap<String, Service>,
    /// What is said when every endpoint is down.
    pub all_down: AllDown,
    /// Whether reasons are told on the listeners.
    pub details: bool,
    /// Paths that answer a GET or HEAD beside `/` and the gRPC path.
    pub paths: Vec<String>,
    /// Whether reflection is answered here.
    pub reflection: bool,
}

/// What a service name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// By the names of upstreams.
    pub view: View<String>,
    /// How long a change must last before it is told.
    pub hold: Duration,
}
