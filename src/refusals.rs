//! Those that are turned away: counted, and told in the log, enough to see why and no more than that,
//! since anybody can be turned away as often as they like.

use std::{net::IpAddr, sync::Mutex, time::Duration};

use tokio::time::Instant;
use tracing::warn;

use crate::metrics::{Metrics, RefusedLabels, Text};

/// The refusals of one listener.
#[derive(Debug)]
pub struct Refusals {
    listener: Text,
    metrics: Metrics,
    told: Told,
}

/// What was logged of each reason, of which there are few.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<Reason>>);

#[derive(Debug)]
struct Reason {
    word: &'static str,
    at: Instant,
    untold: u64,
}

impl Refusals {
    /// Of the listener of this name, or of `admin`.
    pub fn new(listener: Text, metrics: &Metrics) -> Self {
        Self { listener, metrics: metrics.clone(), told: Told::default() }
    }

    /// Counts a call, or a request, that is turned away for who makes it.
    pub fn denied(&self, client: Option<IpAddr>, reason: &'static str) {
        if let Some(unlogged) = self.told.note(reason, Instant::now()) {
            // As itself, on a socket of IPv6 too.
            let client = client.map(|it| tracing::field::display(it.to_canonical()));
            warn!(listener = %self.listener.0, client, reason, unlogged, "call denied");
        }
        self.metrics.denied.get_or_create(&self.labels(reason)).inc();
    }

    /// Counts a connection that is closed before anything is asked on it. `why` is for the log.
    pub fn refused(&self, client: IpAddr, reason: &'static str, why: &str) {
        if let Some(unlogged) = self.told.note(reason, Instant::now()) {
            // A part of it may be the client's own words.
            let why = format_args!("{why:.200}");
            let (listener, client) = (&self.listener.0, client.to_canonical());
            warn!(%listener, %client, reason, %why, unlogged, "connection refused");
        }
        self.metrics.connections_refused.get_or_create(&self.labels(reason)).inc();
    }

    /// Logs how many were turned away unlogged, where none has followed in whose line it would be.
    pub fn tell(&self) {
        for (reason, unlogged) in self.told.overdue(Instant::now()) {
            warn!(listener = %self.listener.0, reason, unlogged, "more turned away");
        }
    }

    fn labels(&self, reason: &'static str) -> RefusedLabels {
        RefusedLabels { listener: self.listener.clone(), reason }
    }
}

impl Told {
    /// Notes one more. Where it is to be logged, says how many were not since the last one that
    /// was.
    fn note(&self, word: &'static str, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().expect("no holder of this lock panics");
        let Some(reason) = all.iter_mut().find(|reason| reason.word == word) else {
            all.push(Reason { word, at: now, untold: 0 });
            return Some(0);
        };
        if now.saturating_duration_since(reason.at) < PAUSE {
            reason.untold += 1;
            return None;
        }
        reason.at = now;
        Some(std::mem::take(&mut reason.untold))
    }

    /// Reasons with refusals that were not logged and that none has followed for a while, and how
    /// many.
    fn overdue(&self, now: Instant) -> Vec<(&'static str, u64)> {
        let mut all = self.0.lock().expect("no holder of this lock panics");
        let late = |at: Instant| now.saturating_duration_since(at) >= PAUSE;
        let due = all.iter_mut().filter(|reason| reason.untold > 0 && late(reason.at));
        let due = due.map(|reason| {
            reason.at = now;
            (reason.word, std::mem::take(&mut reason.untold))
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
        let (refusals, begin) = (Told::default(), Instant::now());
        let note = |reason, seconds| refusals.note(reason, begin + Duration::from_secs(seconds));
        assert_eq!((note("a", 0), note("a", 0), note("a", 9)), (Some(0), None, None));
        assert_eq!((note("b", 9), note("b", 10)), (Some(0), None));
        assert_eq!((note("a", 10), note("a", 11)), (Some(2), None));
        assert_eq!((note("a", 60), note("a", 90)), (Some(1), Some(0)));
        assert_eq!(refusals.0.lock().unwrap().len(), 2);
    }

    #[test]
    fn those_that_nothing_follows_are_told_later() {
        let (refusals, begin) = (Told::default(), Instant::now());
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
