//! A thread's sign that it runs.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

/// When a thread ran last, which it says itself: workers every [`BEAT`], the control thread once a second.
#[derive(Debug)]
pub struct Heartbeat {
    name: Box<str>,
    begun: Instant,
    /// In milliseconds since `begun`; [`ENDED`] where the thread has come to its end.
    last: AtomicU64,
    silent: AtomicBool,
}

impl Heartbeat {
    /// Of the thread of this name, which runs now.
    pub fn new(name: &str) -> Self {
        let (last, silent) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { name: name.into(), begun: Instant::now(), last, silent }
    }

    /// The thread's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Says that the thread runs.
    pub fn beat(&self) {
        self.last.store(self.now(), Relaxed);
    }

    /// Says that the thread ends as it should: nobody is to wait for it.
    pub fn end(&self) {
        self.last.store(ENDED, Relaxed);
    }

    /// Returns how long ago the thread ran; zero where it has ended.
    pub fn age(&self) -> Duration {
        // Before the clock: another thread may beat meanwhile.
        let last = self.last();
        Duration::from_millis(self.now().saturating_sub(last))
    }

    /// Returns whether the watchdog has missed it for a while.
    pub fn is_silent(&self) -> bool {
        self.silent.load(Relaxed)
    }

    pub(super) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Relaxed);
    }

    /// Returns the last beat, to be compared with others.
    pub(super) fn last(&self) -> u64 {
        self.last.load(Relaxed)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.last() == ENDED
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(ENDED - 1)
    }
}

/// How often a worker beats.
pub const BEAT: Duration = Duration::from_millis(250);
const ENDED: u64 = u64::MAX;
