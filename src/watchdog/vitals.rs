//! Whether health may be told from the board.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use super::Heartbeat;

/// What must run for the board to be true; clones share it.
#[derive(Debug, Clone)]
pub struct Vitals(Arc<Signs>);

#[derive(Debug)]
struct Signs {
    control: Arc<Heartbeat>,
    worker_stalled: AtomicBool,
    told: watch::Sender<Option<Trouble>>,
}

/// Why nothing serves, whatever the board says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// In words.
    pub reason: &'static str,
    /// Since when.
    pub since: SystemTime,
}

impl Vitals {
    /// Of what need not run, since it says the same for ever.
    pub fn unwatched() -> Self {
        let vitals = Self::default();
        vitals.0.control.end();
        vitals
    }

    /// The control thread's heartbeat.
    pub fn control(&self) -> &Arc<Heartbeat> {
        &self.0.control
    }

    /// Returns what keeps health from being told from the board, and tells those who follow it.
    pub fn trouble(&self) -> Option<Trouble> {
        let reason = match self.0.control.age() >= STALLED {
            true => Some(CONTROL_STALLED),
            false if self.0.worker_stalled.load(Relaxed) => Some(WORKER_STALLED),
            false => None,
        };
        let told = *self.0.told.borrow();
        if told.map(|it| it.reason) == reason {
            return told;
        }
        let now = reason.map(|reason| Trouble { reason, since: SystemTime::now() });
        self.0.told.send_if_modified(|told| {
            let changes = told.map(|it| it.reason) != reason;
            if changes {
                *told = now;
            }
            changes
        });
        now
    }

    /// Tells each change of it.
    pub fn follow(&self) -> watch::Receiver<Option<Trouble>> {
        self.0.told.subscribe()
    }

    pub(super) fn set_worker_stalled(&self, stalled: bool) {
        self.0.worker_stalled.store(stalled, Relaxed);
        self.trouble();
    }
}

impl Default for Vitals {
    fn default() -> Self {
        Self(Arc::new(Signs {
            control: Arc::new(Heartbeat::new("control")),
            worker_stalled: AtomicBool::new(false),
            told: watch::Sender::default(),
        }))
    }
}

/// The age of a board that is not to be told any more. The control thread looks at the endpoints once
/// a second, whatever the intervals of probes; how old a probe may be is `probe.stale_after`.
pub const STALLED: Duration = Duration::from_secs(5);
/// Why nothing serves when the control thread stands still.
pub const CONTROL_STALLED: &str = "control plane stalled";
/// Why nothing serves when workers do.
pub const WORKER_STALLED: &str = "worker stalled";
