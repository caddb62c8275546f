//! Probes one endpoint: at once, at each interval, soon where it has just become unhealthy or comes
//! back, and at once again where something tells that its state may have changed.

use std::{mem::take, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Check, Target, jittered,
    verdict::{Finding, Verdict},
    watch::Watches,
};
use crate::{
    config,
    metrics::Metrics,
    upstream::{Endpoint, Health, Upstream},
};

/// Runs the checks of one endpoint and brings what they find to its [`Verdict`].
#[derive(Debug)]
pub(super) struct Prober {
    checks: Vec<Check>,
    watches: Watches,
    target: Target,
    /// What [`Target::version`] was at the last probe.
    version: u64,
    verdict: Verdict,
    pace: Pace,
    allowance: Allowance,
    /// Whether the next probe shall not wait for the interval.
    wanted: bool,
}

impl Prober {
    pub(super) fn new(
        upstream: &Upstream,
        endpoint: Arc<Endpoint>,
        config: &config::Probe,
        metrics: &Metrics,
    ) -> Self {
        let target = Target::new(endpoint.address(), upstream.tls().cloned());
        let target = target.announced(upstream.proxy_protocol());
        let check = |(index, check)| {
            let path = format!("{}.checks[{index}]", config.path);
            Check::new(check, target.clone(), config.timeout, Some(&path))
        };
        Self {
            checks: config.checks.iter().enumerate().map(check).collect(),
            watches: Watches::start(&config.checks, &target, config.timeout),
            version: target.version(),
            target,
            verdict: Verdict::new(upstream.name(), endpoint, config, metrics),
            pace: Pace::new(config.interval),
            allowance: Allowance::default(),
            wanted: false,
        }
    }

    /// Probes for as long as it is polled.
    pub(super) async fn run(mut self) {
        loop {
            let started = Instant::now();
            self.allowance.refill();
            let passed = self.probe().await == Finding::Passed;
            let mut next = started + jittered(self.pace.after(self.verdict.health(), passed));
            while self.between(next).await {
                // It may have become unhealthy by that.
                next = next.min(Instant::now() + jittered(self.pace.of(self.verdict.health())));
            }
        }
    }

    /// Waits until something happens and sees to it; false when it is time for the next probe.
    async fn between(&mut self, next: Instant) -> bool {
        if take(&mut self.wanted) {
            self.probe_at_once().await;
            return true;
        }
        let stale = self.verdict.stale_at();
        tokio::select! {
            // Before anything that brings new knowledge: after a process was stopped for a while,
            // all of these are due together. News come last, so that many of them hold nothing up.
            biased;
            () = sleep_until(stale.unwrap_or(next)), if stale.is_some() => self.verdict.expire(),
            () = sleep_until(next) => return false,
            () = lost(&mut self.checks) => {
                self.watches.renew();
                self.wanted = true;
            }
            (index, news) = self.watches.next() => self.wanted |= self.verdict.hear(index, news),
        }
        true
    }

    /// Probes now, and again and again while a healthy endpoint fails, until its threshold is met:
    /// there is cause to think that it has gone, and the interval stands between probes without one.
    async fn probe_at_once(&mut self) {
        if !self.allowance.take() {
            return;
        }
        for _ in 0..QUICK {
            let finding = self.probe().await;
            let failed = matches!(finding, Finding::Failed(_));
            if !failed || self.verdict.health() != Health::Healthy {
                break;
            }
            sleep(jittered(SPACING)).await;
        }
    }

    /// Runs all checks at the same time. What a Watch says meanwhile does not wait for them.
    async fn probe(&mut self) -> Finding {
        let started = Instant::now();
        let version = self.target.version();
        if self.version != version {
            self.version = version;
            self.watches.renew();
        }
        let mut failed = Vec::new();
        let mut running: FuturesUnordered<_> = self
            .checks
            .iter_mut()
            .enumerate()
            .map(async |(index, check)| (index, check.run().await, check.to_string()))
            .collect();
        loop {
            tokio::select! {
                ended = running.next() => match ended {
                    Some((_, Ok(()), _)) => {}
                    Some((index, Err(failure), name)) => failed.push((index, name, failure)),
                    None => break,
                },
                (index, news) = self.watches.next() => {
                    self.wanted |= self.verdict.hear(index, news);
                }
            }
        }
        drop(running);
        let (finding, came_back) = self.verdict.record(started.elapsed(), failed);
        if came_back {
            self.watches.again();
        }
        let broke = self.checks.iter_mut().filter_map(|check| check.broke().then_some(())).count();
        // Found lost by the probe itself, which came before the news of it.
        self.wanted |= broke > 0 && matches!(finding, Finding::Failed(_));
        finding
    }
}

/// Waits until a connection is lost that one of the checks keeps.
async fn lost(checks: &mut [Check]) {
    let mut kept: FuturesUnordered<_> = checks.iter_mut().map(Check::lost).collect();
    kept.next().await;
}

/// How long it is from one probe to the next. An endpoint that has become unhealthy may be one that
/// restarts, and one that passes again needs more of that to be used: in a rollout the next one goes
/// meanwhile, and with the interval alone all of them would be out at the same time. One that stays
/// down is soon probed at the interval again.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    soon: Duration,
}

impl Pace {
    fn new(interval: Duration) -> Self {
        Self { interval, soon: SOON.min(interval) }
    }

    /// At this moment.
    fn of(&self, health: Health) -> Duration {
        if health == Health::Unhealthy { self.soon } else { self.interval }
    }

    /// After a probe.
    fn after(&mut self, health: Health, passed: bool) -> Duration {
        if passed || health != Health::Unhealthy {
            self.soon = SOON.min(self.interval);
        }
        let pause = self.of(health);
        if health == Health::Unhealthy {
            self.soon = self.interval.min(self.soon * 2);
        }
        pause
    }
}

/// How many times probes may come at once. One more with each interval, so that a peer that takes
/// connections and closes them, or that changes its mind without end, is probed at about twice the
/// usual rate and not in a hot loop.
#[derive(Debug)]
struct Allowance(u32);

impl Allowance {
    fn refill(&mut self) {
        self.0 = (self.0 + 1).min(BURST);
    }

    fn take(&mut self) -> bool {
        let left = self.0.checked_sub(1);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

impl Default for Allowance {
    fn default() -> Self {
        Self(BURST)
    }
}

/// To the first probe of an endpoint that has become unhealthy, doubled with each that fails.
const SOON: Duration = Duration::from_millis(250);
/// The largest [`Allowance`].
const BURST: u32 = 8;
/// The most probes that follow each other at once; a larger threshold needs the interval too.
const QUICK: u32 = 10;
/// Between two of them.
const SPACING: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unhealthy_endpoint_is_probed_soon_and_then_more_and_more_seldom() {
        let mut pace = Pace::new(Duration::from_secs(5));
        let mut after = |health, passed| pace.after(health, passed).as_millis();
        assert_eq!([true, false].map(|passed| after(Health::Healthy, passed)), [5000; 2]);
        let failing = [false; 7].map(|passed| after(Health::Unhealthy, passed));
        assert_eq!(failing, [250, 500, 1000, 2000, 4000, 5000, 5000]);
        let returning = [true, true, false, false].map(|passed| after(Health::Unhealthy, passed));
        assert_eq!(returning, [250, 250, 500, 1000]);
        assert_eq!(after(Health::Healthy, true), 5000);
        assert_eq!(after(Health::Unhealthy, false), 250);
        assert_eq!(Pace::new(Duration::from_millis(9)).of(Health::Unhealthy).as_millis(), 9);
    }

    #[test]
    fn an_allowance_is_spent_and_grows_by_one_up_to_its_bound() {
        let mut allowance = Allowance::default();
        assert_eq!((0..20).filter(|_| allowance.take()).count(), BURST as usize);
        allowance.refill();
        assert!(allowance.take());
        assert!(!allowance.take());
        (0..20).for_each(|_| allowance.refill());
        assert_eq!((0..20).filter(|_| allowance.take()).count(), BURST as usize);
    }
}
