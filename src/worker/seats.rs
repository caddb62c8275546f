//! Connections of which the relay does not know: those that have not said yet what they speak, and
//! those of HTTP/1.1.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
};

use slab::Slab;
use tokio::{sync::Notify, time::Instant};

use super::Socket;
use crate::relay::{Idle, Listener};

/// Such connections of one worker.
#[derive(Debug, Default)]
pub(super) struct Seats(RefCell<Slab<Rc<State>>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Rc<Seats>,
    index: usize,
    state: Rc<State>,
}

#[derive(Debug)]
struct State {
    listener: Arc<Listener>,
    reserved: bool,
    begun: Instant,
    /// When something was asked last.
    asked: Cell<Option<Instant>>,
    wanted: Rc<Notify>,
}

impl Seats {
    pub(super) fn take(self: &Rc<Self>, socket: &Socket) -> Seat {
        let state = Rc::new(State {
            listener: Arc::clone(&socket.listener),
            reserved: socket.reserved,
            begun: Instant::now(),
            asked: Cell::new(None),
            wanted: Rc::default(),
        });
        let index = self.0.borrow_mut().insert(Rc::clone(&state));
        Seat { seats: Rc::clone(self), index, state }
    }

    /// The first one to make room, and what tells it so.
    pub(super) fn longest_idle(
        &self,
        listener: Option<&Listener>,
        reserved: bool,
    ) -> Option<(Idle, Rc<Notify>)> {
        let now = Instant::now();
        let seats = self.0.borrow();
        let idle = seats.iter().filter_map(|(_, seat)| {
            if seat.reserved != reserved
                || listener.is_some_and(|it| !seat.listener.is_named_as(it))
            {
                return None;
            }
            let asked = seat.asked.get();
            let quiet = now.saturating_duration_since(asked.unwrap_or(seat.begun));
            let idle = match reserved {
                false => Idle::new(asked.is_some(), quiet)?,
                true => Idle::reserved(quiet),
            };
            Some((idle, seat))
        });
        let (idle, seat) = idle.min_by_key(|(idle, _)| *idle)?;
        Some((idle, Rc::clone(&seat.wanted)))
    }
}

impl Seat {
    /// Its client has asked something.
    pub(super) fn asked(&self) {
        self.state.asked.set(Some(Instant::now()));
    }

    /// When that was.
    pub(super) fn asked_at(&self) -> Option<Instant> {
        self.state.asked.get()
    }

    /// Waits until another connection needs its place; it is to be given up then.
    pub(super) async fn wanted(&self, client: IpAddr) {
        let State { listener, wanted, .. } = &*self.state;
        wanted.notified().await;
        listener.refusals().ended(Some(client), "max_connections", "made room for another client");
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.0.borrow_mut().remove(self.index);
    }
}
