//! Buffers to be used again: one that is made anew each time costs more than the copy into it.

/// Spare buffers. The one given back last is taken first, as the caches still have it.
#[derive(Debug)]
pub(super) struct Buffers {
    spares: Vec<Vec<u8>>,
    /// Bytes that the spares have room for.
    room: usize,
    /// Bytes that they may have room for.
    most: usize,
    /// Fewest spares since the last `trim`: so many are not needed.
    fewest: usize,
}

impl Buffers {
    /// Keeps spares with room for at most so many bytes together.
    pub(super) fn new(most: usize) -> Self {
        Self { spares: Vec::new(), room: 0, most, fewest: 0 }
    }

    /// Sees that `out` has room before something is appended.
    pub(super) fn supply(&mut self, out: &mut Vec<u8>) {
        if out.capacity() == 0 {
            *out = self.take();
        }
    }

    /// Takes the room of `out` where nothing is in it.
    pub(super) fn reclaim(&mut self, out: &mut Vec<u8>) {
        if out.is_empty() {
            self.give(std::mem::take(out));
        }
    }

    /// Gives a spare, or an empty buffer without room where there is none.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let spare = self.spares.pop().unwrap_or_default();
        self.room -= spare.capacity();
        self.fewest = self.fewest.min(self.spares.len());
        spare
    }

    /// Takes a buffer back, and drops what is in it.
    pub(super) fn give(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 && self.room + buffer.capacity() <= self.most {
            buffer.clear();
            self.room += buffer.capacity();
            self.spares.push(buffer);
        }
    }

    /// Drops the spares that nothing has needed since the last time: what a flood has filled is
    /// not kept for longer than it lasts.
    pub(super) fn trim(&mut self) {
        for unneeded in self.spares.drain(..self.fewest) {
            self.room -= unneeded.capacity();
        }
        self.fewest = self.spares.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_last_is_taken_first_and_no_more_than_so_much_is_kept() {
        let mut buffers = Buffers::new(1000);
        let mut outs = [300, 400, 301, 302].map(Vec::with_capacity);
        outs.iter_mut().for_each(|out| buffers.reclaim(out));
        assert_eq!((buffers.spares.len(), buffers.room), (2, 700));
        assert!(outs.iter().all(|out| out.capacity() == 0));
        buffers.supply(&mut outs[0]);
        assert_eq!((outs[0].capacity(), buffers.room), (400, 300));
        // Neither room that is there already, nor bytes that wait, are taken.
        buffers.supply(&mut outs[0]);
        outs[0].push(7);
        buffers.reclaim(&mut outs[0]);
        assert_eq!((outs[0].len(), buffers.spares.len()), (1, 1));
        buffers.give(outs[0].split_off(0));
        assert!(buffers.take().is_empty());
    }

    #[test]
    fn what_nothing_needed_between_two_trims_is_dropped() {
        let mut buffers = Buffers::new(1000);
        (0..4).for_each(|_| buffers.give(Vec::with_capacity(100)));
        buffers.trim();
        assert_eq!(buffers.spares.len(), 4, "each may have been in use until now");
        let used = [buffers.take(), buffers.take()];
        used.into_iter().for_each(|buffer| buffers.give(buffer));
        buffers.trim();
        assert_eq!((buffers.spares.len(), buffers.room), (2, 200));
        buffers.trim();
        assert_eq!((buffers.spares.len(), buffers.room), (0, 0));
    }
}
