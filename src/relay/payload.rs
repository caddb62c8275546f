//! Payload as it comes.

use std::ops::Range;

/// Bytes of one direction of a call: a part of what a socket read, or the relay's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Payload<'a> {
    input: &'a [u8],
    start: usize,
    stop: usize,
    /// It is large, and read in this turn: it can be written from where it is.
    in_place: bool,
}

impl<'a> Payload<'a> {
    /// No bytes.
    pub(super) const NONE: Self = Self { input: &[], start: 0, stop: 0, in_place: false };

    /// A part of what a socket read.
    pub(super) fn read(input: &'a [u8], range: Range<usize>) -> Self {
        Self { input, start: range.start, stop: range.end, in_place: input.len() >= BULK }
    }

    /// Bytes that the relay made.
    pub(super) fn own(bytes: &'a [u8]) -> Self {
        Self { input: bytes, start: 0, stop: bytes.len(), in_place: false }
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &'a [u8] {
        &self.input[self.start..self.stop]
    }

    /// All that the socket read with them.
    pub(super) fn input(&self) -> &'a [u8] {
        self.input
    }

    /// Where they are in it.
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.stop
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.stop - self.start
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.stop
    }

    /// Whether they are worth being written without a copy.
    pub(super) fn is_in_place(&self) -> bool {
        self.in_place && self.len() >= LARGE
    }

    /// The first `at` bytes, and the others.
    pub(super) fn split_at(self, at: usize) -> (Self, Self) {
        let middle = self.start + at;
        (Self { stop: middle, ..self }, Self { start: middle, ..self })
    }
}

/// From so much in one read on, in bytes, its parts are written without waiting for more.
const BULK: usize = 64 << 10;
/// Smaller parts are copied, in bytes.
const LARGE: usize = 4 << 10;
