//! A client connection that calls by itself, as its cell's mode says.

use std::{
    mem,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    client::{Client, What},
    shared::{Phase, Shared},
};
use crate::{
    cell::Mode,
    frame::Fault,
    pipe::{Endpoint, Turn},
};

/// Who drives a connection.
pub(super) enum Driver {
    /// Every answer draws the next call, on so many streams.
    Answers { streams: usize },
    /// Starts come from outside.
    Clock(UnboundedReceiver<u64>),
    /// One call, which was meant to start at this time, and what then becomes of the connection.
    Once { start: u64, then: Turn },
}

/// A client connection and what drives it.
pub(super) struct Driven {
    client: Client,
    driver: Driver,
    shared: Rc<Shared>,
    begun: bool,
}

impl Driven {
    pub(super) fn new(client: Client, driver: Driver, shared: &Rc<Shared>) -> Self {
        Self { client, driver, shared: shared.clone(), begun: false }
    }

    /// Counts what is open when the connection fails.
    pub(super) fn fail(&self, why: Fault) {
        let now = self.shared.now();
        self.client.ended.iter().for_each(|ended| self.shared.end(ended, now));
        let open = self.client.open() as u64;
        self.shared.fail(why, open);
    }

    fn call(&mut self, start: u64) {
        if self.shared.start() {
            self.client.call(start);
        }
    }

    fn begin(&mut self) {
        match self.driver {
            Driver::Answers { streams } => {
                let now = self.shared.now();
                (0..streams).for_each(|_| self.call(now));
            }
            Driver::Clock(_) => {}
            Driver::Once { start, .. } => self.call(start),
        }
    }

    /// What follows after something ended.
    fn next(&mut self, what: What, well: bool, now: u64) -> Turn {
        match what {
            What::Echo(stream) if self.shared.phase() == Phase::Drain => {
                self.client.hang_up(stream);
            }
            What::Echo(stream) => self.client.say(stream, now),
            // What fails at once must not spin.
            _ if !well && self.client.open() == 0 => return Turn::Finished,
            _ => match self.driver {
                Driver::Answers { .. } => self.call(now),
                Driver::Clock(_) => {}
                Driver::Once { then, .. } => return then,
            },
        }
        Turn::Continue
    }
}

impl Endpoint for Driven {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.client.feed(bytes)
    }

    fn turn(&mut self, cx: &mut Context) -> Result<Turn, Fault> {
        if !mem::replace(&mut self.begun, true) {
            self.begin();
        }
        while let Driver::Clock(starts) = &mut self.driver
            && let Poll::Ready(Some(start)) = starts.poll_recv(cx)
        {
            self.call(start);
        }
        let mut after = Turn::Continue;
        if !self.client.ended.is_empty() {
            let now = self.shared.now();
            let mut ended = mem::take(&mut self.client.ended);
            for ended in ended.drain(..) {
                self.shared.end(&ended, now);
                if self.next(ended.what, ended.outcome.is_ok(), now) == Turn::Finished {
                    after = Turn::Finished;
                }
            }
            self.client.ended = ended;
        }
        self.client.pump()?;
        Ok(after)
    }

    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.client.out
    }
}

impl Driver {
    /// The driver of one connection of a cell, but for the one that a clock drives.
    pub(super) fn of(mode: Mode, streams: usize, start: u64) -> Self {
        match mode {
            Mode::Idle => Self::Once { start, then: Turn::Continue },
            Mode::Connect => Self::Once { start, then: Turn::Finished },
            Mode::Closed | Mode::Echo | Mode::Open { .. } | Mode::Memory(_) => {
                Self::Answers { streams }
            }
        }
    }
}
