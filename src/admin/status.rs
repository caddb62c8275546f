//! `/status`: the board, and what it is folded from.

use std::{fmt::Display, sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    health::Snapshot,
    upstream::{self, History, Upstream},
};

/// The body of `/status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// Upbeat's version.
    pub version: String,
    /// Whether the process is about to stop.
    pub draining: bool,
    /// The board.
    pub services: Vec<Service>,
    /// What it is folded from.
    pub upstreams: Vec<UpstreamStatus>,
}

/// One service on the board.
#[derive(Debug, Serialize, Deserialize)]
pub struct Service {
    /// The name; "" is the overall state.
    pub service: String,
    /// `SERVING` or `NOT_SERVING`.
    pub status: String,
    /// Since when, RFC 3339 in UTC.
    pub since: String,
    /// Why it does not serve, or, behind `held: `, why it soon may not; else empty.
    pub reason: String,
    /// Its last changes, the newest first.
    #[serde(default)]
    pub history: Vec<Transition>,
}

/// One upstream.
#[derive(Debug, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// The name.
    pub upstream: String,
    /// Healthy endpoints.
    pub healthy: usize,
    /// How many must be healthy.
    pub needed: usize,
    /// What to know of how its endpoints are found; mostly empty.
    #[serde(default)]
    pub note: String,
    /// All endpoints.
    pub endpoints: Vec<EndpointStatus>,
}

/// One endpoint.
#[derive(Debug, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// IP address and port.
    pub endpoint: String,
    /// `unknown`, `healthy`, `unhealthy`.
    pub health: String,
    /// Since when, RFC 3339 in UTC.
    pub since: String,
    /// Why it is not healthy; empty where it is.
    pub reason: String,
    /// What to know of its probes whatever its health; mostly empty.
    #[serde(default)]
    pub note: String,
    /// Whether it takes calls only while no other endpoint is available.
    #[serde(default)]
    pub backup: bool,
    /// Why and until when it takes no calls though it is healthy, where its transport failed them.
    #[serde(default)]
    pub ejected: Option<Ejection>,
    /// Calls in flight, over all workers.
    pub in_flight: usize,
    /// How many may be, where that is bounded.
    #[serde(default)]
    pub limit: Option<u32>,
    /// Its last changes, the newest first.
    #[serde(default)]
    pub history: Vec<Transition>,
}

/// An endpoint's ejection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ejection {
    /// The last fault: `connect`, `tls`, `reset`, `goaway`, `closed`, `timeout`.
    pub reason: String,
    /// From when on a probe that passes ends it, RFC 3339 in UTC.
    pub until: String,
}

/// A change of a service or of an endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Transition {
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// From what.
    pub from: String,
    /// To what.
    pub to: String,
    /// What it was concluded from; empty where it became well.
    pub evidence: String,
}

impl Status {
    pub(super) fn of(snapshot: &Snapshot, upstreams: &[Arc<Upstream>]) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            draining: snapshot.is_draining(),
            services: services(snapshot),
            upstreams: upstreams.iter().map(|upstream| upstream_status(upstream)).collect(),
        }
    }
}

pub(super) fn services(snapshot: &Snapshot) -> Vec<Service> {
    let services = snapshot.services().map(|(name, service)| Service {
        service: name.to_owned(),
        status: service.status.to_string(),
        since: timestamp(service.since),
        reason: service.reason.to_string(),
        history: transitions(&service.history),
    });
    services.collect()
}

fn transitions<T: Clone + PartialEq + Display>(history: &History<T>) -> Vec<Transition> {
    let transitions = history.iter().map(|it: &upstream::Transition<T>| Transition {
        at: timestamp(it.at),
        from: it.from.to_string(),
        to: it.to.to_string(),
        evidence: it.evidence.to_string(),
    });
    transitions.collect()
}

fn upstream_status(upstream: &Upstream) -> UpstreamStatus {
    let tally = upstream.tally();
    let endpoints = upstream.endpoints();
    let endpoints = endpoints.iter().map(|endpoint| {
        let state = endpoint.state();
        EndpointStatus {
            endpoint: endpoint.address().to_string(),
            health: state.health.to_string(),
            since: timestamp(state.since),
            reason: state.reason.to_string(),
            note: state.note.to_string(),
            backup: endpoint.is_backup(),
            ejected: endpoint
                .ejected()
                .map(|it| Ejection { reason: it.reason.to_string(), until: timestamp(it.until) }),
            in_flight: endpoint.in_flight(),
            limit: endpoint.limit(),
            history: transitions(&state.history),
        }
    });
    UpstreamStatus {
        upstream: upstream.name().to_string(),
        healthy: tally.healthy,
        needed: tally.needed,
        note: upstream.note().to_string(),
        endpoints: endpoints.collect(),
    }
}

fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
