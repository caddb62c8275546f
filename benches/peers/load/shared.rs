//! What all connections of a load share: its phase, its clock, its counts.

use std::{
    cell::{Cell, RefCell},
    time::Instant,
};

use super::{
    client::{Ended, What},
    tally::Tally,
};
use crate::frame::Fault;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing counts but errors.
    Warm,
    Measure,
    /// Nothing new is started.
    Drain,
}

pub(super) struct Shared {
    pub(super) base: Instant,
    phase: Cell<Phase>,
    /// Calls that may still be started.
    left: Cell<u64>,
    /// Calls and streams that have not ended.
    open: Cell<u64>,
    pub(super) tally: RefCell<Tally>,
}

impl Shared {
    pub(super) fn new(calls: u64) -> Self {
        Self {
            base: crate::clock::now(),
            phase: Cell::new(Phase::Warm),
            left: Cell::new(calls),
            open: Cell::new(0),
            tally: RefCell::new(Tally::new()),
        }
    }

    /// Nanoseconds since the load began.
    pub(super) fn now(&self) -> u64 {
        (crate::clock::now() - self.base).as_nanos() as u64
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
    }

    /// Whether everything that was started has ended.
    pub(super) fn is_quiet(&self) -> bool {
        self.open.get() == 0
    }

    /// Whether as many calls as there may be were started and have ended.
    pub(super) fn is_spent(&self) -> bool {
        self.left.get() == 0 && self.is_quiet()
    }

    /// Asks for one more call or stream.
    pub(super) fn start(&self) -> bool {
        let may = self.phase.get() != Phase::Drain && self.left.get() > 0;
        if may {
            self.left.set(self.left.get() - 1);
            self.open.set(self.open.get() + 1);
        }
        may
    }

    pub(super) fn end(&self, ended: &Ended, now: u64) {
        if !matches!(ended.what, What::Echo(_)) {
            self.open.set(self.open.get() - 1);
        }
        let mut tally = self.tally.borrow_mut();
        match ended.outcome {
            Err(why) => tally.error(why, 1),
            Ok(()) if self.phase.get() == Phase::Measure && ended.what != What::Stream => {
                tally.answer(now.saturating_sub(ended.start));
            }
            Ok(()) => {}
        }
    }

    /// A connection failed, and with it so many calls.
    pub(super) fn fail(&self, why: Fault, calls: u64) {
        self.open.set(self.open.get() - calls);
        self.tally.borrow_mut().error(why, calls.max(1));
    }

    /// Counts what never ended.
    pub(super) fn give_up(&self) {
        if !self.is_quiet() {
            self.tally.borrow_mut().error("no answer", self.open.get());
        }
    }
}
