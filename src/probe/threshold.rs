//! From single results to health: how many in a row it takes to rise and to fall.

use crate::upstream::Health;

/// Counts results in a row. Where nothing is known the first one alone decides.
#[derive(Debug)]
pub(super) struct Threshold {
    healthy: u32,
    unhealthy: u32,
    health: Health,
    against: u32,
}

impl Threshold {
    /// `healthy` passes in a row make an endpoint healthy, `unhealthy` failures unhealthy, and now
    /// it is what `health` says.
    pub(super) fn new(healthy: u32, unhealthy: u32, health: Health) -> Self {
        Self { healthy, unhealthy, health, against: 0 }
    }

    pub(super) fn health(&self) -> Health {
        self.health
    }

    /// Takes a result; the new health, where it changes by it.
    pub(super) fn record(&mut self, passed: bool) -> Option<Health> {
        let (says, needed) = match passed {
            true => (Health::Healthy, self.healthy),
            false => (Health::Unhealthy, self.unhealthy),
        };
        if says == self.health {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.health != Health::Unknown && self.against < needed {
            return None;
        }
        self.health = says;
        self.against = 0;
        Some(says)
    }

    /// Takes a failure that needs no others beside it; the new health, where it changes by it.
    pub(super) fn fall(&mut self) -> Option<Health> {
        let changes = self.health != Health::Unhealthy;
        self.health = Health::Unhealthy;
        self.against = 0;
        changes.then_some(Health::Unhealthy)
    }

    /// Forgets everything, so that the next result alone decides again.
    pub(super) fn forget(&mut self) {
        self.health = Health::Unknown;
        self.against = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_result_alone_decides() {
        assert_eq!(Threshold::new(2, 3, Health::Unknown).record(true), Some(Health::Healthy));
        assert_eq!(Threshold::new(2, 3, Health::Unknown).record(false), Some(Health::Unhealthy));
    }

    #[test]
    fn results_count_only_in_a_row() {
        let mut threshold = Threshold::new(2, 3, Health::Unknown);
        let results = [true, false, false, true, false, false, false, true, false, true, true];
        let changes: Vec<_> = results.map(|passed| threshold.record(passed)).into();
        let (up, down) = (Some(Health::Healthy), Some(Health::Unhealthy));
        let none = None;
        assert_eq!(changes, [up, none, none, none, none, none, down, none, none, none, up]);
    }

    #[test]
    fn a_fall_needs_no_row_and_a_rise_after_it_does() {
        let mut threshold = Threshold::new(2, 3, Health::Unknown);
        threshold.record(true);
        assert_eq!(threshold.fall(), Some(Health::Unhealthy));
        assert_eq!(threshold.fall(), None);
        assert_eq!(threshold.record(true), None);
        assert_eq!(threshold.record(true), Some(Health::Healthy));
    }

    #[test]
    fn what_was_forgotten_is_decided_by_the_next_result() {
        let mut threshold = Threshold::new(2, 3, Health::Unknown);
        threshold.record(false);
        threshold.forget();
        assert_eq!(threshold.health(), Health::Unknown);
        assert_eq!(threshold.record(true), Some(Health::Healthy));
    }

    proptest! {
        #[test]
        fn health_is_what_the_last_long_enough_run_said(
            rise in 1_u32..5,
            fall in 1_u32..5,
            results in prop::collection::vec(any::<bool>(), 1..60),
        ) {
            let mut threshold = Threshold::new(rise, fall, Health::Unknown);
            for end in 1..=results.len() {
                threshold.record(results[end - 1]);
                // The model looks back for the last run that was long enough; the first counts.
                let mut expected = results[0];
                for at in 0..end {
                    let needed = if results[at] { rise } else { fall } as usize;
                    let run = results[..=at].iter().rev().take_while(|r| **r == results[at]).count();
                    if run >= needed {
                        expected = results[at];
                    }
                }
                prop_assert_eq!(threshold.health() == Health::Healthy, expected);
            }
        }
    }
}
