//! What the rest of the program takes its sections from: every reference resolved, every default
//! filled in, every rule between keys held.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use bytesize::ByteSize;

use super::{
    Problem,
    document::{self, Admin, Document, Drain, Limits, LoadBalancing, Log, NotServingAs},
    source::Lines,
    value::{Quorum, Share, Workers},
};

/// A whole, checked configuration. Only `app` holds one; every module takes its own section.
#[derive(Debug, Clone)]
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
    /// Logging.
    pub log: Log,
}

/// One address where clients connect, its limits resolved.
#[derive(Debug, Clone)]
pub struct Listener {
    /// The name in logs and metrics.
    pub name: String,
    /// Where to bind.
    pub address: SocketAddr,
    /// The upstream that calls go to; none answers health only.
    pub upstream: Option<String>,
    /// How Check says NOT_SERVING here.
    pub not_serving_as: NotServingAs,
    /// The largest message in either direction, in bytes.
    pub max_message_size: u64,
    /// `limits`, with this listener's overrides.
    pub limits: Limits,
}

/// A named set of endpoints.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its key under `upstreams`.
    pub name: String,
    /// At least one, no two alike.
    pub endpoints: Vec<SocketAddr>,
    /// How they are probed.
    pub probe: Probe,
    /// How many must be healthy.
    pub min_healthy: Quorum,
    /// Below this healthy share, health is ignored when picking.
    pub panic_threshold: Share,
    /// How one is picked.
    pub load_balancing: LoadBalancing,
    /// How long a TCP connect may take.
    pub connect_timeout: Duration,
}

/// How the endpoints of one upstream are probed.
#[derive(Debug, Clone)]
pub struct Probe {
    /// From one probe's start to the next.
    pub interval: Duration,
    /// For all checks of one probe; shorter than the interval.
    pub timeout: Duration,
    /// Passed probes in a row that make an endpoint healthy; at least 1.
    pub healthy_threshold: u32,
    /// Failed probes in a row that make an endpoint unhealthy; at least 1.
    pub unhealthy_threshold: u32,
    /// At least one; a probe passes when all do.
    pub checks: Vec<Check>,
    /// Where this section stands, for reports that name the key to set.
    pub path: String,
}

/// One part of a probe. `port` is another than the endpoint's own.
#[derive(Debug, Clone)]
pub enum Check {
    /// An empty OTLP Export.
    Otlp {
        /// Another port than the endpoint's.
        port: Option<u16>,
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
#[derive(Debug, Clone, Default)]
pub struct GrpcCheck {
    /// Another port than the endpoint's.
    pub port: Option<u16>,
    /// The service asked for; "" is the server as a whole.
    pub service: String,
    /// Metadata sent along.
    pub metadata: http::HeaderMap,
    /// The `:authority`, where it is not the address.
    pub authority: Option<http::uri::Authority>,
}

/// An HTTP GET as a probe.
#[derive(Debug, Clone)]
pub struct HttpCheck {
    /// Another port than the endpoint's.
    pub port: Option<u16>,
    /// The path and query asked for.
    pub path: http::uri::PathAndQuery,
    /// The status that passes.
    pub status: http::StatusCode,
}

/// What health checks may ask for.
#[derive(Debug, Clone)]
pub struct Health {
    /// Service name to upstreams, all of which must serve. "" is always there.
    pub services: BTreeMap<String, Vec<String>>,
    /// Paths that answer a GET or HEAD beside `/` and the gRPC path.
    pub paths: Vec<String>,
}

/// Turns a document into a [`Config`]. Where it adds to `problems`, the result is not to be used.
pub(super) fn check(document: Document, lines: &Lines, problems: &mut Vec<Problem>) -> Config {
    let mut checker = Checker { lines, problems };
    let upstreams: Vec<_> =
        document.upstreams.into_iter().map(|(name, raw)| checker.upstream(name, raw)).collect();
    if upstreams.is_empty() {
        checker.problem("upstreams", "at least one upstream is required");
    }
    if document.listeners.is_empty() {
        checker.problem("listeners", "at least one listener is required");
    }
    checker.limits(&document.limits);
    let listeners = checker.listeners(
        document.listeners,
        &upstreams,
        &document.limits,
        document.health.not_serving_as,
    );
    let health = checker.health(document.health, &upstreams);
    let admin = document.admin;
    for (index, listener) in listeners.iter().enumerate() {
        if overlap(listener.address, admin.address) {
            checker.problem(
                &format!("listeners[{index}].address"),
                format!("{} is also admin.address", listener.address),
            );
        }
    }
    Config {
        listeners,
        upstreams,
        health,
        drain: document.drain,
        admin,
        workers: document.workers,
        limits: document.limits,
        log: document.log,
    }
}

struct Checker<'a> {
    lines: &'a Lines,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    /// Adds a problem, unless the same place has one already: a value that could not be read
    /// would otherwise be called missing too.
    fn problem(&mut self, path: &str, message: impl Into<String>) {
        let covered = |problem: &Problem| {
            problem
                .path
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        if !self.problems.iter().any(covered) {
            self.problems.push(self.lines.problem(path, message.into()));
        }
    }

    /// The value, or a problem that says it is required.
    fn required<T>(&mut self, path: &str, value: Option<T>, what: &str) -> Option<T> {
        if value.is_none() {
            self.problem(path, format!("is required: {what}"));
        }
        value
    }

    fn listeners(
        &mut self,
        raw: Vec<document::Listener>,
        upstreams: &[Upstream],
        limits: &Limits,
        not_serving_as: NotServingAs,
    ) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = Vec::new();
        for (index, raw) in raw.into_iter().enumerate() {
            let path = format!("listeners[{index}]");
            let name = self
                .required(&format!("{path}.name"), raw.name, "a name for logs and metrics")
                .unwrap_or_default();
            if name.is_empty() {
                self.problem(&format!("{path}.name"), "must not be empty");
            } else if listeners.iter().any(|other| other.name == name) {
                self.problem(
                    &format!("{path}.name"),
                    format!("{name:?} is taken by another listener"),
                );
            }
            let address = self
                .required(
                    &format!("{path}.address"),
                    raw.address,
                    "an IP address and port, such as 0.0.0.0:4317",
                )
                .unwrap_or(UNSPECIFIED);
            if let Some(other) = listeners.iter().find(|other| overlap(other.address, address)) {
                let message = format!("{address} is taken by listener {:?}", other.name);
                self.problem(&format!("{path}.address"), message);
            }
            let upstream = raw.upstream.as_deref().and_then(|name| {
                let found = upstreams.iter().find(|upstream| upstream.name == name);
                if found.is_none() {
                    let message = unknown_upstream(name, upstreams);
                    self.problem(&format!("{path}.upstream"), message);
                }
                found
            });
            let limits = Limits {
                max_connections: raw.max_connections.unwrap_or(limits.max_connections),
                max_concurrent_streams: raw
                    .max_concurrent_streams
                    .unwrap_or(limits.max_concurrent_streams),
                idle_timeout: raw.idle_timeout.unwrap_or(limits.idle_timeout),
                max_connection_age: raw.max_connection_age.unwrap_or(limits.max_connection_age),
                ..limits.clone()
            };
            self.connection_limits(&path, &limits);
            let default_size = match upstream {
                Some(upstream) if upstream.is_otlp() => ByteSize::mib(4),
                _ => ByteSize::mib(16),
            };
            let max_message_size = raw.max_message_size.unwrap_or(default_size);
            if max_message_size.as_u64() == 0 {
                self.problem(&format!("{path}.max_message_size"), "must be more than 0");
            }
            listeners.push(Listener {
                name,
                address,
                upstream: raw.upstream,
                not_serving_as: raw.health.not_serving_as.unwrap_or(not_serving_as),
                max_message_size: max_message_size.as_u64(),
                limits,
            });
        }
        listeners
    }

    fn connection_limits(&mut self, path: &str, limits: &Limits) {
        for (key, value) in [
            ("max_connections", limits.max_connections),
            ("max_concurrent_streams", limits.max_concurrent_streams),
        ] {
            if value == 0 {
                self.problem(&format!("{path}.{key}"), "must be at least 1");
            }
        }
        for (key, value) in [
            ("idle_timeout", limits.idle_timeout),
            ("max_connection_age", limits.max_connection_age),
        ] {
            self.positive(&format!("{path}.{key}"), value);
        }
    }

    fn limits(&mut self, limits: &Limits) {
        self.connection_limits("limits", limits);
        self.positive("limits.handshake_timeout", limits.handshake_timeout);
        for (key, size) in [
            ("max_header_list_size", limits.max_header_list_size),
            ("max_upstream_header_list_size", limits.max_upstream_header_list_size),
        ] {
            if !(1024..=1 << 20).contains(&size.as_u64()) {
                let message = format!("{size} must be from 1 KiB to 1 MiB");
                self.problem(&format!("limits.{key}"), message);
            }
        }
    }

    fn positive(&mut self, path: &str, value: Duration) {
        if value.is_zero() {
            self.problem(path, "must be more than 0s");
        }
    }

    fn upstream(&mut self, name: String, raw: document::Upstream) -> Upstream {
        let path = format!("upstreams.{name}");
        let endpoints = self.endpoints(&path, &raw.endpoints);
        if let Quorum::Count(count) = raw.min_healthy
            && count as usize > endpoints.len()
            && !endpoints.is_empty()
        {
            let message = format!("{count} can never be met by {} endpoints", endpoints.len());
            self.problem(&format!("{path}.min_healthy"), message);
        }
        let connect_timeout = raw.connect_timeout.unwrap_or(Duration::from_secs(1));
        self.positive(&format!("{path}.connect_timeout"), connect_timeout);
        Upstream {
            name,
            endpoints,
            probe: self.probe(format!("{path}.probe"), raw.probe),
            min_healthy: raw.min_healthy,
            panic_threshold: raw.panic_threshold,
            load_balancing: raw.load_balancing,
            connect_timeout,
        }
    }

    fn endpoints(&mut self, path: &str, raw: &[String]) -> Vec<SocketAddr> {
        let path = format!("{path}.endpoints");
        let mut endpoints = Vec::new();
        for (index, text) in raw.iter().enumerate() {
            let path = format!("{path}[{index}]");
            match text.parse::<SocketAddr>() {
                Ok(address) if address.port() == 0 => {
                    self.problem(&path, "port 0 cannot be connected to")
                }
                Ok(address) if endpoints.contains(&address) => {
                    self.problem(&path, format!("{address} is listed twice"));
                }
                Ok(address) => endpoints.push(address),
                Err(_) => self.problem(
                    &path,
                    format!("{text:?} is not an IP address and port, such as 10.0.0.1:4317"),
                ),
            }
        }
        if raw.is_empty() {
            self.problem(&path, "at least one endpoint is required");
        }
        endpoints
    }

    fn probe(&mut self, path: String, raw: Option<document::Probe>) -> Probe {
        if raw.is_none() {
            self.problem(
                &path,
                "is required: without a probe nothing can be said of the endpoints",
            );
        }
        let raw = raw.unwrap_or_default();
        let interval = raw.interval.unwrap_or(Duration::from_secs(5));
        let timeout = raw.timeout.unwrap_or_else(|| Duration::from_secs(2).min(interval / 2));
        self.positive(&format!("{path}.interval"), interval);
        self.positive(&format!("{path}.timeout"), timeout);
        if timeout >= interval && !interval.is_zero() {
            let message = format!(
                "{} must be shorter than probe.interval ({})",
                humantime::format_duration(timeout),
                humantime::format_duration(interval)
            );
            self.problem(&format!("{path}.timeout"), message);
        }
        let mut threshold = |key: &str, value: Option<u32>, default| {
            if value == Some(0) {
                self.problem(&format!("{path}.{key}"), "must be at least 1");
            }
            value.unwrap_or(default)
        };
        let healthy_threshold = threshold("healthy_threshold", raw.healthy_threshold, 2);
        let unhealthy_threshold = threshold("unhealthy_threshold", raw.unhealthy_threshold, 3);
        if raw.checks.is_empty() {
            self.problem(
                &format!("{path}.checks"),
                format!("at least one check is required: {KINDS}"),
            );
        }
        let checks = raw.checks.into_iter().enumerate();
        let checks = checks
            .filter_map(|(index, raw)| self.check(&format!("{path}.checks[{index}]"), raw))
            .collect();
        Probe { interval, timeout, healthy_threshold, unhealthy_threshold, checks, path }
    }

    fn check(&mut self, path: &str, raw: document::Check) -> Option<Check> {
        match raw {
            document::Check { otlp: Some(otlp), grpc: None, http: None, tcp: None } => {
                Some(Check::Otlp { port: otlp.port })
            }
            document::Check { otlp: None, grpc: Some(grpc), http: None, tcp: None } => {
                Some(Check::Grpc(self.grpc(&format!("{path}.grpc"), grpc)))
            }
            document::Check { otlp: None, grpc: None, http: Some(http), tcp: None } => {
                self.http(&format!("{path}.http"), http).map(Check::Http)
            }
            document::Check { otlp: None, grpc: None, http: None, tcp: Some(tcp) } => {
                Some(Check::Tcp { port: tcp.port })
            }
            _ => {
                self.problem(path, format!("exactly one is required: {KINDS}"));
                None
            }
        }
    }

    fn grpc(&mut self, path: &str, raw: document::Grpc) -> GrpcCheck {
        let mut metadata = http::HeaderMap::new();
        for (name, value) in &raw.metadata {
            let path = format!("{path}.metadata.{name}");
            match (http::HeaderName::from_lowercase(name.as_bytes()), value.parse()) {
                (Ok(name), Ok(value)) => drop(metadata.append(name, value)),
                (Err(_), _) => self.problem(&path, "is not a lower-case header name"),
                (_, Err(_)) => self.problem(&path, format!("{value:?} is not a header value")),
            }
        }
        let authority = raw.authority.and_then(|authority| {
            authority
                .parse()
                .map_err(|_| {
                    let message = format!("{authority:?} is not a host, or host and port");
                    self.problem(&format!("{path}.authority"), message);
                })
                .ok()
        });
        GrpcCheck { port: raw.port, service: raw.service, metadata, authority }
    }

    fn http(&mut self, path: &str, raw: document::Http) -> Option<HttpCheck> {
        let text = raw.path.unwrap_or_else(|| "/ready".to_owned());
        let target = text.parse().ok().filter(|_| text.starts_with('/'));
        if target.is_none() {
            let message = format!("{text:?} is not a path, such as /ready");
            self.problem(&format!("{path}.path"), message);
        }
        let number = raw.status.unwrap_or(200);
        let status =
            http::StatusCode::from_u16(number).ok().filter(|_| (200..600).contains(&number));
        if status.is_none() {
            let message = format!("{number} is not a final HTTP status (200 to 599)");
            self.problem(&format!("{path}.status"), message);
        }
        Some(HttpCheck { port: raw.port, path: target?, status: status? })
    }

    fn health(&mut self, raw: document::Health, upstreams: &[Upstream]) -> Health {
        let mut services = BTreeMap::new();
        for (service, raw) in raw.services {
            let path = format!("health.services.{service}.all");
            if raw.all.is_empty() {
                self.problem(&path, "at least one upstream is required");
            }
            for (index, name) in raw.all.iter().enumerate() {
                if !upstreams.iter().any(|upstream| upstream.name == *name) {
                    self.problem(&format!("{path}[{index}]"), unknown_upstream(name, upstreams));
                }
            }
            services.insert(service, raw.all);
        }
        services
            .entry(String::new())
            .or_insert_with(|| upstreams.iter().map(|upstream| upstream.name.clone()).collect());
        let paths = raw.paths.unwrap_or_else(|| DEFAULT_PATHS.map(str::to_owned).to_vec());
        let mut seen = BTreeSet::new();
        for (index, path) in paths.iter().enumerate() {
            let at = format!("health.paths[{index}]");
            if !path.starts_with('/') || path.contains(['?', '#', ' ']) {
                self.problem(&at, format!("{path:?} is not a path, such as /healthz"));
            } else if path == "/livez" {
                self.problem(&at, "/livez says whether the process runs, not whether it serves");
            } else if !seen.insert(path) {
                self.problem(&at, format!("{path:?} is listed twice"));
            }
        }
        Health { services, paths }
    }
}

impl Upstream {
    /// Whether one of its checks is an OTLP Export, so that it is an OpenTelemetry receiver.
    fn is_otlp(&self) -> bool {
        self.probe.checks.iter().any(|check| matches!(check, Check::Otlp { .. }))
    }
}

fn unknown_upstream(name: &str, upstreams: &[Upstream]) -> String {
    let known: Vec<_> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    match known.is_empty() {
        true => format!("no upstream is named {name:?}"),
        false => format!("no upstream is named {name:?}: there is {}", known.join(", ")),
    }
}

/// Whether two sockets cannot be bound beside each other. Port 0 is another port each time.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let any = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || any)
}

const KINDS: &str = "otlp, grpc, http or tcp";
const DEFAULT_PATHS: [&str; 3] = ["/healthz", "/readyz", "/ready"];
const UNSPECIFIED: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
