//! The rules of listeners and of their limits.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use bytesize::ByteSize;

use super::{
    super::{
        checked::{Listener, Policy, Upstream},
        document::{self, NotServingAs},
        limits::Limits,
        lines::join,
    },
    Checker,
};

impl Checker<'_> {
    pub(super) fn listeners(
        &mut self,
        raw: Vec<document::Listener>,
        upstreams: &[Upstream],
        limits: &Limits,
        health: &document::Health,
    ) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = Vec::new();
        self.agents_of("health.not_serving_as_for", &health.not_serving_as_for);
        for (index, raw) in raw.into_iter().enumerate() {
            let path = format!("listeners[{index}]");
            let access = self.access(&path, &raw);
            let limits = self.listener_limits(&path, &raw, limits);
            let name = self.listener_name(&format!("{path}.name"), raw.name, &listeners);
            let address =
                self.listener_address(&format!("{path}.address"), raw.address, &listeners);
            if let Some(name) = &raw.upstream {
                self.upstream_named(&format!("{path}.upstream"), name, upstreams);
            }
            let tls = raw.tls.map(|raw| self.listener_tls(format!("{path}.tls"), raw));
            let auth = raw.auth;
            let auth = auth.map(|raw| self.auth(&format!("{path}.auth"), raw, tls.as_ref()));
            let tenants =
                raw.tenant.map(|raw| self.tenants(&format!("{path}.tenant"), raw, auth.is_some()));
            self.limits_per(&format!("{path}.limits_per"), &raw.limits_per);
            let policy = self.policy(&path, raw.timeouts, raw.retry, &Policy::default());
            let routes = self.routes(&path, raw.routes, &policy, upstreams);
            if raw.max_message_size.is_some_and(|size| size.as_u64() == 0) {
                self.problem(&format!("{path}.max_message_size"), "must be more than 0");
            }
            let agents = format!("{path}.health.not_serving_as_for");
            let agents = self.agents(&agents, health, raw.health.not_serving_as_for);
            let mut listener = Listener {
                name,
                address,
                tls,
                upstream: raw.upstream,
                routes,
                policy,
                not_serving_as: raw.health.not_serving_as.unwrap_or(health.not_serving_as),
                not_serving_as_for: agents,
                max_message_size: 0,
                access,
                auth,
                limits_per: raw.limits_per,
                tenants,
                limits,
            };
            let size = raw.max_message_size.unwrap_or_else(|| default_size(&listener, upstreams));
            listener.max_message_size = size.as_u64();
            listeners.push(listener);
        }
        listeners
    }

    /// `limits`, with the overrides of the listener at `path`.
    fn listener_limits(&mut self, path: &str, raw: &document::Listener, limits: &Limits) -> Limits {
        self.at_least_one(&format!("{path}.max_connections"), raw.max_connections);
        self.at_least_one(&format!("{path}.max_concurrent_streams"), raw.max_concurrent_streams);
        self.positive(&format!("{path}.idle_timeout"), raw.idle_timeout);
        self.positive(&format!("{path}.max_connection_age"), raw.max_connection_age);
        Limits {
            max_connections: raw.max_connections.unwrap_or(limits.max_connections),
            max_connections_per_address: raw
                .max_connections_per_address
                .unwrap_or(limits.max_connections_per_address),
            max_concurrent_streams: raw
                .max_concurrent_streams
                .unwrap_or(limits.max_concurrent_streams),
            idle_timeout: raw.idle_timeout.unwrap_or(limits.idle_timeout),
            max_connection_age: raw.max_connection_age.unwrap_or(limits.max_connection_age),
            ..*limits
        }
    }

    /// What is said to which user agents on one listener: the default, `health`'s and its own.
    fn agents(
        &mut self,
        path: &str,
        health: &document::Health,
        own: BTreeMap<String, NotServingAs>,
    ) -> BTreeMap<String, NotServingAs> {
        self.agents_of(path, &own);
        let default = [(ALB.to_owned(), NotServingAs::Status)];
        default.into_iter().chain(health.not_serving_as_for.clone()).chain(own).collect()
    }

    /// One section's beginnings of user agents.
    fn agents_of(&mut self, path: &str, agents: &BTreeMap<String, NotServingAs>) {
        if agents.contains_key("") {
            let words = "an empty user agent fits everyone: not_serving_as is for them";
            self.problem(&join(path, ""), words);
        }
    }

    fn listener_name(&mut self, path: &str, raw: Option<String>, others: &[Listener]) -> String {
        let name = self.required(path, raw, "a name for logs and metrics").unwrap_or_default();
        if name.is_empty() {
            self.problem(path, "must not be empty");
        } else if others.iter().any(|other| other.name == name) {
            self.problem(path, format!("{name:?} is taken by another listener"));
        }
        name
    }

    fn listener_address(
        &mut self,
        path: &str,
        raw: Option<SocketAddr>,
        others: &[Listener],
    ) -> SocketAddr {
        let what = "an IP address and port, such as 0.0.0.0:4317";
        let address = self.required(path, raw, what).unwrap_or(UNSPECIFIED);
        if let Some(other) = others.iter().find(|other| overlap(other.address, address)) {
            let message =
                format!("{address} is taken by listener {:?} ({})", other.name, other.address);
            self.problem(path, message);
        }
        address
    }
}

/// What its backends take: an OpenTelemetry receiver 4 MiB, Tempo's own gRPC 16.
fn default_size(listener: &Listener, upstreams: &[Upstream]) -> ByteSize {
    let mut named =
        listener.upstreams().map(|name| upstreams.iter().find(|other| other.name == name));
    let otlp = |upstream: Option<&Upstream>| upstream.is_some_and(Upstream::is_otlp);
    match named.next() {
        Some(first) if otlp(first) && named.all(otlp) => ByteSize::mib(4),
        _ => ByteSize::mib(16),
    }
}

/// Whether two sockets cannot be bound beside each other. Port 0 is another port each time, and
/// `[::]` stands for every IPv4 address too.
pub(super) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    let (x, y) = (a.ip(), b.ip());
    a.port() == b.port() && a.port() != 0 && (x == y || covers(x, y) || covers(y, x))
}

/// The health checks of AWS load balancers come as `ELB-HealthChecker/2.0`.
const ALB: &str = "ELB-HealthChecker";

const UNSPECIFIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unspecified_addresses_overlap_those_that_they_stand_for() {
        for (a, b, expected) in [
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("[::]:1", "127.0.0.1:1", true),
            ("[::]:1", "0.0.0.0:1", true),
            ("[::]:1", "[::1]:1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let (x, y) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!((overlap(x, y), overlap(y, x)), (expected, expected), "{a} {b}");
        }
    }
}
