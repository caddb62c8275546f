//! The last transitions of a state, with their time and evidence.

use std::{sync::Arc, time::SystemTime};

/// A change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition<T> {
    /// When it was seen.
    pub at: SystemTime,
    /// From what.
    pub from: T,
    /// To what.
    pub to: T,
    /// What it was concluded from; empty where a state became well.
    pub evidence: Arc<str>,
}

/// The last few transitions, the newest first. Clones share it.
#[derive(Debug, Clone, PartialEq)]
pub struct History<T>(Arc<[Transition<T>]>);

impl<T: Clone + PartialEq> History<T> {
    /// Adds a transition, and forgets the oldest one where there are too many.
    pub fn record(&mut self, from: T, to: T, evidence: Arc<str>) {
        let newest = Transition { at: SystemTime::now(), from, to, evidence };
        self.0 = std::iter::once(newest).chain(self.0.iter().cloned()).take(KEPT).collect();
    }

    /// The transitions, the newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Transition<T>> {
        self.0.iter()
    }
}

impl<T> Default for History<T> {
    fn default() -> Self {
        Self(Arc::new([]))
    }
}

/// How many are kept.
const KEPT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_transitions_are_kept_and_no_more() {
        let mut history = History::default();
        for number in 0..100 {
            history.record(number, number + 1, "".into());
        }
        let seen: Vec<_> = history.iter().map(|transition| transition.from).collect();
        assert_eq!(seen, (84..100).rev().collect::<Vec<_>>());
    }
}
