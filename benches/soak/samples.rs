//! What was measured, a row at a time, and whether it is flat.

use std::{fs, sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{calls::Tally, fixture::usage::Tree};

/// One moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    /// Resident memory, in KiB.
    pub(crate) memory: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    /// Calls that ended, and those that failed, since the moment before, a second.
    pub(crate) calls: f64,
    pub(crate) failures: f64,
}

/// Open descriptors of a process, and its threads.
pub(crate) fn held(pid: u32) -> [u64; 2] {
    ["fd", "task"].map(|kind| {
        fs::read_dir(format!("/proc/{pid}/{kind}")).map_or(0, |entries| entries.count() as u64)
    })
}

/// Takes a sample each `every` until `end`.
pub(crate) async fn sample(
    pid: u32,
    tally: &Tally,
    start: Instant,
    end: Instant,
    every: Duration,
) -> Vec<Sample> {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut samples, mut before, mut since) = (Vec::new(), [0, 0], ticks.tick().await);
    while tally.goes_on(end) {
        let now = ticks.tick().await;
        let counts = [tally.calls.load(Relaxed), tally.failures.lock().unwrap().len() as u64];
        let rate = |at: usize| (counts[at] - before[at]) as f64 / (now - since).as_secs_f64();
        let [descriptors, threads] = held(pid);
        samples.push(Sample {
            at: now - start,
            memory: Tree::of(pid).resident(),
            descriptors,
            threads,
            calls: rate(0),
            failures: rate(1),
        });
        (before, since) = (counts, now);
    }
    samples
}

/// Why a figure is not flat: it is low less often in the last quarter than in the second one by more
/// than a tenth and `more`. What is low tells of leaks, since what a spell of trouble takes is given
/// back.
pub(crate) fn rise(
    samples: &[Sample],
    what: &str,
    more: u64,
    figure: impl Fn(&Sample) -> u64,
) -> Option<String> {
    let quarter = samples.len() / 4;
    let low = |samples: &[Sample]| {
        let mut figures: Vec<_> = samples.iter().map(&figure).collect();
        figures.sort_unstable();
        figures.get(figures.len() / 4).copied().unwrap_or_default()
    };
    let (early, late) = (low(&samples[quarter..2 * quarter]), low(&samples[3 * quarter..]));
    let most = early + early / 10 + more;
    (late > most).then(|| format!("{what} rose from {early} to {late}, more than to {most}"))
}
