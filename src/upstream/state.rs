//! What is known of an endpoint.

use std::{fmt, sync::Arc, time::SystemTime};

use super::History;

/// What is known of an endpoint.
#[derive(Debug, Clone)]
pub struct State {
    /// As the thresholds have it.
    pub health: Health,
    /// Why it is not healthy: what the last failed probe saw. Empty where it is.
    pub reason: Arc<str>,
    /// What to know of its probes whatever its health, such as that it has no Watch; else empty.
    pub note: Arc<str>,
    /// Since when `health` is what it is.
    pub since: SystemTime,
    /// Its last changes.
    pub history: History<Health>,
}

/// Whether an endpoint takes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Not probed yet, or not for too long.
    Unknown,
    /// It takes calls.
    Healthy,
    /// It does not.
    Unhealthy,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        })
    }
}
