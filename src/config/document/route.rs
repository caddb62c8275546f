//! Routes of a listener, as the YAML has them.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::value::Share;

/// Where some of a listener's calls go.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Route {
    /// Which calls; all that is given must fit. Default: every call.
    #[serde(rename = "match")]
    pub(in crate::config) matches: Match,
    /// The upstream that they go to. Exactly one of this and `upstreams`.
    pub(in crate::config) upstream: Option<String>,
    /// Upstreams and their weights, such as `{ stable: 95, canary: 5 }`. Where the chosen one has
    /// no endpoint to go to, another one is taken, also one of weight 0.
    pub(in crate::config) upstreams: BTreeMap<String, u32>,
    /// Each key's default: the listener's.
    pub(in crate::config) timeouts: Timeouts,
    /// Default: the listener's; `{}` for none.
    pub(in crate::config) retry: Option<Retry>,
}

/// Which calls a route is for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Match {
    /// A gRPC service's full name, such as `opentelemetry.proto.collector.trace.v1.TraceService`.
    pub(in crate::config) service: Option<String>,
    /// How the path begins, such as `/tempopb.` or `/tempopb.Querier/Find`.
    pub(in crate::config) prefix: Option<String>,
    /// The `:authority`, whatever its case; with a port that one, else any.
    pub(in crate::config) authority: Option<String>,
    /// Metadata and the values that it must have, such as `{ x-scope-orgid: team-a }`. What a call
    /// has more than once fits nothing.
    pub(in crate::config) metadata: BTreeMap<String, String>,
}

/// How long a call may take. What the proxy ends so has grpc-status 14 and a RetryInfo: 4 is for
/// the client's own grpc-timeout alone, which always counts.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Timeouts {
    /// How long the call waits until there is a connection to its endpoint; then it goes to another
    /// one, and ends where there is none that it has not tried. Default: as long as one may take to be
    /// made, the upstream's `connect_timeout`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) connect: Option<Duration>,
    /// From the request's end to the response's beginning. Default: none.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) response: Option<Duration>,
    /// Without payload in either direction. Default: none, since Tempo's queriers keep streams on
    /// which nothing happens for as long as nobody asks.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) idle: Option<Duration>,
    /// From the request's beginning to the response's end. Default: none.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) call: Option<Duration>,
}

/// When a call that a backend may have seen is placed again, before any of its response was passed
/// on. One that no backend has processed always is, without this.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Retry {
    /// Statuses that stand alone, without a response before them; of those that OTLP calls
    /// retryable. RESOURCE_EXHAUSTED only where a RetryInfo comes with it. All but this one and
    /// UNAVAILABLE need `idempotent`. Default: none.
    pub(in crate::config) statuses: Vec<RetryStatus>,
    /// Whether calls may be processed twice: then those whose connection was lost, whose stream was
    /// reset or whose `timeouts.response` ran out are placed again too. Default: false.
    pub(in crate::config) idempotent: bool,
    /// How often a call is placed at most, the first time included. Default: 3.
    pub(in crate::config) attempts: Option<u32>,
    /// The share of an upstream's calls in flight that may be such retries, and three of them
    /// always. Default: `"20%"`.
    pub(in crate::config) budget: Option<Share>,
    /// A RetryInfo is waited for, where it says no more than this; else the status is passed on.
    /// Default: 3s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) max_delay: Option<Duration>,
}

/// A status after which OTLP lets a call be tried again (OTLP specification, Failures).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(u8)]
pub enum RetryStatus {
    /// 1
    Cancelled = 1,
    /// 4
    DeadlineExceeded = 4,
    /// 8
    ResourceExhausted = 8,
    /// 10
    Aborted = 10,
    /// 11
    OutOfRange = 11,
    /// 14
    Unavailable = 14,
    /// 15
    DataLoss = 15,
}
