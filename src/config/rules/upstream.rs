//! The rules of upstreams and of their probes.

use std::{net::SocketAddr, time::Duration};

use super::{
    super::{
        checked::{Check, GrpcCheck, HttpCheck, Probe, Upstream},
        document,
        value::Quorum,
    },
    Checker,
};

impl Checker<'_> {
    pub(super) fn upstream(&mut self, name: String, raw: document::Upstream) -> Upstream {
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
}

const KINDS: &str = "otlp, grpc, http or tcp";
