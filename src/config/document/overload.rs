//! What keeps calls away from endpoints that fail them or have enough of them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::value::{Cap, Share};

/// When an endpoint takes no calls for a while since its transport fails them. A complete response
/// is never held against it, whatever its grpc-status: Tempo answers a client's missing tenant
/// with 14. A new connection that fails, one that is lost with calls on it, GOAWAY with an error
/// and a stream that the endpoint resets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ejection {
    /// Faults in a row, without a response between them, that eject an endpoint. Default: 5.
    pub consecutive: u32,
    /// The share of faults among the calls of ten seconds that ejects it; `"0%"` is never.
    /// Default: `"50%"`.
    pub share: Share,
    /// The calls that there must be within these ten seconds for `share` to count. Default: 20.
    pub min_calls: u32,
    /// How long the first ejection lasts at least; each further one twice as long as the one
    /// before, unless the endpoint was well for as long as that had lasted. It ends with the first
    /// probe that passes after its time. Default: 10s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub base_time: Duration,
    /// How long an ejection lasts at most. Default: 5m.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub max_time: Duration,
    /// The most endpoints that are ejected at a time, as a share rounded down: of one endpoint
    /// none. Nor are so many that fewer than `min_healthy` take calls. `"0%"` turns ejection off.
    /// Default: `"50%"`.
    pub max_ejected: Share,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            consecutive: 5,
            share: Share(50),
            min_calls: 20,
            base_time: Duration::from_secs(10),
            max_time: Duration::from_secs(5 * 60),
            max_ejected: Share(50),
        }
    }
}

/// How many calls an upstream takes at a time, over all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admission {
    /// Calls in flight on all endpoints together. Default: `unlimited`.
    pub max_in_flight: Cap,
    /// Calls in flight on one endpoint. Default: `unlimited`.
    pub max_in_flight_per_endpoint: Cap,
    /// Calls that wait for room; further ones are turned away with 14 and RetryInfo. Default: 1024.
    pub max_queue: u32,
    /// How long one waits before it is turned away. Default: 1s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub queue_timeout: Duration,
    /// Let the bound of each endpoint follow how long its calls take, up to
    /// `max_in_flight_per_endpoint`. For upstreams whose calls take about the same time each, as
    /// Export does; not for streams. Default: false.
    pub adaptive: bool,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            max_in_flight: Cap::Unlimited,
            max_in_flight_per_endpoint: Cap::Unlimited,
            max_queue: 1024,
            queue_timeout: Duration::from_secs(1),
            adaptive: false,
        }
    }
}
