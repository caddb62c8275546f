//! What the log was told of, so that it is told the first and then little.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

/// What was logged of each kind, of which there are few.
#[derive(Debug)]
pub(super) struct Told<K>(Mutex<Vec<Kind<K>>>);

#[derive(Debug)]
struct Kind<K> {
    key: K,
    at: Instant,
    untold: u64,
}

impl<K> Default for Told<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + PartialEq> Told<K> {
    /// Notes one more. Where it is to be logged, says how many were not since the last one that
    /// was.
    pub(super) fn note(&self, key: &K, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().expect("no holder of this lock panics");
        let Some(kind) = all.iter_mut().find(|kind| kind.key == *key) else {
            all.push(Kind { key: key.clone(), at: now, untold: 0 });
            return Some(0);
        };
        if now.saturating_duration_since(kind.at) < PAUSE {
            kind.untold += 1;
            return None;
        }
        kind.at = now;
        Some(std::mem::take(&mut kind.untold))
    }

    /// Kinds with some that were not logged and that none has followed for a while, and how many.
    pub(super) fn overdue(&self, now: Instant) -> Vec<(K, u64)> {
        let mut all = self.0.lock().expect("no holder of this lock panics");
        let late = |at: Instant| now.saturating_duration_since(at) >= PAUSE;
        let due = all.iter_mut().filter(|kind| kind.untold > 0 && late(kind.at));
        let due = due.map(|kind| {
            kind.at = now;
            (kind.key.clone(), std::mem::take(&mut kind.untold))
        });
        due.collect()
    }
}

/// Between two lines of one kind.
const PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_kind_is_told_at_once_and_then_one_in_ten_seconds() {
        let (told, begin) = (Told::default(), Instant::now());
        let note = |key, seconds| told.note(&key, begin + Duration::from_secs(seconds));
        assert_eq!((note("a", 0), note("a", 0), note("a", 9)), (Some(0), None, None));
        assert_eq!((note("b", 9), note("b", 10)), (Some(0), None));
        assert_eq!((note("a", 10), note("a", 11)), (Some(2), None));
        assert_eq!((note("a", 60), note("a", 90)), (Some(1), Some(0)));
        assert_eq!(told.0.lock().unwrap().len(), 2);
    }

    #[test]
    fn those_that_nothing_follows_are_told_later() {
        let (told, begin) = (Told::default(), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        for key in ["a", "a", "a", "b"] {
            told.note(&key, begin);
        }
        assert_eq!(told.overdue(after(9)), []);
        assert_eq!(told.overdue(after(10)), [("a", 2)]);
        assert_eq!(told.note(&"a", after(11)), None);
        assert_eq!((told.overdue(after(11)), told.overdue(after(20))), (vec![], vec![("a", 1)]));
    }
}
