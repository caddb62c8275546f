//! What a load balancer sees of a proxy: all that `upbeat cloud` takes from a configuration.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use super::text::label;
use crate::config::{Check, Config, Drain, Health, Listener, NotServingAs, Service, View};

/// The proxy from the outside.
#[derive(Debug)]
pub(super) struct Front {
    /// All listeners, in the configuration's order.
    pub(super) listeners: Vec<Port>,
    /// What is behind, which no balancer should check.
    pub(super) endpoints: Vec<Endpoint>,
    /// A path that a GET asks for health at.
    pub(super) health_path: String,
    /// How the proxy stops.
    pub(super) drain: Drain,
}

/// One listener.
#[derive(Debug)]
pub(super) struct Port {
    /// A name that Kubernetes and clouds take, unique.
    pub(super) name: String,
    /// The listener's own name.
    pub(super) listener: String,
    /// Where it is bound.
    pub(super) address: SocketAddr,
    /// Where its calls go; none answers health only.
    pub(super) upstream: Option<String>,
    /// The service whose state is this upstream's alone, else "", the overall state.
    pub(super) service: String,
    /// Whether the overall state depends on other upstreams than this listener's.
    pub(super) overall_is_shared: bool,
    /// How Check says NOT_SERVING here to an ALB, which is known by its user agent.
    pub(super) to_an_alb: NotServingAs,
    /// How long a connection may stay without a stream.
    pub(super) idle_timeout: Duration,
    /// Connections at a time.
    pub(super) max_connections: u32,
}

/// One endpoint of one upstream.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// The upstream's name.
    pub(super) upstream: String,
    /// Where its calls go.
    pub(super) address: SocketAddr,
    /// Its own port and those that probes go to.
    pub(super) ports: BTreeSet<u16>,
}

impl Front {
    /// The front of a configuration.
    pub(super) fn of(config: &Config) -> Self {
        let mut taken = BTreeSet::new();
        let mut port = |listener: &Listener| {
            let wished = label(&listener.name).filter(|name| taken.insert(name.clone()));
            let name = wished.unwrap_or_else(|| format!("port-{}", listener.address.port()));
            Port::of(listener, name, &config.health)
        };
        let listeners = config.listeners.iter().map(&mut port).collect();
        let endpoints = config.upstreams.iter().flat_map(|upstream| {
            let checks = || upstream.probe.checks.iter().filter_map(other_port);
            upstream.endpoints.iter().map(move |endpoint| Endpoint {
                upstream: upstream.name.clone(),
                address: endpoint.address,
                ports: checks().chain([endpoint.address.port()]).collect(),
            })
        });
        let paths = &config.health.paths;
        let path = paths.iter().find(|path| *path == "/readyz").or_else(|| paths.first());
        Self {
            listeners,
            endpoints: endpoints.collect(),
            health_path: path.map_or("/", String::as_str).to_owned(),
            drain: config.drain.clone(),
        }
    }

    /// Each port that a balancer can reach, once. Where there is none, all: the doctor tells why.
    pub(super) fn ports(&self) -> Vec<&Port> {
        let mut numbers = BTreeSet::new();
        let reachable = self.listeners.iter().filter(|port| port.is_reachable());
        let ports: Vec<_> = reachable.filter(|port| numbers.insert(port.number())).collect();
        if ports.is_empty() { self.listeners.iter().collect() } else { ports }
    }

    /// The ports that calls come in by. Where there is none, those that answer health.
    pub(super) fn traffic(&self) -> Vec<&Port> {
        let ports = self.ports();
        let traffic: Vec<_> =
            ports.iter().filter(|port| port.upstream.is_some()).copied().collect();
        if traffic.is_empty() { ports } else { traffic }
    }

    /// Where to GET health: the port that does nothing else, or one that calls come in by.
    pub(super) fn health(&self) -> &Port {
        let ports = self.ports();
        let alone = ports.iter().find(|port| port.upstream.is_none());
        alone.or_else(|| ports.first()).expect("a checked configuration has a listener")
    }
}

impl Port {
    fn of(listener: &Listener, name: String, health: &Health) -> Self {
        let upstream = listener.upstreams().next().map(str::to_owned);
        let own = upstream.as_deref().map(|upstream| own_service(health, upstream));
        Self {
            name,
            listener: listener.name.clone(),
            address: listener.address,
            overall_is_shared: own.is_some_and(|own| own != Some("")),
            service: own.flatten().unwrap_or_default().to_owned(),
            upstream,
            to_an_alb: to_an_alb(listener),
            idle_timeout: listener.limits.idle_timeout,
            max_connections: listener.limits.max_connections,
        }
    }

    /// The port's number.
    pub(super) fn number(&self) -> u16 {
        self.address.port()
    }

    /// Whether another host can connect to it, at a port that is known beforehand.
    pub(super) fn is_reachable(&self) -> bool {
        !self.address.ip().to_canonical().is_loopback() && self.number() != 0
    }

    /// Whether it speaks TLS: no listener does so far.
    pub(super) fn speaks_tls(&self) -> bool {
        false
    }
}

/// The longest beginning of its user agent decides.
fn to_an_alb(listener: &Listener) -> NotServingAs {
    let agents = listener.not_serving_as_for.iter();
    let own = agents.filter(|(agent, _)| "ELB-HealthChecker/2.0".starts_with(agent.as_str()));
    own.max_by_key(|(agent, _)| agent.len()).map_or(listener.not_serving_as, |(_, way)| *way)
}

/// The service that stands for this upstream and no other; the overall state if it does.
fn own_service<'a>(health: &'a Health, upstream: &str) -> Option<&'a str> {
    let own = |service: &Service| match &service.view {
        View::Upstream(name) => name == upstream,
        View::All(views) | View::Any(views) => *views == [View::Upstream(upstream.to_owned())],
        View::Not(_) | View::AtLeast(..) => false,
    };
    // "" is the first in order.
    let mut services = health.services.iter();
    services.find(|(_, service)| own(service)).map(|(name, _)| name.as_str())
}

/// The port that a check goes to, if not the endpoint's own.
fn other_port(check: &Check) -> Option<u16> {
    match check {
        Check::Otlp { port, .. } | Check::Tcp { port } => *port,
        Check::Grpc(check) => check.port,
        Check::Http(check) => check.port,
    }
}
