//! The shape of the YAML, as serde and the JSON Schema see it. What must be there is checked in
//! `rules`, so that one missing key does not hide the other problems.

mod admin;
mod auth;
mod discovery;
mod endpoint;
mod health;
mod listener;
mod overload;
mod route;
mod tls;
mod upstream;

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

pub(super) use self::{
    admin::Admin,
    auth::{Auth, Jwt, Mtls, Tenant, User},
    discovery::{Dns, File},
    endpoint::Endpoint,
    health::Health,
    listener::Listener,
    route::{Match, Retry, Route, Timeouts},
    tls::{ClientAuth, KeyPair, ListenerTls, UpstreamTls},
    upstream::{Check, Grpc, Http, Probe, Upstream},
};
pub use self::{
    discovery::Records,
    health::{AllDown, AllDownPolicy, NotServingAs},
    listener::ProxyProtocol,
    overload::{Admission, Ejection},
    route::RetryStatus,
    upstream::{LoadBalancing, ProxyVersion},
};
use super::{limits::Limits, value::Workers};

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
    /// When this file is read again while the process runs.
    pub(super) reload: Reload,
    /// Logging, to standard error.
    pub(super) log: Log,
}

/// How the process stops on SIGTERM or SIGINT.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
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

/// When the file is read again while the process runs: at SIGHUP always, and when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Reload {
    /// Whether a change of the file's content is enough, such as the swap of a Kubernetes
    /// ConfigMap. Default: true.
    pub watch: bool,
    /// How often the file is looked at for that. A change is taken when two looks in a row agree,
    /// so that no file is read while it is written. Default: 2s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub interval: Duration,
}

impl Default for Reload {
    fn default() -> Self {
        Self { watch: true, interval: Duration::from_secs(2) }
    }
}

/// Logging, to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
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
