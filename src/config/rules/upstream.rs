//! The rules of upstreams and of their probes.

use std::{net::SocketAddr, time::Duration};

use super::{
    super::{
        checked::{Check, Discovery, Endpoint, GrpcCheck, HttpCheck, Probe, Upstream},
        document,
        lines::join,
        value::Quorum,
    },
    Checker,
};

impl Checker<'_> {
    pub(super) fn upstream(&mut self, name: String, raw: document::Upstream) -> Upstream {
        let path = join("upstreams", &name);
        let discovery = self.discovery(&path, raw.endpoints.len(), raw.dns, raw.file);
        let endpoints = self.endpoints(&path, &raw.endpoints);
        // Those that are wrong are counted too, as they are meant to be put right.
        let total = raw.endpoints.len();
        if let Quorum::Count(count) = raw.min_healthy
            && count as usize > total
            && total > 0
        {
            let plural = if total == 1 { "" } else { "s" };
            let message = format!("{count} can never be met by {total} endpoint{plural}");
            self.problem(&format!("{path}.min_healthy"), message);
        }
        self.positive(&format!("{path}.connect_timeout"), raw.connect_timeout);
        self.at_most_a_year(&format!("{path}.slow_start"), Some(raw.slow_start));
        self.ejection(&path, &raw.ejection);
        self.admission(&path, &raw.admission);
        self.hash_by(&path, raw.hash_by.as_deref());
        let named = match &discovery {
            Some(Discovery::Dns(dns)) => Some(dns.name.trim_end_matches('.')),
            _ => None,
        };
        let tls = raw.tls.map(|raw| self.upstream_tls(format!("{path}.tls"), raw, named));
        Upstream {
            name,
            endpoints,
            discovery,
            probe: self.probe(&path, raw.probe, tls.is_some()),
            min_healthy: raw.min_healthy,
            panic_threshold: raw.panic_threshold,
            load_balancing: raw.load_balancing,
            hash_by: raw.hash_by,
            slow_start: raw.slow_start,
            ejection: raw.ejection,
            admission: raw.admission,
            connect_timeout: raw.connect_timeout.unwrap_or(Duration::from_secs(1)),
            tls,
            proxy_protocol: raw.proxy_protocol,
        }
    }

    fn endpoints(&mut self, path: &str, raw: &[document::Endpoint]) -> Vec<Endpoint> {
        let path = format!("{path}.endpoints");
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for (index, raw) in raw.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let (path, text, backup) = match raw {
                document::Endpoint::Address(text) => (path, Some(text.clone()), false),
                document::Endpoint::Section(it) => {
                    (format!("{path}.address"), it.address.clone(), it.backup)
                }
            };
            let what = "an IP address and port, such as 10.0.0.1:4317";
            let Some(text) = self.required(&path, text, what) else { continue };
            match text.parse::<SocketAddr>() {
                Ok(address) if address.port() == 0 => {
                    self.problem(&path, PORT_0);
                }
                Ok(address) if endpoints.iter().any(|it| it.address == address) => {
                    self.problem(&path, format!("{address} is listed twice"));
                }
                Ok(address) => endpoints.push(Endpoint { address, backup }),
                Err(_) => self.problem(&path, format!("{text:?} is not {what}")),
            }
        }
        if !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.backup) {
            self.problem(&path, "all of them are backups: at least one must not be");
        }
        endpoints
    }

    fn probe(&mut self, upstream: &str, raw: Option<document::Probe>, tls: bool) -> Probe {
        let path = format!("{upstream}.probe");
        if raw.is_none() {
            self.problem(
                &path,
                "is required, such as { checks: [{ otlp: {} }] }: without it nothing can be said of the endpoints",
            );
        }
        let raw = raw.unwrap_or_default();
        let interval = raw.interval.unwrap_or(Duration::from_secs(5));
        let timeout = raw.timeout.unwrap_or_else(|| Duration::from_secs(2).min(interval / 2));
        self.positive(&format!("{path}.interval"), raw.interval);
        if raw.interval.is_some_and(|interval| !interval.is_zero() && interval < SHORTEST) {
            self.problem(&format!("{path}.interval"), "must be at least 10ms");
        }
        self.positive(&format!("{path}.timeout"), raw.timeout);
        if timeout >= interval && !self.is_told(&format!("{path}.interval")) {
            let message = format!(
                "{} must be shorter than probe.interval ({})",
                humantime::format_duration(timeout),
                humantime::format_duration(interval)
            );
            self.problem(&format!("{path}.timeout"), message);
        }
        let stale_after = self.stale_after(&path, raw.stale_after, interval, timeout);
        self.at_least_one(&format!("{path}.healthy_threshold"), raw.healthy_threshold);
        self.at_least_one(&format!("{path}.unhealthy_threshold"), raw.unhealthy_threshold);
        if raw.checks.is_empty() {
            self.problem(
                &format!("{path}.checks"),
                format!("at least one check is required: {KINDS}"),
            );
        }
        if !tls && raw.checks.iter().any(document::Check::wants_tls) {
            let words = "is required, such as { ca_file: ca.pem }: a check has tls: true";
            self.problem(&format!("{upstream}.tls"), words);
        }
        let checks = raw.checks.into_iter().enumerate();
        let checks = checks
            .filter_map(|(index, raw)| self.check(&format!("{path}.checks[{index}]"), raw))
            .collect();
        Probe {
            interval,
            timeout,
            healthy_threshold: raw.healthy_threshold.unwrap_or(2),
            unhealthy_threshold: raw.unhealthy_threshold.unwrap_or(3),
            stale_after,
            checks,
            path,
        }
    }

    fn stale_after(
        &mut self,
        path: &str,
        raw: Option<Duration>,
        interval: Duration,
        timeout: Duration,
    ) -> Duration {
        let others = [format!("{path}.interval"), format!("{path}.timeout")];
        let path = format!("{path}.stale_after");
        self.positive(&path, raw);
        // Probes are up to this far apart when nothing is wrong.
        let apart = interval.saturating_add(interval / 10).saturating_add(timeout);
        let three = || interval.saturating_mul(3).saturating_add(timeout);
        let stale_after = raw.unwrap_or_else(three);
        if stale_after <= apart && !others.iter().any(|path| self.is_told(path)) {
            let message = format!(
                "{} must be longer than probe.interval, its jitter of 10 % and probe.timeout together ({})",
                humantime::format_duration(stale_after),
                humantime::format_duration(apart)
            );
            self.problem(&path, message);
        }
        stale_after
    }

    fn check(&mut self, path: &str, raw: document::Check) -> Option<Check> {
        let document::Check { otlp, grpc, http, tcp } = raw;
        match (otlp, grpc, http, tcp) {
            (Some(otlp), None, None, None) => {
                let port = self.port(&format!("{path}.otlp"), otlp.port);
                Some(Check::Otlp { port, plain: otlp.tls == Some(false) })
            }
            (None, Some(grpc), None, None) => {
                Some(Check::Grpc(self.grpc(&format!("{path}.grpc"), grpc)))
            }
            (None, None, Some(http), None) => {
                self.http(&format!("{path}.http"), http).map(Check::Http)
            }
            (None, None, None, Some(tcp)) => {
                Some(Check::Tcp { port: self.port(&format!("{path}.tcp"), tcp.port) })
            }
            (None, None, None, None) => {
                self.problem(path, format!("exactly one is required: {KINDS}"));
                None
            }
            _ => {
                self.problem(path, "has more than one kind: make each an item of the list");
                None
            }
        }
    }

    fn port(&mut self, path: &str, port: Option<u16>) -> Option<u16> {
        if port == Some(0) {
            self.problem(&format!("{path}.port"), PORT_0);
        }
        port
    }

    fn grpc(&mut self, path: &str, raw: document::Grpc) -> GrpcCheck {
        let mut metadata = http::HeaderMap::new();
        for (name, value) in &raw.metadata {
            let path = join(&format!("{path}.metadata"), name);
            match (http::HeaderName::from_lowercase(name.as_bytes()), value.parse()) {
                (Ok(name), _) if is_reserved(name.as_str()) => {
                    self.problem(&path, "is set by the protocol: leave it out");
                }
                (Ok(name), Ok(value)) => drop(metadata.append(name, value)),
                (Err(_), _) => self.problem(&path, "is not a lower-case header name"),
                // Its text may be a secret.
                (_, Err(_)) => {
                    self.problem(&path, "cannot be a header value: it has a control character")
                }
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
        let port = self.port(path, raw.port);
        GrpcCheck {
            port,
            service: raw.service,
            metadata,
            authority,
            watch: raw.watch,
            plain: raw.tls == Some(false),
        }
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
        let port = self.port(path, raw.port);
        let plain = raw.tls == Some(false);
        Some(HttpCheck { port, path: target?, status: status?, plain })
    }
}

/// Fields that gRPC or HTTP/2 gives a meaning, or forbids (RFC 9113, 8.2.2).
pub(super) fn is_reserved(name: &str) -> bool {
    name.starts_with("grpc-") || RESERVED.contains(&name)
}

const KINDS: &str = "otlp: {}, grpc: {}, http: {} or tcp: {}";
pub(super) const PORT_0: &str = "port 0 cannot be connected to";
const RESERVED: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// The shortest interval between probes.
const SHORTEST: Duration = Duration::from_millis(10);
