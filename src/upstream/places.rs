//! Places that are few: for retries.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::config::Share;

/// How many are taken.
#[derive(Debug, Default)]
pub(super) struct Places(Arc<AtomicUsize>);

impl Places {
    /// One more, where that makes no more than `most`.
    pub(super) fn take(&self, most: usize) -> Option<Place> {
        let free = |taken: usize| (taken < most).then_some(taken + 1);
        self.0.fetch_update(Relaxed, Relaxed, free).ok()?;
        Some(Place(Arc::clone(&self.0)))
    }
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// How many of the calls in flight may be retries: a share, so that they do not add to the load of
/// backends that fail because of their load. Where few are in flight a share of them is none.
pub(super) fn budget(share: Share, in_flight: usize) -> usize {
    (in_flight * usize::from(share.0) / 100).max(ALWAYS)
}

const ALWAYS: usize = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_place_is_given_back() {
        let places = Places::default();
        let mut held: Vec<_> = (0..5).filter_map(|_| places.take(3)).collect();
        assert_eq!(held.len(), 3);
        held.pop();
        assert!(places.take(3).is_some());
    }

    proptest! {
        #[test]
        fn retries_are_never_more_than_their_share_and_the_few_that_always_may(
            share in 0..=100_u8,
            steps in prop::collection::vec((any::<bool>(), 0..2000_usize), 1..300),
        ) {
            let places = Places::default();
            let mut held = Vec::new();
            for (take, in_flight) in steps {
                let bound = (in_flight * usize::from(share)).div_ceil(100).max(ALWAYS);
                if !take {
                    held.pop();
                } else if let Some(place) = places.take(budget(Share(share), in_flight)) {
                    held.push(place);
                    prop_assert!(held.len() <= bound);
                } else {
                    prop_assert!(held.len() + 1 >= bound);
                }
            }
        }
    }
}
