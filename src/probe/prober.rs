//! Probes one endpoint: at once, at each interval, soon where it has just become unhealthy or comes
//! back, and at once again where something tells that its state may have changed.

use std::{mem::take, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Check, Target, jittered,
    pace::{Allowance, Pace},
    verdict::{Finding, Recorded, Verdict},
    watch::{News, Watches},
};
use crate::{
    config,
    grpc::ServingStatus,
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
            allowance: Allowance::new(BURST, config.interval),
            wanted: false,
        }
    }

    /// Probes for as long as it is polled.
    pub(super) async fn run(mut self) {
        loop {
            let started = Instant::now();
            self.probe().await;
            let mut next = started + jittered(self.pace.pause());
            while self.between(next).await {
                // It may have become unhealthy by that, or have begun to pass.
                next = next.min(Instant::now() + jittered(self.pace.pause()));
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
            news = self.watches.next() => {
                self.wanted |= hear(&mut self.verdict, &mut self.pace, news);
            }
        }
        true
    }

    /// Probes now, and again and again while a healthy endpoint fails, until its threshold is met:
    /// there is cause to think that it has gone, and the interval stands between probes without one.
    async fn probe_at_once(&mut self) {
        if !self.allowance.take(Instant::now()) {
            return;
        }
        for _ in 0..QUICK {
            let finding = self.probe().await;
            if !finding.failed() || self.verdict.health() != Health::Healthy {
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
                news = self.watches.next() => {
                    self.wanted |= hear(&mut self.verdict, &mut self.pace, news);
                }
            }
        }
        drop(running);
        let Recorded { finding, came_back, doubted } = self.verdict.record(started, failed);
        self.pace.note(self.verdict.health(), &finding, Instant::now());
        if came_back {
            self.watches.again();
        }
        if doubted {
            self.watches.renew();
        }
        let broke = self.checks.iter_mut().filter_map(|check| check.broke().then_some(())).count();
        // Found lost by the probe itself, which came before the news of it.
        self.wanted |= broke > 0 && finding.failed();
        finding
    }
}

/// Takes what a Watch tells; whether to probe at once.
fn hear(verdict: &mut Verdict, pace: &mut Pace, (index, news): (usize, News)) -> bool {
    let said = match news {
        News::Said(status, _) => Some(status),
        _ => None,
    };
    let wanted = verdict.hear(index, news);
    match said {
        Some(ServingStatus::Serving) if wanted => pace.hurry(Instant::now()),
        Some(ServingStatus::Serving) | None => {}
        Some(status) => {
            let finding = Finding::NotServing(status.to_string());
            pace.note(verdict.health(), &finding, Instant::now());
        }
    }
    wanted
}

/// Waits until a connection is lost that one of the checks keeps.
async fn lost(checks: &mut [Check]) {
    let mut kept: FuturesUnordered<_> = checks.iter_mut().map(Check::lost).collect();
    kept.next().await;
}

/// How many times probes may come at once.
const BURST: u32 = 8;
/// The most probes that follow each other at once; a larger threshold needs the interval too.
const QUICK: u32 = 10;
/// Between two of them.
const SPACING: Duration = Duration::from_millis(5);
