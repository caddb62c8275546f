//! How long it is from one probe to the next, and how many may come out of turn.

use std::time::Duration;

use tokio::time::Instant;

use super::verdict::Finding;
use crate::upstream::Health;

/// The pause between probes. An endpoint that has become unhealthy may be one that restarts, and one
/// that passes again needs more of that to be used: in a rollout the next one goes meanwhile, and
/// with the interval alone all of them would be out at the same time. One that stays down is soon
/// probed at the interval again.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// Failed probes since the pause was shortest.
    failures: u32,
    outage: Option<Outage>,
    /// Returns that may be quick: one that comes and goes without end is not hurried along.
    returns: Allowance,
    pause: Duration,
}

/// An outage whose end is told quickly.
#[derive(Debug, Clone, Copy)]
struct Outage {
    /// Since when connecting is refused; for one that ends by a Watch's word, since then.
    since: Instant,
}

impl Pace {
    pub(super) fn new(interval: Duration) -> Self {
        let returns = Allowance::new(RETURNS, RETURN_EACH);
        Self { interval, failures: 0, outage: None, returns, pause: interval }
    }

    /// Between the last probe's start and the next one's.
    pub(super) fn pause(&self) -> Duration {
        self.pause
    }

    /// Takes what a probe found, and what it made of the endpoint's health.
    pub(super) fn note(&mut self, health: Health, finding: &Finding, now: Instant) {
        if health != Health::Unhealthy {
            (self.failures, self.outage, self.pause) = (0, None, self.interval);
            return;
        }
        let pause = match finding {
            Finding::Passed => {
                self.failures = 0;
                if self.outage.is_some() { RISE } else { SOON }
            }
            Finding::Refused(_) => {
                if self.outage.is_none() && self.failures == 0 {
                    self.hurry(now);
                }
                match self.outage {
                    Some(outage) if now < outage.since + EAGER => KNOCK,
                    _ => self.slower(),
                }
            }
            _ => {
                self.outage = None;
                self.slower()
            }
        };
        self.pause = pause.min(self.interval);
    }

    /// Makes the end of this outage quick, as far as that is allowed: it is known to have come, or
    /// costs little to look for.
    pub(super) fn hurry(&mut self, now: Instant) {
        if self.outage.is_none() && self.returns.take(now) {
            self.outage = Some(Outage { since: now });
        }
    }

    /// The pause after one more failure.
    fn slower(&mut self) -> Duration {
        let pause = SOON.saturating_mul(1 << self.failures.min(20));
        self.failures += 1;
        pause
    }
}

/// How many times something may happen at once; one more with each period. So a peer that takes
/// connections and closes them, or that changes its mind without end, is probed at about twice the
/// usual rate and not in a hot loop.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    most: u32,
    period: Duration,
    counted: Option<Instant>,
}

impl Allowance {
    pub(super) fn new(most: u32, period: Duration) -> Self {
        Self { left: most, most, period, counted: None }
    }

    /// Takes one; false where there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let counted = *self.counted.get_or_insert(now);
        let periods = (now - counted).as_nanos() / self.period.as_nanos().max(1);
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(periods).min(self.most);
        // What is left of a period counts for the next one.
        self.counted = Some(counted + self.period.saturating_mul(periods));
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

/// To the first probe of an endpoint that has become unhealthy, doubled with each that fails.
const SOON: Duration = Duration::from_millis(250);
/// Between probes while connecting is refused, for as long as [`EAGER`].
const KNOCK: Duration = Duration::from_millis(100);
const EAGER: Duration = Duration::from_secs(10);
/// Between the passes of an endpoint that listens again, or that says itself that it serves.
const RISE: Duration = Duration::from_millis(30);
/// Quick returns in a row, and how often there is one more.
const RETURNS: u32 = 4;
const RETURN_EACH: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: Health = Health::Healthy;
    const UNHEALTHY: Health = Health::Unhealthy;

    /// The pauses after such findings, in milliseconds, one each second.
    fn pauses<const N: usize>(
        pace: &mut Pace,
        health: Health,
        findings: [Finding; N],
    ) -> [u128; N] {
        let mut now = Instant::now();
        findings.map(|finding| {
            pace.note(health, &finding, now);
            now += Duration::from_secs(1);
            pace.pause().as_millis()
        })
    }

    fn failed() -> Finding {
        Finding::Failed(String::new())
    }

    fn refused() -> Finding {
        Finding::Refused(String::new())
    }

    #[test]
    fn an_unhealthy_endpoint_is_probed_soon_and_then_more_and_more_seldom() {
        let mut pace = Pace::new(Duration::from_secs(5));
        assert_eq!(pauses(&mut pace, HEALTHY, [Finding::Passed, failed()]), [5000; 2]);
        let failing = pauses(&mut pace, UNHEALTHY, [(); 7].map(|()| failed()));
        assert_eq!(failing, [250, 500, 1000, 2000, 4000, 5000, 5000]);
        let passed = || Finding::Passed;
        let returning = pauses(&mut pace, UNHEALTHY, [passed(), passed(), failed(), failed()]);
        assert_eq!(returning, [250, 250, 250, 500]);
        assert_eq!(pauses(&mut pace, HEALTHY, [passed()]), [5000]);
        assert_eq!(pauses(&mut pace, UNHEALTHY, [failed()]), [250]);
        let mut pace = Pace::new(Duration::from_millis(9));
        assert_eq!(pauses(&mut pace, UNHEALTHY, [failed(), refused()]), [9; 2]);
    }

    #[test]
    fn one_that_refuses_is_tried_often_for_ten_seconds_and_rises_quickly() {
        let mut pace = Pace::new(Duration::from_secs(5));
        let knocks = pauses(&mut pace, UNHEALTHY, [(); 14].map(|()| refused()));
        assert_eq!(knocks[..10], [100; 10]);
        assert_eq!(knocks[10..], [250, 500, 1000, 2000]);
        assert_eq!(pauses(&mut pace, UNHEALTHY, [Finding::Passed]), [30]);
        // It listens, and is not well yet.
        assert_eq!(pauses(&mut pace, UNHEALTHY, [failed(), Finding::Passed]), [250, 250]);
    }

    #[test]
    fn one_that_comes_and_goes_without_end_is_hurried_a_few_times() {
        let mut pace = Pace::new(Duration::from_secs(5));
        let mut cycle = || {
            let pauses = pauses(&mut pace, UNHEALTHY, [refused(), Finding::Passed]);
            pace.note(HEALTHY, &Finding::Passed, Instant::now());
            pauses
        };
        assert_eq!(
            [(); 5].map(|()| cycle()),
            [[100, 30], [100, 30], [100, 30], [100, 30], [250; 2]]
        );
    }

    #[test]
    fn its_own_word_hurries_a_return() {
        let mut pace = Pace::new(Duration::from_secs(5));
        pace.note(UNHEALTHY, &Finding::NotServing(String::new()), Instant::now());
        pace.hurry(Instant::now());
        assert_eq!(pauses(&mut pace, UNHEALTHY, [Finding::Passed]), [30]);
    }

    #[test]
    fn an_allowance_is_spent_and_grows_by_one_a_period_up_to_its_bound() {
        let (mut now, period) = (Instant::now(), Duration::from_secs(5));
        let mut allowance = Allowance::new(8, period);
        let mut spend = |now| (0..20).filter(|_| allowance.take(now)).count();
        assert_eq!(spend(now), 8);
        now += period - Duration::from_millis(1);
        assert_eq!(spend(now), 0);
        now += Duration::from_millis(1);
        assert_eq!(spend(now), 1);
        now += period * 100;
        assert_eq!(spend(now), 8);
    }
}
