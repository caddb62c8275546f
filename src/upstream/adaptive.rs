//! How many calls an endpoint takes at a time, learnt from how long they take.
//!
//! A bound that grows by addition while it is used and all is well, and falls by a part where calls
//! take well longer than they need, or fail. What they need is measured: every few seconds the
//! bound is halved for two windows, and what calls take in the second one is taken for it. A minimum
//! that only decays would be carried upwards by the very load that it is to hold down.

use std::time::Duration;

use tokio::time::Instant;

/// The bound of one endpoint.
#[derive(Debug)]
pub(super) struct Adaptive {
    limit: f64,
    most: f64,
    /// What a call takes when there are few, in seconds.
    baseline: Option<f64>,
    /// Whether it has not fallen yet; until then it doubles.
    rising: bool,
    window: Window,
    /// Windows until what calls need is measured again.
    until_measured: u32,
    /// The bound to go back to, while it is measured.
    kept: Option<f64>,
}

/// Calls that ended within a stretch of time.
#[derive(Debug)]
struct Window {
    since: Instant,
    calls: u32,
    failed: u32,
    /// In seconds, of all calls.
    took: f64,
    /// The most calls in flight when one of them ended.
    peak: usize,
}

impl Window {
    fn new(since: Instant) -> Self {
        Self { since, calls: 0, failed: 0, took: 0.0, peak: 0 }
    }
}

impl Adaptive {
    /// A bound of at most `most`, which begins low.
    pub(super) fn new(most: u32, now: Instant) -> Self {
        let most = f64::from(most.min(MOST));
        Self {
            limit: f64::from(START).min(most),
            most,
            baseline: None,
            rising: true,
            window: Window::new(now),
            until_measured: MEASURED_EVERY,
            kept: None,
        }
    }

    /// How many calls may be in flight.
    pub(super) fn limit(&self) -> u32 {
        // Between 1 and `MOST`.
        self.limit as u32
    }

    /// Takes down that a call ended, with so many in flight, itself among them.
    pub(super) fn ended(&mut self, took: Duration, in_flight: usize, now: Instant) {
        self.window.calls += 1;
        self.window.took += took.as_secs_f64();
        self.window.peak = self.window.peak.max(in_flight);
        let lasted = now.saturating_duration_since(self.window.since);
        if self.window.calls >= CALLS && lasted >= WINDOW {
            let window = std::mem::replace(&mut self.window, Window::new(now));
            self.conclude(&window);
        }
    }

    /// Takes down that the transport failed.
    pub(super) fn failed(&mut self) {
        self.window.failed += 1;
    }

    fn conclude(&mut self, window: &Window) {
        let took = window.took / f64::from(window.calls);
        self.until_measured = self.until_measured.saturating_sub(1);
        if let Some(kept) = self.kept {
            // Calls of the first window began under the bound as it was.
            if self.until_measured == 0 {
                self.baseline = Some(took);
                self.kept = None;
                self.until_measured = MEASURED_EVERY;
                self.set(kept);
            }
            return;
        }
        let baseline = self.baseline.map_or(took, |baseline| baseline.min(took));
        self.baseline = Some(baseline);
        if took > baseline * TOLERANCE || window.failed * FAILED_SHARE > window.calls {
            self.rising = false;
            self.set(self.limit * FALL);
        } else if window.peak as f64 >= self.limit.floor() * USED {
            self.set(if self.rising { self.limit * 2.0 } else { self.limit + RISE });
        }
        if self.until_measured == 0 {
            self.kept = Some(self.limit);
            self.until_measured = MEASURED_IN;
            self.set(self.limit / 2.0);
        }
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(f64::from(FLOOR).min(self.most), self.most);
    }
}

/// No endpoint is held below so many calls, unless its configured bound is lower.
const FLOOR: u32 = 4;
const START: u32 = 8;
const MOST: u32 = 10_000;
/// A window has so many calls at least, and lasts so long.
const CALLS: u32 = 16;
const WINDOW: Duration = Duration::from_millis(100);
/// Calls that take longer than what they need by this factor have waited for each other.
const TOLERANCE: f64 = 1.5;
const FALL: f64 = 0.9;
const RISE: f64 = 4.0;
/// The bound is used where so much of it was in flight.
const USED: f64 = 0.9;
/// One in so many that fails is too many.
const FAILED_SHARE: u32 = 10;
/// In windows: ten seconds under load.
const MEASURED_EVERY: u32 = 100;
const MEASURED_IN: u32 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A server whose calls wait for each other from `knee` calls at a time on, and callers that
    /// have as many in flight as they may.
    fn run(adaptive: &mut Adaptive, now: &mut Instant, windows: u32, knee: f64, base: f64) {
        for _ in 0..windows * CALLS {
            let in_flight = f64::from(adaptive.limit());
            let took = Duration::from_secs_f64(base * (in_flight / knee).max(1.0));
            *now += WINDOW / CALLS + Duration::from_micros(1);
            adaptive.ended(took, in_flight as usize, *now);
        }
    }

    proptest! {
        #[test]
        fn the_bound_comes_to_the_knee_of_a_server_and_comes_back_to_it_after_a_slow_time(
            knee in 8_u32..2000,
            millis in 1_u32..200,
        ) {
            let (knee, base) = (f64::from(knee), f64::from(millis) / 1000.0);
            let mut now = Instant::now();
            let mut adaptive = Adaptive::new(u32::MAX, now);
            run(&mut adaptive, &mut now, 1000, knee, base);
            let near = |limit: u32| (knee * 0.4..knee * 2.2).contains(&f64::from(limit));
            prop_assert!(near(adaptive.limit()), "{} for {knee}", adaptive.limit());
            run(&mut adaptive, &mut now, 50, knee / 8.0, base * 8.0);
            // What calls need is learnt with no fewer of them than the floor.
            let slow = (knee / 8.0).max(f64::from(FLOOR));
            prop_assert!(f64::from(adaptive.limit()) < slow * 3.0, "{} while slow", adaptive.limit());
            run(&mut adaptive, &mut now, 1500, knee, base);
            prop_assert!(near(adaptive.limit()), "{} for {knee}, later", adaptive.limit());
        }

        #[test]
        fn the_bound_is_never_below_the_floor_nor_above_what_is_configured(
            most in 1_u32..100,
            calls in prop::collection::vec((0_u64..5000, 0_usize..200, 0_u64..300, any::<bool>()), 0..2000),
        ) {
            let mut now = Instant::now();
            let mut adaptive = Adaptive::new(most, now);
            for (took, in_flight, later, failed) in calls {
                now += Duration::from_millis(later);
                if failed {
                    adaptive.failed();
                }
                adaptive.ended(Duration::from_millis(took), in_flight, now);
                prop_assert!((FLOOR.min(most)..=most).contains(&adaptive.limit()));
            }
        }
    }

    #[test]
    fn a_bound_that_is_not_used_does_not_grow() {
        let mut now = Instant::now();
        let mut adaptive = Adaptive::new(u32::MAX, now);
        for _ in 0..MEASURED_EVERY / 2 * CALLS {
            now += WINDOW;
            adaptive.ended(Duration::from_millis(1), 2, now);
        }
        assert_eq!(adaptive.limit(), START);
    }

    #[test]
    fn calls_that_fail_lower_the_bound() {
        let mut now = Instant::now();
        let mut adaptive = Adaptive::new(u32::MAX, now);
        run(&mut adaptive, &mut now, 10, 1e9, 0.001);
        let before = adaptive.limit();
        for _ in 0..5 * CALLS {
            now += WINDOW;
            adaptive.failed();
            adaptive.ended(Duration::from_millis(1), before as usize, now);
        }
        assert!(adaptive.limit() < before, "{} from {before}", adaptive.limit());
    }
}
