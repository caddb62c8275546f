//! A connection's open streams.

use std::collections::VecDeque;

use crate::frame::Fault;

/// Streams by their id, without hashing: odd ids that rise by two, most of them short-lived.
#[derive(Debug)]
pub(crate) struct Streams<T> {
    /// The id of the first slot.
    first: u32,
    slots: VecDeque<Option<T>>,
    open: usize,
}

impl<T> Streams<T> {
    pub(crate) fn new() -> Self {
        Self { first: 1, slots: VecDeque::new(), open: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.open
    }

    /// Whether this stream was opened before; it may have been closed since.
    pub(crate) fn is_past(&self, id: u32) -> bool {
        id < self.first + 2 * self.slots.len() as u32
    }

    /// Opens a stream. Its id must be above all before.
    pub(crate) fn insert(&mut self, id: u32, stream: T) -> Result<(), Fault> {
        /// Ten thousand calls may come by one connection at once.
        const MOST: usize = 1 << 16;
        if id.is_multiple_of(2) || self.is_past(id) {
            return Err("a stream id out of order");
        }
        if self.open == 0 {
            self.slots.clear();
            self.first = id;
        }
        let slot = (id - self.first) as usize / 2;
        if slot > MOST {
            return Err("too many streams, or one that stays open for ever");
        }
        self.slots.resize_with(slot, || None);
        self.slots.push_back(Some(stream));
        self.open += 1;
        Ok(())
    }

    pub(crate) fn get(&mut self, id: u32) -> Option<&mut T> {
        let slot = id.checked_sub(self.first)? as usize / 2;
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Closes a stream.
    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let slot = id.checked_sub(self.first)? as usize / 2;
        let stream = self.slots.get_mut(slot)?.take()?;
        self.open -= 1;
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 2;
        }
        Some(stream)
    }

    /// Every open stream with its id.
    pub(crate) fn each(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        let ids = (self.first..).step_by(2);
        ids.zip(&mut self.slots).filter_map(|(id, slot)| Some((id, slot.as_mut()?)))
    }
}
