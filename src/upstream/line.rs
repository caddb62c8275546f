//! Calls of all workers that wait for room in an upstream: their clients have it in turn, and of one
//! client the oldest call.
//!
//! A worker that finds some wakes the worker whose call that is, and does
//! not take it for its own. One whose call cannot use it, since that was on the endpoint before or
//! the worker does not reach it, passes it on, call by call, until there is none left or all were
//! asked. While nobody waits, nothing here is touched but [`Line::is_waited_in`].

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::fair::{Client, FairQueue, Turn};
use crate::config::{Admission, Cap};

/// The calls that wait for room.
#[derive(Debug)]
pub struct Line {
    /// Whether the upstream can be full at all.
    bounded: bool,
    most: usize,
    timeout: Duration,
    /// As many as are in `waiting`, to be read without its lock.
    length: AtomicUsize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// With what wakes their workers.
    calls: FairQueue<Arc<Notify>>,
    /// The first turn that was not asked since there was room.
    next: Turn,
    /// Workers that have passed for all their calls since then.
    passed: Vec<Arc<Notify>>,
}

impl Line {
    pub(super) fn new(admission: &Admission) -> Self {
        let caps = [admission.max_in_flight, admission.max_in_flight_per_endpoint];
        Self {
            bounded: admission.adaptive || caps.iter().any(|cap| *cap != Cap::Unlimited),
            most: admission.max_queue as usize,
            timeout: admission.queue_timeout,
            length: AtomicUsize::new(0),
            waiting: Mutex::default(),
        }
    }

    /// Whether somebody waits, whom a new call must not pass.
    pub fn is_waited_in(&self) -> bool {
        self.bounded && self.length() > 0
    }

    pub(super) fn length(&self) -> usize {
        self.length.load(Relaxed)
    }

    /// How long a call may wait.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A place behind those of `client`, unless enough wait. The worker that `worker` wakes takes its
    /// [`Line::turn`] then.
    pub fn join(self: &Arc<Self>, client: Client, worker: &Arc<Notify>) -> Option<Ticket> {
        let mut waiting = self.lock();
        if waiting.calls.len() >= self.most {
            return None;
        }
        let turn = waiting.calls.push(client, Arc::clone(worker));
        self.length.store(waiting.calls.len(), Relaxed);
        Some(Ticket { line: Arc::clone(self), turn })
    }

    /// There may be room: all are asked anew, in their order.
    pub fn offer(&self) {
        let mut waiting = self.lock();
        waiting.next = Turn::default();
        waiting.passed.clear();
    }

    /// The next turn to be asked, where that is one of this worker's. Else its worker is woken.
    pub fn turn(&self, worker: &Arc<Notify>) -> Option<Turn> {
        let mut waiting = self.lock();
        let Waiting { calls, passed, next } = &mut *waiting;
        let passes = |other: &Arc<Notify>| passed.iter().any(|it| Arc::ptr_eq(it, other));
        let (turn, owner) = calls.from(*next).find(|(_, owner)| !passes(owner))?;
        if Arc::ptr_eq(owner, worker) {
            *next = turn.after();
            calls.serve(turn);
            return Some(turn);
        }
        *next = turn;
        owner.notify_one();
        None
    }

    /// Takes down that this worker has no call for what room there is.
    pub fn pass(&self, worker: &Arc<Notify>) {
        self.lock().passed.push(Arc::clone(worker));
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no holder of this lock panics")
    }
}

/// A call's place in a line, until it is dropped.
#[derive(Debug)]
pub struct Ticket {
    line: Arc<Line>,
    turn: Turn,
}

impl Ticket {
    /// When it is asked.
    pub fn turn(&self) -> Turn {
        self.turn
    }

    /// The line that it is a place in.
    pub fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// Whether it is a place in that line.
    pub fn is_for(&self, line: &Arc<Line>) -> bool {
        Arc::ptr_eq(&self.line, line)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut waiting = self.line.lock();
        waiting.calls.remove(self.turn);
        self.line.length.store(waiting.calls.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn line(most: u32) -> Arc<Line> {
        let admission =
            Admission { max_in_flight: Cap::Count(1), max_queue: most, ..Admission::default() };
        Arc::new(Line::new(&admission))
    }

    fn workers() -> [Arc<Notify>; 2] {
        [Arc::default(), Arc::default()]
    }

    const CLIENT: Client = Client { address: Client::UNKNOWN, connection: 1 };

    fn is_woken(worker: &Notify) -> bool {
        worker.notified().now_or_never().is_some()
    }

    #[test]
    fn room_is_for_the_oldest_whoever_finds_it() {
        let (line, [one, other]) = (line(9), workers());
        let first = line.join(CLIENT, &one).unwrap();
        let _second = line.join(CLIENT, &other).unwrap();
        let third = line.join(CLIENT, &one).unwrap();
        assert_eq!(line.turn(&other), None);
        assert!(is_woken(&one) && !is_woken(&other));
        assert_eq!(line.turn(&one), Some(first.turn()));
        drop(first);
        assert_eq!(line.turn(&one), None);
        assert!(is_woken(&other));
        assert!(line.turn(&other).is_some_and(|turn| turn < third.turn()));
    }

    #[test]
    fn a_call_that_cannot_use_the_room_is_asked_once_and_again_when_there_is_more() {
        let (line, [one, other]) = (line(9), workers());
        let first = line.join(CLIENT, &one).unwrap();
        let second = line.join(CLIENT, &other).unwrap();
        assert_eq!(line.turn(&one), Some(first.turn()));
        assert_eq!(line.turn(&other), Some(second.turn()));
        assert_eq!([line.turn(&one), line.turn(&other)], [None, None]);
        line.offer();
        assert_eq!(line.turn(&one), Some(first.turn()));
    }

    #[test]
    fn a_worker_that_passes_is_asked_for_none_of_its_calls() {
        let (line, [one, other]) = (line(9), workers());
        let own: Vec<_> = (0..3).map(|_| line.join(CLIENT, &one).unwrap()).collect();
        let last = line.join(CLIENT, &other).unwrap();
        assert_eq!(line.turn(&one), Some(own[0].turn()));
        line.pass(&one);
        assert_eq!(line.turn(&one), None);
        assert!(is_woken(&other));
        assert_eq!(line.turn(&other), Some(last.turn()));
    }

    #[test]
    fn one_that_has_left_is_not_asked_and_its_place_is_free() {
        let (line, [one, other]) = (line(2), workers());
        let first = line.join(CLIENT, &one).unwrap();
        let second = line.join(CLIENT, &other).unwrap();
        assert!(line.join(CLIENT, &one).is_none());
        drop(first);
        assert_eq!(line.turn(&other), Some(second.turn()));
        assert!(line.is_waited_in());
        drop(second);
        assert!(!line.is_waited_in());
    }
}
