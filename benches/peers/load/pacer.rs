//! The clock of an open loop: says when each call shall start, whatever became of those before.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A thread that sleeps from one start to the next: a runtime's timers know milliseconds only.
pub(super) struct Pacer {
    stop: Arc<AtomicBool>,
}

impl Pacer {
    /// Begins at once, and deals the starts out to the connections in turn.
    pub(super) fn start(
        base: Instant,
        rate: u64,
        connections: usize,
    ) -> (Self, Vec<UnboundedReceiver<u64>>) {
        let (senders, receivers): (Vec<_>, _) =
            (0..connections).map(|_| unbounded_channel()).unzip();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        thread::spawn(move || pace(base, rate, &senders, &stopped));
        (Self { stop }, receivers)
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn pace(base: Instant, rate: u64, senders: &[UnboundedSender<u64>], stopped: &AtomicBool) {
    let first = crate::clock::now() - base;
    for (number, sender) in (0..).zip(senders.iter().cycle()) {
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        let start = first + Duration::from_nanos(number * 1_000_000_000 / rate);
        let early = start.saturating_sub(crate::clock::now() - base);
        if !early.is_zero() {
            thread::sleep(early);
        }
        if sender.send(start.as_nanos() as u64).is_err() {
            return;
        }
    }
}
