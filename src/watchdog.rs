//! Whether what must run does run: a heartbeat of the control thread and of each worker, and a thread
//! of its own that looks at them.
//!
//! Two clocks judge. Whoever tells health asks how old the control thread's last beat is, so that
//! nothing is told from a board that may be out of date, whatever held the process up. The watchdog
//! counts the looks at which a beat did not come: while the whole process is stopped, or the machine
//! sleeps, it looks at nothing, so that only a thread that alone stands still is found.

mod heartbeat;
mod vitals;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io, panic,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use tracing::{error, info, warn};

pub use self::{
    heartbeat::{BEAT, Heartbeat},
    vitals::{CONTROL_STALLED, STALLED, Trouble, Vitals, WORKER_STALLED},
};
use crate::{
    log,
    metrics::{Metrics, ThreadLabels},
};

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watchdog {
    _stop: SyncSender<()>,
}

impl Watchdog {
    /// Starts to watch the control thread and these workers. Calls `end` with the reason once one
    /// of them has stood still for thirteen seconds.
    ///
    /// # Errors
    /// The system grants no thread.
    pub fn start(
        vitals: &Vitals,
        workers: impl IntoIterator<Item = Arc<Heartbeat>>,
        metrics: &Metrics,
        end: fn(&str),
    ) -> io::Result<Self> {
        let (stop, stopped) = sync_channel(0);
        let mut round = Round::new(vitals, workers, metrics);
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                if let Some(reason) = round.look() {
                    return end(&reason);
                }
            }
        })?;
        Ok(Self { _stop: stop })
    }
}

/// All that is watched.
#[derive(Debug)]
struct Round {
    vitals: Vitals,
    control: Watched,
    workers: Vec<Watched>,
    metrics: Metrics,
}

/// A heartbeat, and how many looks in a row have seen no new beat of it.
#[derive(Debug)]
struct Watched {
    heartbeat: Arc<Heartbeat>,
    seen: u64,
    missed: u32,
}

impl Round {
    fn new(
        vitals: &Vitals,
        workers: impl IntoIterator<Item = Arc<Heartbeat>>,
        metrics: &Metrics,
    ) -> Self {
        let watched = |heartbeat| Watched { heartbeat, seen: 0, missed: 0 };
        Self {
            vitals: vitals.clone(),
            control: watched(Arc::clone(vitals.control())),
            workers: workers.into_iter().map(watched).collect(),
            metrics: metrics.clone(),
        }
    }

    /// Looks at each heartbeat once; the reason to end the process, where there is one.
    fn look(&mut self) -> Option<String> {
        for watched in self.workers.iter_mut().chain([&mut self.control]) {
            watched.look(&self.metrics);
        }
        let silent = |it: &Watched| it.missed >= SILENT;
        let lost = self.workers.iter().any(|it| it.missed >= LOST)
            || !self.workers.is_empty() && self.workers.iter().all(silent);
        self.vitals.set_worker_stalled(lost);
        let mut all = self.workers.iter().chain([&self.control]);
        let ended = all.find(|it| it.missed >= END)?;
        let (name, time) = (ended.heartbeat.name(), humantime::format_duration(LOOK * END));
        Some(format!("thread {name} has stood still for {time}: only a restart helps"))
    }
}

impl Watched {
    fn look(&mut self, metrics: &Metrics) {
        let last = self.heartbeat.last();
        let thread = self.heartbeat.name();
        if last != self.seen || self.heartbeat.has_ended() {
            if self.missed >= SILENT {
                info!(thread, "a thread that stood still runs again");
            }
            (self.seen, self.missed) = (last, 0);
            return self.heartbeat.set_silent(false);
        }
        self.missed = self.missed.saturating_add(1);
        if self.missed < SILENT {
            return;
        }
        self.heartbeat.set_silent(true);
        if (self.missed - SILENT).is_multiple_of(AGAIN) {
            let time = LOOK * self.missed;
            warn!(thread, ?time, "a thread stands still");
        }
        if self.missed == SILENT {
            metrics.machine.stalls.get_or_create(&ThreadLabels { thread: thread.into() }).inc();
        }
    }
}

/// Ends the process since a thread stands still, with the reason as the last line of the log.
pub fn exit(reason: &str) {
    log::exit(SOFTWARE, &format!("upbeat: {reason}"))
}

/// Has a panic of any thread or task end the process, its message being the last line of the log: a
/// task that is gone would be missed by nobody, and what it kept true would stay as it was.
pub fn end_on_panic() {
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            error!(thread = name, %trace, "panicked");
        }
        let payload = panic.payload();
        let literal = payload.downcast_ref::<&str>().copied();
        let message = literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let message = message.unwrap_or("no message").replace('\n', " ");
        let place = panic.location().map(|at| format!(" at {at}")).unwrap_or_default();
        log::exit(SOFTWARE, &format!("upbeat: thread {name} panicked{place}: {message}"));
    }));
}

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Looks without a beat after which a thread is given no new work: two seconds.
const SILENT: u32 = 8;
/// After which health is NOT_SERVING though others run: ten seconds, since a call that is long lost
/// on one worker is better lost than all on a restart.
const LOST: u32 = 40;
/// After which the process ends: three seconds more, in which balancers may hear of it.
const END: u32 = 52;
/// Between two lines of one thread: ten seconds.
const AGAIN: u32 = 40;
/// EX_SOFTWARE of sysexits.h: a fault of our own.
const SOFTWARE: u8 = 70;

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        round: Round,
        workers: Vec<Arc<Heartbeat>>,
        vitals: Vitals,
    }

    impl World {
        fn of(workers: usize) -> Self {
            let workers: Vec<_> =
                (0..workers).map(|it| Arc::new(Heartbeat::new(&format!("worker-{it}")))).collect();
            let vitals = Vitals::default();
            let round = Round::new(&vitals, workers.clone(), &Metrics::new());
            Self { round, workers, vitals }
        }

        /// Looks so many times, before each of which all but these beat.
        fn looks(&mut self, count: u32, without: &[&str]) -> Option<String> {
            for _ in 0..count {
                let all = self.workers.iter().chain([self.vitals.control()]);
                all.filter(|it| !without.contains(&it.name())).for_each(|it| it.beat());
                // Beats are told apart by their time, in milliseconds.
                thread::sleep(Duration::from_millis(2));
                if let Some(reason) = self.round.look() {
                    return Some(reason);
                }
            }
            None
        }

        fn silent(&self) -> Vec<bool> {
            self.workers.iter().map(|it| it.is_silent()).collect()
        }

        fn stalls(&self, thread: &str) -> u64 {
            let labels = ThreadLabels { thread: thread.into() };
            self.round.metrics.machine.stalls.get_or_create(&labels).get()
        }
    }

    #[test]
    fn a_worker_that_stands_still_gets_no_work_then_health_falls_then_all_ends() {
        let mut world = World::of(2);
        assert_eq!(world.looks(3, &[]), None);
        assert_eq!(world.looks(SILENT - 1, &["worker-1"]), None);
        assert_eq!(world.silent(), [false, false]);
        assert_eq!(world.looks(1, &["worker-1"]), None);
        assert_eq!((world.silent(), world.stalls("worker-1")), (vec![false, true], 1));
        assert_eq!(world.looks(LOST - SILENT - 1, &["worker-1"]), None);
        assert_eq!(world.vitals.trouble(), None);
        assert_eq!(world.looks(1, &["worker-1"]), None);
        assert_eq!(world.vitals.trouble().map(|it| it.reason), Some(WORKER_STALLED));
        assert_eq!(world.looks(END - LOST - 1, &["worker-1"]), None);
        let reason = world.looks(1, &["worker-1"]).unwrap();
        assert!(reason.starts_with("thread worker-1 has stood still for 13s"), "{reason}");
        assert_eq!((world.stalls("worker-1"), world.stalls("worker-0")), (1, 0));
    }

    #[test]
    fn a_worker_that_runs_again_is_one_like_the_others() {
        let mut world = World::of(2);
        assert_eq!(world.looks(LOST, &["worker-0"]), None);
        assert_eq!(world.vitals.trouble().map(|it| it.reason), Some(WORKER_STALLED));
        assert_eq!(world.looks(1, &[]), None);
        assert_eq!((world.silent(), world.vitals.trouble()), (vec![false, false], None));
    }

    #[test]
    fn health_falls_at_once_when_no_worker_runs() {
        let mut world = World::of(2);
        assert_eq!(world.looks(SILENT, &["worker-0", "worker-1"]), None);
        assert_eq!(world.vitals.trouble().map(|it| it.reason), Some(WORKER_STALLED));
    }

    #[test]
    fn a_worker_that_has_ended_is_missed_by_nobody() {
        let mut world = World::of(1);
        world.workers[0].end();
        assert_eq!(world.looks(END, &["worker-0"]), None);
        assert_eq!((world.silent(), world.vitals.trouble()), (vec![false], None));
    }

    #[test]
    fn a_control_thread_that_stands_still_ends_all() {
        let mut world = World::of(1);
        let reason = world.looks(END + 1, &["control"]).unwrap();
        assert!(reason.starts_with("thread control has stood still"), "{reason}");
    }

    #[test]
    fn what_stopped_with_the_watchdog_is_not_missed() {
        let mut world = World::of(2);
        for _ in 0..END {
            assert_eq!(world.looks(1, &[]), None);
            // Stopped, as a whole: the next look comes before anything else runs.
            assert_eq!(world.looks(1, &["worker-0", "worker-1", "control"]), None);
        }
        assert_eq!(world.silent(), [false, false]);
    }
}
