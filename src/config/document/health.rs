//! What is answered to health checks, as the YAML has it.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::view::Section;

/// What is answered to health checks.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Health {
    /// Service names and what they stand for: an expression over upstreams, such as
    /// `{ all: [otlp] }`. "" is the overall state, by default all upstreams.
    pub(in crate::config) services: BTreeMap<String, Section>,
    /// What is said when every endpoint is down.
    pub(in crate::config) all_down: AllDown,
    /// Whether `?verbose` and `Accept: application/json` tell why a service does not serve, which
    /// names endpoints. Default: true; false where strangers can ask.
    pub(in crate::config) details: Option<bool>,
    /// Paths beside `/` and `/grpc.health.v1.Health/Check` that a GET or HEAD may ask.
    /// Default: `/healthz`, `/readyz`, `/ready`.
    pub(in crate::config) paths: Option<Vec<String>>,
    /// How Check says that a service is not serving. Default: `message`.
    pub(in crate::config) not_serving_as: NotServingAs,
    /// The same for those whose `user-agent` begins so, such as `{ GoogleHC: message }`; the
    /// longest beginning that fits decides, before any `not_serving_as`.
    /// Default, beside what is given: `{ ELB-HealthChecker: status }`, since an AWS ALB reads the
    /// grpc-status alone, and with `message` would send calls to a target that is down.
    pub(in crate::config) not_serving_as_for: BTreeMap<String, NotServingAs>,
    /// Whether `grpc.reflection.v1` (and `v1alpha`) is answered on every listener, showing the
    /// health service and itself, so that grpcurl needs no proto file. A backend's own reflection
    /// is then out of reach. Default: false.
    pub(in crate::config) reflection: bool,
}

/// What a service says when none of its upstreams has a healthy endpoint left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AllDown {
    /// Default: `withdraw`.
    pub policy: AllDownPolicy,
    /// How long it stays before it withdraws after all. Default: for as long as all are down.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub dwell: Option<Duration>,
}

/// What to say when all is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AllDownPolicy {
    /// NOT_SERVING, as for any other reason.
    #[default]
    Withdraw,
    /// SERVING, where it was SERVING before: every proxy of a fleet sees the same, and a balancer
    /// that loses them all at once answers in words that clients drop their data on. Calls get
    /// grpc-status 14 and a RetryInfo.
    Stay,
}

/// How Check says that a service is not serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotServingAs {
    /// grpc-status 0 and the message NOT_SERVING, as the protocol says.
    #[default]
    Message,
    /// A trailers-only grpc-status 14, for load balancers that read only the status.
    Status,
}
