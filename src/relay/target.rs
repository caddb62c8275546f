//! Where a listener's calls go: the upstreams, and the ways to them.

use std::sync::Arc;

use prometheus_client::metrics::{gauge::Gauge, histogram::Histogram};

use super::{late::LOOK, millis};
use crate::{
    config::Policy,
    metrics::{Metrics, RouteLabels, Text},
    upstream::Upstream,
};

/// One upstream of a listener, and what its calls are counted by; made once, since each one moves
/// them.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) upstream: Arc<Upstream>,
    pub(super) duration: Histogram,
    pub(super) streams: Gauge,
}

impl Target {
    pub(super) fn new(listener: &Text, upstream: Arc<Upstream>, metrics: &Metrics) -> Self {
        let labels =
            RouteLabels { listener: listener.clone(), upstream: (&**upstream.name()).into() };
        Self {
            duration: metrics.request_duration.get_or_create(&labels),
            streams: metrics.streams.get_or_create(&labels),
            upstream,
        }
    }
}

/// What a route leads to: targets by their index and weight, and how calls on it are treated.
#[derive(Debug)]
pub(super) struct Way {
    targets: Vec<(u16, u32)>,
    weight: u32,
    pub(super) policy: Policy,
    /// The shortest of the policy's times, in milliseconds, and no more than [`LOOK`].
    look: u64,
}

impl Way {
    pub(super) fn new(targets: Vec<(u16, u32)>, policy: Policy) -> Self {
        let Policy { connect_timeout, response_timeout, idle_timeout, call_timeout, .. } = policy;
        let times = [connect_timeout, response_timeout, idle_timeout, call_timeout];
        let look = times.into_iter().flatten().map(millis).fold(LOOK, u64::min);
        let weight = targets.iter().map(|(_, weight)| weight).sum();
        Self { targets, weight, policy, look }
    }

    /// How soon a call on it may be late, in milliseconds.
    pub(super) fn look(&self) -> u64 {
        self.look
    }

    /// A target by chance, as the weights have it.
    pub(super) fn choose(&self) -> Option<u16> {
        match *self.targets.as_slice() {
            [(only, _)] => Some(only),
            _ => self.at(fastrand::u32(..self.weight.max(1))),
        }
    }

    fn at(&self, mut place: u32) -> Option<u16> {
        let target = self.targets.iter().find(|(_, weight)| {
            let here = place < *weight;
            place = place.saturating_sub(*weight);
            here
        });
        target.map(|(target, _)| *target)
    }

    /// A target beside those that had nothing for the call, the heaviest first.
    pub(super) fn beside(&self, passed: &[u16]) -> Option<u16> {
        let left = self.targets.iter().filter(|(target, _)| !passed.contains(target));
        left.max_by_key(|(_, weight)| *weight).map(|(target, _)| *target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_their_share_by_weight() {
        let way = Way::new(vec![(7, 0), (8, 1), (9, 3)], Policy::default());
        let all: Vec<_> = (0..5).map(|place| way.at(place)).collect();
        assert_eq!(all, [Some(8), Some(9), Some(9), Some(9), None]);
        assert!((0..100).all(|_| matches!(way.choose(), Some(8 | 9))));
    }

    #[test]
    fn what_is_left_is_taken_by_weight_and_one_without_comes_last() {
        let way = Way::new(vec![(7, 0), (8, 1), (9, 3)], Policy::default());
        assert_eq!(way.beside(&[]), Some(9));
        assert_eq!(way.beside(&[9]), Some(8));
        assert_eq!(way.beside(&[9, 8]), Some(7));
        assert_eq!(way.beside(&[9, 8, 7]), None);
    }
}
