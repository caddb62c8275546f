//! Connections to endpoints that this end gave up for what the endpoint did.

use std::{fmt::Display, net::SocketAddr};

use tokio::time::Instant;
use tracing::warn;

use super::told::Told;
use crate::metrics::{EndedLabels, Metrics, Text};

/// The connections of one worker that were given up: counted, and told in the log.
#[derive(Debug)]
pub struct GivenUp {
    metrics: Metrics,
    told: Told<(Text, &'static str)>,
}

impl GivenUp {
    /// None so far.
    pub fn new(metrics: &Metrics) -> Self {
        Self { metrics: metrics.clone(), told: Told::default() }
    }

    /// Counts one; `why` is for the log.
    pub fn add(
        &self,
        upstream: &str,
        endpoint: SocketAddr,
        reason: &'static str,
        why: impl Display,
    ) {
        let upstream: Text = upstream.into();
        if let Some(unlogged) = self.told.note(&(upstream.clone(), reason), Instant::now()) {
            let upstream = &upstream.0;
            warn!(%upstream, %endpoint, reason, %why, unlogged, "connection to an endpoint ended");
        }
        let endpoint = endpoint.to_string().as_str().into();
        let labels = EndedLabels { upstream, endpoint, reason };
        self.metrics.refusals.upstream_connections_ended.get_or_create(&labels).inc();
    }

    /// Logs how many were given up unlogged, where none has followed in whose line it would be.
    pub fn tell(&self) {
        for ((upstream, reason), unlogged) in self.told.overdue(Instant::now()) {
            let upstream = &upstream.0;
            warn!(%upstream, reason, unlogged, "more connections to endpoints ended");
        }
    }
}
