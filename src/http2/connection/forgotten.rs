//! Streams that this end reset.

use std::collections::{HashSet, VecDeque};

use crate::http2::identity::ByIdentity;

/// Streams that this end reset a short while ago: what still comes on them is no fault.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    /// The oldest first.
    order: VecDeque<u32>,
    known: HashSet<u32, ByIdentity>,
}

impl Forgotten {
    /// Adds one, in the place of the oldest where there are `most`.
    pub(super) fn add(&mut self, id: u32, most: usize) {
        if self.order.len() >= most
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(id);
        self.known.insert(id);
    }

    /// Whether it is one of them.
    pub(super) fn contains(&self, id: u32) -> bool {
        self.known.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let mut forgotten = Forgotten::default();
        (1..=4).for_each(|id| forgotten.add(id, 3));
        assert_eq!([1, 2, 3, 4].map(|id| forgotten.contains(id)), [false, true, true, true]);
        assert_eq!((forgotten.order.len(), forgotten.known.len()), (3, 3));
    }
}
