//! The rules of listeners and of their limits.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytesize::ByteSize;

use super::{
    super::{
        checked::{Listener, Upstream},
        document::{self, Limits, NotServingAs},
    },
    Checker, unknown_upstream,
};

impl Checker<'_> {
    pub(super) fn listeners(
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

    pub(super) fn limits(&mut self, limits: &Limits) {
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
}

/// Whether two sockets cannot be bound beside each other. Port 0 is another port each time.
pub(super) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let any = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || any)
}

const UNSPECIFIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
