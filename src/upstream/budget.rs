//! How many of an upstream's calls may be retries: a share, so that they do not add to the load of
//! backends that fail because of their load.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::config::Share;

/// The retries of one upstream that are in flight.
#[derive(Debug, Default)]
pub(super) struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// A place among them, where `share` of the calls in flight leaves one.
    pub(super) fn take(&self, share: Share, in_flight: usize) -> Option<Retrying> {
        let most = allowed(share, in_flight);
        let free = |retries: usize| (retries < most).then_some(retries + 1);
        self.0.fetch_update(Relaxed, Relaxed, free).ok()?;
        Some(Retrying(Arc::clone(&self.0)))
    }
}

/// A call's place among the retries, until it is dropped.
#[derive(Debug)]
pub struct Retrying(Arc<AtomicUsize>);

impl Drop for Retrying {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn allowed(share: Share, in_flight: usize) -> usize {
    (in_flight * usize::from(share.0) / 100).max(ALWAYS)
}

/// Where few calls are in flight a share of them is none.
const ALWAYS: usize = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_place_is_given_back() {
        let budget = Budget::default();
        let mut held: Vec<_> = (0..5).filter_map(|_| budget.take(Share(20), 10)).collect();
        assert_eq!(held.len(), ALWAYS);
        held.pop();
        assert!(budget.take(Share(20), 10).is_some());
    }

    proptest! {
        #[test]
        fn retries_are_never_more_than_their_share_and_the_few_that_always_may(
            share in 0..=100_u8,
            steps in prop::collection::vec((any::<bool>(), 0..2000_usize), 1..300),
        ) {
            let budget = Budget::default();
            let mut held = Vec::new();
            for (take, in_flight) in steps {
                let bound = (in_flight * usize::from(share)).div_ceil(100).max(ALWAYS);
                if !take {
                    held.pop();
                } else if let Some(place) = budget.take(Share(share), in_flight) {
                    held.push(place);
                    prop_assert!(held.len() <= bound);
                } else {
                    prop_assert!(held.len() + 1 >= bound);
                }
            }
        }
    }
}
