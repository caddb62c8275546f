//! What is counted of the keys that tokens are checked by.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::{Family, ListenerLabels, Text};

/// Of the keys that are fetched for listeners.
#[derive(Debug, Clone, Default)]
pub struct KeysMetrics {
    /// Fetches, by what came of them.
    pub fetches: Family<FetchLabels, Counter>,
    /// When they were fetched last, in seconds since 1970.
    pub last_success: Family<ListenerLabels, Gauge>,
}

/// Labels of a fetch of keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FetchLabels {
    /// The listener's name.
    pub listener: Text,
    /// `changed`, `unchanged` or `failed`.
    pub result: &'static str,
}

impl KeysMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Fetches of the keys that tokens are checked by, by their result";
        registry.register("jwks_fetches", help, self.fetches.clone());
        let help = "When such keys were fetched last, since 1970";
        let name = "jwks_last_success_timestamp";
        registry.register_with_unit(name, help, Unit::Seconds, self.last_success.clone());
    }

    pub(super) fn retain(&self, kept: impl Fn(&Text) -> bool) {
        self.fetches.retain(|it| kept(&it.listener));
        self.last_success.retain(|it| kept(&it.listener));
    }
}
