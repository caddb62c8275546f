//! What is counted of those that are turned away, or ended for what they do.

use prometheus_client::{metrics::counter::Counter, registry::Registry};

use super::{EndedLabels, Family, RefusedLabels, Text};

/// Of clients that are turned away, and of connections and streams that are ended for what their
/// peers do; each by its reason.
#[derive(Debug, Clone, Default)]
pub struct RefusalsMetrics {
    /// Client connections closed before anything was asked on them.
    pub connections_refused: Family<RefusedLabels, Counter>,
    /// Client connections ended for what their clients did.
    pub connections_ended: Family<RefusedLabels, Counter>,
    /// Streams ended for what their client or their endpoint did.
    pub streams_cut: Family<RefusedLabels, Counter>,
    /// Calls kept back until their requests are whole.
    pub calls_held_back: Family<RefusedLabels, Counter>,
    /// Calls and health checks turned away for who asked them.
    pub denied: Family<RefusedLabels, Counter>,
    /// Connections to an endpoint ended for what it did.
    pub upstream_connections_ended: Family<EndedLabels, Counter>,
}

impl RefusalsMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let mut add = |name, help, family: &Family<RefusedLabels, Counter>| {
            registry.register(name, help, family.clone());
        };
        add(
            "connections_refused",
            "Client connections closed before anything was asked on them, by the reason",
            &self.connections_refused,
        );
        add(
            "connections_ended",
            "Client connections ended for what their clients did, by the reason",
            &self.connections_ended,
        );
        add(
            "streams_cut",
            "Streams ended for what their client or their endpoint did, by the reason",
            &self.streams_cut,
        );
        add(
            "calls_held_back",
            "Calls kept back until their requests were whole, or for a second, by the reason",
            &self.calls_held_back,
        );
        add("denied", "Calls turned away for who makes them, by the reason", &self.denied);
        registry.register(
            "upstream_connections_ended",
            "Connections to an endpoint ended for what it did, by the reason",
            self.upstream_connections_ended.clone(),
        );
    }

    pub(super) fn retain(&self, kept: impl Fn(&Text) -> bool) {
        let of = |it: &RefusedLabels| kept(&it.listener);
        self.connections_refused.retain(of);
        self.connections_ended.retain(of);
        self.streams_cut.retain(of);
        self.denied.retain(of);
        self.calls_held_back.retain(of);
    }

    pub(super) fn retain_endpoints(&self, kept: impl Fn(&Text, &Text) -> bool) {
        self.upstream_connections_ended.retain(|it| kept(&it.upstream, &it.endpoint));
    }
}
