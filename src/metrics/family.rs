//! A metric for each set of labels, which is forgotten when what it names is gone.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, RwLock},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder},
    metrics::{MetricType, TypedMetric},
};

/// Metrics by their labels; clones share them. prometheus-client's own cannot say which labels it
/// has, so nothing could be taken out of it when a configuration no longer names it.
#[derive(Debug)]
pub struct Family<S, M> {
    metrics: Arc<RwLock<HashMap<S, M>>>,
    make: fn() -> M,
}

impl<S: Clone + Eq + Hash, M: Clone> Family<S, M> {
    /// Without metrics; `make` makes one.
    pub(super) fn new(make: fn() -> M) -> Self {
        Self { metrics: Arc::default(), make }
    }

    /// The metric of these labels. One that was forgotten counts on for those who hold it, unseen.
    pub fn get_or_create(&self, labels: &S) -> M {
        let known = self.metrics.read().expect(UNPOISONED).get(labels).cloned();
        known.unwrap_or_else(|| {
            let mut metrics = self.metrics.write().expect(UNPOISONED);
            metrics.entry(labels.clone()).or_insert_with(self.make).clone()
        })
    }

    /// Forgets the labels that `kept` does not admit.
    pub(super) fn retain(&self, kept: impl Fn(&S) -> bool) {
        self.metrics.write().expect(UNPOISONED).retain(|labels, _| kept(labels));
    }
}

impl<S, M: Default> Default for Family<S, M> {
    fn default() -> Self {
        Self { metrics: Arc::default(), make: M::default }
    }
}

impl<S, M> Clone for Family<S, M> {
    fn clone(&self) -> Self {
        Self { metrics: Arc::clone(&self.metrics), make: self.make }
    }
}

impl<S, M> EncodeMetric for Family<S, M>
where
    S: EncodeLabelSet,
    M: EncodeMetric + TypedMetric,
{
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for (labels, metric) in self.metrics.read().expect(UNPOISONED).iter() {
            metric.encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }

    fn is_empty(&self) -> bool {
        self.metrics.read().expect(UNPOISONED).is_empty()
    }
}

const UNPOISONED: &str = "no holder of this lock panics";
