//! What the log says of those that are turned away: enough to see why, and no more than that,
//! since anybody can be turned away as often as they like.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

/// The refusals of one listener.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Vec<Told>>);

/// Those of one reason, of which there are few.
#[derive(Debug)]
struct Told {
    reason: &'static str,
    at: Instant,
    untold: u64,
}

impl Refusals {
    /// Notes one more. Where it is to be logged, says how many were not since the last one that
    /// was.
    pub(super) fn note(&self, reason: &'static str, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().expect("no holder of this lock panics");
        let Some(told) = all.iter_mut().find(|told| told.reason == reason) else {
            all.push(Told { reason, at: now, untold: 0 });
            return Some(0);
        };
        if now.saturating_duration_since(told.at) < PAUSE {
            told.untold += 1;
            return None;
        }
        told.at = now;
        Some(std::mem::take(&mut told.untold))
    }

    /// Reasons with refusals that were not logged and that none has followed for a while, and how
    /// many.
    pub(super) fn overdue(&self, now: Instant) -> Vec<(&'static str, u64)> {
        let mut all = self.0.lock().expect("no holder of this lock panics");
        let is =
            |told: &&mut Told| told.untold > 0 && now.saturating_duration_since(told.at) >= PAUSE;
        let due = all.iter_mut().filter(is).map(|told| {
            told.at = now;
            (told.reason, std::mem::take(&mut told.untold))
        });
        due.collect()
    }
}

/// Between two lines of one reason.
const PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_reason_is_told_at_once_and_then_one_in_ten_seconds() {
        let (refusals, begin) = (Refusals::default(), Instant::now());
        let note = |reason, seconds| refusals.note(reason, begin + Duration::from_secs(seconds));
        assert_eq!((note("a", 0), note("a", 0), note("a", 9)), (Some(0), None, None));
        assert_eq!((note("b", 9), note("b", 10)), (Some(0), None));
        assert_eq!((note("a", 10), note("a", 11)), (Some(2), None));
        assert_eq!((note("a", 60), note("a", 90)), (Some(1), Some(0)));
        assert_eq!(refusals.0.lock().unwrap().len(), 2);
    }

    #[test]
    fn those_that_nothing_follows_are_told_later() {
        let (refusals, begin) = (Refusals::default(), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        for reason in ["a", "a", "a", "b"] {
            refusals.note(reason, begin);
        }
        assert_eq!(refusals.overdue(after(9)), []);
        assert_eq!(refusals.overdue(after(10)), [("a", 2)]);
        assert_eq!(refusals.note("a", after(11)), None);
        assert_eq!(
            (refusals.overdue(after(11)), refusals.overdue(after(20))),
            (vec![], vec![("a", 1)])
        );
    }
}
