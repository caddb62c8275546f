//! What one run of a cell against a subject gave.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The figures of one run, or of several folded into one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Calls, or messages there and back, that ended well in the window.
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
    /// User and system time of the proxy's processes for each.
    pub(crate) cpu_micros: Option<f64>,
    /// From when a call was meant to start to its last trailer.
    pub(crate) latency_ms: Option<Latency>,
    /// The most resident memory of the proxy's processes.
    pub(crate) peak_kib: u64,
    /// Resident memory that each idle connection added.
    pub(crate) kib_per_connection: Option<f64>,
    pub(crate) errors: BTreeMap<String, u64>,
}

/// Quantiles of latency, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

impl Outcome {
    /// A run that could not be made.
    pub(crate) fn failed(why: &str) -> Self {
        Self { errors: BTreeMap::from([(why.to_owned(), 1)]), ..Self::default() }
    }

    /// The medians of several runs; the worst peak, and all errors.
    pub(crate) fn fold(runs: &[Self]) -> Self {
        let median_of = |figure: &dyn Fn(&Self) -> Option<f64>| median(runs, figure);
        let latency = |figure: fn(&Latency) -> f64| {
            median_of(&|run| run.latency_ms.as_ref().map(figure)).unwrap_or_default()
        };
        let mut errors = BTreeMap::new();
        for (why, count) in runs.iter().flat_map(|run| &run.errors) {
            *errors.entry(why.clone()).or_default() += count;
        }
        let any_latency = runs.iter().any(|run| run.latency_ms.is_some());
        Self {
            requests: runs.iter().map(|run| run.requests).sum(),
            per_second: median_of(&|run| Some(run.per_second)).unwrap_or_default(),
            cpu_micros: median_of(&|run| run.cpu_micros),
            latency_ms: any_latency.then(|| Latency {
                p50: latency(|run| run.p50),
                p99: latency(|run| run.p99),
                p999: latency(|run| run.p999),
            }),
            peak_kib: runs.iter().map(|run| run.peak_kib).max().unwrap_or_default(),
            kib_per_connection: median_of(&|run| run.kib_per_connection),
            errors,
        }
    }

    pub(crate) fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// The middle, or the mean of the two in the middle.
fn median(runs: &[Outcome], figure: &dyn Fn(&Outcome) -> Option<f64>) -> Option<f64> {
    let mut figures: Vec<f64> = runs.iter().filter_map(figure).collect();
    figures.sort_by(f64::total_cmp);
    let upper = *figures.get(figures.len() / 2)?;
    let lower = figures[(figures.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}
