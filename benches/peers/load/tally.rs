//! What was counted and how long it took.

use std::collections::BTreeMap;

use crate::frame::Fault;

/// Counts of one run.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) answers: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    /// How many took how long, each bucket within 1.6 % of its neighbours.
    buckets: Vec<u64>,
}

/// Buckets for each power of two, as bits.
const FINE: u32 = 6;

impl Tally {
    pub(crate) fn new() -> Self {
        Self { answers: 0, errors: BTreeMap::new(), buckets: vec![0; bucket(u64::MAX) + 1] }
    }

    pub(crate) fn answer(&mut self, nanoseconds: u64) {
        self.answers += 1;
        self.buckets[bucket(nanoseconds)] += 1;
    }

    pub(crate) fn error(&mut self, why: Fault, count: u64) {
        *self.errors.entry(why.to_owned()).or_default() += count;
    }

    /// The time that so many of a thousand answers took at most, in milliseconds.
    pub(crate) fn quantile(&self, of_1000: u64) -> f64 {
        let wanted = (self.answers * of_1000).div_ceil(1000);
        let mut seen = 0;
        let reaches = |count: &u64| {
            seen += count;
            seen >= wanted
        };
        let at = self.buckets.iter().position(reaches).unwrap_or_default();
        floor(at + 1) as f64 / 1e6
    }
}

fn bucket(value: u64) -> usize {
    let shift = (64 - FINE).saturating_sub(value.leading_zeros() + 1);
    ((shift as usize) << FINE) + (value >> shift) as usize
}

/// The smallest value of a bucket.
fn floor(bucket: usize) -> u64 {
    let shift = (bucket >> FINE).saturating_sub(1);
    ((bucket - (shift << FINE)) as u64) << shift
}
