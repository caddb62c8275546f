//! When an endpoint takes no calls for a while since its transport fails them: what counts, and
//! for how long.

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::config;

/// How an endpoint failed a call, or a connection. A complete response is no fault, whatever its
/// grpc-status: Tempo answers a client's missing tenant with 14, and a tenant over its limits with 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No connection could be made.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// A stream, or the connection under a call, was reset.
    Reset,
    /// The connection ended by GOAWAY with an error.
    GoAway,
    /// The connection was closed under a call.
    Closed,
    /// Nothing came, or nothing was taken, for too long.
    Timeout,
}

impl Fault {
    /// As metrics and logs have it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Reset => "reset",
            Self::GoAway => "goaway",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// An ejection that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejected {
    /// The last fault before it.
    pub reason: Fault,
    /// From when on a probe that passes ends it.
    pub until: SystemTime,
}

/// One endpoint's faults and ejections.
#[derive(Debug, Clone, Default)]
pub(super) struct Ejector {
    window: Option<Window>,
    current: Option<(Ejected, Instant)>,
    /// Ejections since it was last well for long enough.
    times: u32,
    /// How long the last one was to take.
    lasted: Duration,
    ended: Option<Instant>,
}

/// A stretch of time that begins with a fault.
#[derive(Debug, Clone)]
struct Window {
    since: Instant,
    /// Calls that were started before it, of all that ever were.
    before: u32,
    /// Of connections, and of single streams.
    faults: u32,
    streams: u32,
    /// Whose calls these were on first, and whether they were of another client too.
    client: Option<IpAddr>,
    several: bool,
}

/// Where a fault was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// On a connection, the `row`th without a response between.
    Connection { row: u32 },
    /// On one stream, of a call of `client`.
    Stream { client: IpAddr },
}

impl Window {
    /// Counts a fault. Those of streams count once two clients have seen some.
    fn add(&mut self, source: Source) -> u32 {
        match source {
            Source::Connection { .. } => self.faults += 1,
            Source::Stream { client } => {
                self.streams += 1;
                self.several |= *self.client.get_or_insert(client) != client;
            }
        }
        self.faults + if self.several { self.streams } else { 0 }
    }
}

impl Ejector {
    /// Takes down a fault, when so many calls were ever started; whether the endpoint should be
    /// ejected.
    pub(super) fn fault(
        &mut self,
        rules: &config::Ejection,
        source: Source,
        started: u32,
        now: Instant,
    ) -> bool {
        let window = self.window.take();
        let going_on = window.filter(|window| now.saturating_duration_since(window.since) < WINDOW);
        let fresh = || Window {
            since: now,
            before: started.wrapping_sub(1),
            faults: 0,
            streams: 0,
            client: None,
            several: false,
        };
        let window = self.window.insert(going_on.unwrap_or_else(fresh));
        let faults = window.add(source);
        // A call that was started before may fail within.
        let calls = started.wrapping_sub(window.before).max(faults);
        let share = u64::from(rules.share.0);
        let too_many = share > 0
            && calls >= rules.min_calls
            && u64::from(faults) * 100 >= u64::from(calls) * share;
        let in_a_row = matches!(source, Source::Connection { row } if row >= rules.consecutive);
        in_a_row || too_many
    }

    /// Ejects the endpoint; for how long.
    pub(super) fn eject(
        &mut self,
        rules: &config::Ejection,
        reason: Fault,
        now: Instant,
    ) -> Duration {
        let calm = self.ended.map(|ended| now.saturating_duration_since(ended));
        if calm.is_some_and(|calm| calm >= self.lasted) {
            self.times = 0;
        }
        let doubled = 1_u32.checked_shl(self.times).unwrap_or(u32::MAX);
        self.lasted = rules.base_time.saturating_mul(doubled).min(rules.max_time);
        self.times += 1;
        let until = SystemTime::now() + self.lasted;
        self.current = Some((Ejected { reason, until }, now + self.lasted));
        self.window = None;
        self.lasted
    }

    /// Ends an ejection whose time has run out; whether there was one.
    pub(super) fn end(&mut self, now: Instant) -> bool {
        let due = self.current.is_some_and(|(_, until)| now >= until);
        due && self.cancel(now)
    }

    /// Ends an ejection; whether there was one.
    pub(super) fn cancel(&mut self, now: Instant) -> bool {
        let had = self.current.take().is_some();
        if had {
            self.ended = Some(now);
            self.window = None;
        }
        had
    }

    pub(super) fn current(&self) -> Option<Ejected> {
        self.current.map(|(ejected, _)| ejected)
    }
}

/// How long faults are counted together for their share of calls.
const WINDOW: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Share;

    const SECOND: Duration = Duration::from_secs(1);
    const ONE: Source = Source::Connection { row: 1 };

    #[test]
    fn streams_of_one_client_eject_nothing_and_those_of_two_do_as_a_share() {
        let (rules, now) = (config::Ejection::default(), Instant::now());
        let fails = |clients: u8| {
            let mut ejector = Ejector::default();
            (1..=100_u32).find(|call| {
                let client = IpAddr::from([127, 0, 0, (*call % u32::from(clients)) as u8]);
                ejector.fault(&rules, Source::Stream { client }, *call, now)
            })
        };
        assert_eq!((fails(1), fails(2)), (None, Some(20)));
    }

    #[test]
    fn as_many_faults_in_a_row_as_are_configured_eject() {
        let (rules, now) = (config::Ejection::default(), Instant::now());
        let mut ejector = Ejector::default();
        let due = (1..=6)
            .map(|row| ejector.fault(&rules, Source::Connection { row }, 0, now))
            .collect::<Vec<_>>();
        assert_eq!(due, [false, false, false, false, true, true]);
    }

    #[test]
    fn a_share_of_faults_ejects_once_there_are_enough_calls_within_ten_seconds() {
        let rules = config::Ejection::default();
        // Every second call fails, so that there are never two in a row.
        let fails = |every: Duration| {
            let (mut ejector, begun) = (Ejector::default(), Instant::now());
            (1..=100)
                .step_by(2)
                .find(|call| ejector.fault(&rules, ONE, *call, begun + every * *call))
        };
        assert_eq!(fails(SECOND / 10), Some(21));
        assert_eq!(fails(SECOND), None, "too few of them within the time");
    }

    #[test]
    fn ejections_double_up_to_their_bound_and_a_calm_time_forgets_them() {
        let rules = config::Ejection { max_time: 60 * SECOND, ..config::Ejection::default() };
        let (mut ejector, mut now) = (Ejector::default(), Instant::now());
        let mut lasted = Vec::new();
        for _ in 0..5 {
            let time = ejector.eject(&rules, Fault::Reset, now);
            assert!(!ejector.end(now + time - SECOND), "its time has not run out");
            now += time;
            assert!(ejector.end(now) && ejector.current().is_none());
            now += SECOND;
            lasted.push(time.as_secs());
        }
        assert_eq!(lasted, [10, 20, 40, 60, 60]);
        now += 58 * SECOND;
        assert_eq!(ejector.eject(&rules, Fault::Reset, now), 60 * SECOND);
        now += 60 * SECOND;
        assert!(ejector.end(now));
        now += 60 * SECOND;
        assert_eq!(ejector.eject(&rules, Fault::Reset, now), 10 * SECOND);
    }

    proptest! {
        #[test]
        fn fewer_faults_than_either_threshold_never_eject(
            share in 1_u8..=100,
            calls in prop::collection::vec((any::<bool>(), 0_u64..2000), 0..400),
        ) {
            let rules = config::Ejection { share: Share(share), ..config::Ejection::default() };
            let (mut ejector, mut now) = (Ejector::default(), Instant::now());
            let (mut row, mut started, mut all_faults) = (0, 0_u32, 0);
            for (fails, later) in calls {
                now += Duration::from_millis(later);
                started += 1;
                if !fails || row == 4 {
                    row = 0;
                    continue;
                }
                row += 1;
                all_faults += 1;
                let due = ejector.fault(&rules, Source::Connection { row }, started, now);
                // With so few faults no twenty calls can have had their share.
                prop_assert!(!due || all_faults * 100 >= 20 * u32::from(share));
            }
        }
    }
}
