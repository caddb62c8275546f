//! What is counted of the process itself.

use prometheus_client::{encoding::EncodeLabelSet, metrics::counter::Counter, registry::Registry};

use super::{Family, Text};

/// Of the process and its threads.
#[derive(Debug, Clone, Default)]
pub struct MachineMetrics {
    /// Log lines that found no room, or could not be written. Set when metrics are shown.
    pub log_lines_dropped: Counter,
    /// Times that a thread stood still for too long.
    pub stalls: Family<ThreadLabels, Counter>,
}

/// Labels of a thread.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ThreadLabels {
    /// `control`, or `worker-` and its number.
    pub thread: Text,
}

impl MachineMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Log lines dropped since standard error did not take them";
        registry.register("log_lines_dropped", help, self.log_lines_dropped.clone());
        let help = "Times that a thread of the proxy stood still for two seconds";
        registry.register("thread_stalls", help, self.stalls.clone());
    }
}
