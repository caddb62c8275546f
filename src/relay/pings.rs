//! Signs of life that are asked for.

use super::{cause::Cause, link::Link, millis};
use crate::config::Limits;

/// When peers that are silent are asked for a sign of life, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pings {
    interval: u64,
    timeout: u64,
}

impl Pings {
    /// For endpoints.
    pub(super) fn of_endpoints(limits: &Limits) -> Self {
        Self {
            interval: millis(limits.upstream_ping_interval),
            timeout: millis(limits.upstream_ping_timeout),
        }
    }

    /// For clients.
    pub(super) fn of_clients(limits: &Limits) -> Self {
        Self {
            interval: millis(limits.client_ping_interval),
            timeout: millis(limits.client_ping_timeout),
        }
    }

    /// Asks a link with open streams for a sign of life, or gives it up. An endpoint that found
    /// this too often, `calm` times, is asked as often only as it may bear.
    pub(super) fn check(self, link: &mut Link, calm: u32, now: u64) {
        let interval = self.interval.saturating_mul(1 << calm);
        match link.pinged_at.filter(|pinged| link.heard_at < *pinged) {
            Some(pinged) if now - pinged >= self.timeout => link.abandon(Cause::Silent),
            Some(_) => {}
            None if now.saturating_sub(link.heard_at) >= interval => {
                link.pinged_at = Some(now);
                link.connection.ask(&mut link.out);
            }
            None => {}
        }
    }
}
