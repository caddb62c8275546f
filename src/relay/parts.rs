//! Parts of what is being read, to be written where they are.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    ops::Range,
};

/// Parts that belong between the bytes of a buffer.
#[derive(Debug, Default)]
pub(super) struct Parts {
    parts: VecDeque<Part>,
    bytes: usize,
}

#[derive(Debug)]
struct Part {
    /// Its place in the buffer.
    at: usize,
    /// Where it is in what was read.
    range: Range<usize>,
}

impl Parts {
    /// How many bytes they have.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Puts one at the end of the buffer.
    pub(super) fn push(&mut self, at: usize, range: Range<usize>) {
        self.bytes += range.len();
        self.parts.push_back(Part { at, range });
    }

    /// Forgets them.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.bytes = 0;
    }

    /// Writes what `out` has from `written` on, with the parts in their places, by one call of
    /// `write`. How much of `out` is written then.
    pub(super) fn write(
        &mut self,
        out: &[u8],
        written: usize,
        input: &[u8],
        write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let (mut count, mut place) = (0, written);
        for part in &self.parts {
            if count + 2 > SLICES {
                break;
            }
            if part.at > place {
                slices[count] = IoSlice::new(&out[place..part.at]);
                (count, place) = (count + 1, part.at);
            }
            slices[count] = IoSlice::new(&input[part.range.clone()]);
            count += 1;
        }
        if count < SLICES && place == self.parts.back().map_or(place, |last| last.at) {
            slices[count] = IoSlice::new(&out[place..]);
            count += 1;
        }
        let taken = write(&slices[..count])?;
        Ok(self.advance(out.len(), written, taken))
    }

    /// Leaves out what was written, `taken` bytes from `written` on.
    fn advance(&mut self, length: usize, mut written: usize, mut taken: usize) -> usize {
        while let Some(part) = self.parts.front_mut() {
            let before = taken.min(part.at - written);
            let within = (taken - before).min(part.range.len());
            written += before;
            taken -= before + within;
            part.range.start += within;
            self.bytes -= within;
            if !part.range.is_empty() {
                return written;
            }
            self.parts.pop_front();
        }
        length.min(written + taken)
    }

    /// What is left of `out` from `written` on, with the parts in their places.
    pub(super) fn join(&mut self, out: &[u8], mut written: usize, input: &[u8]) -> Vec<u8> {
        let mut joined = Vec::with_capacity(out.len() - written + self.bytes);
        for part in self.parts.drain(..) {
            joined.extend_from_slice(&out[written..part.at]);
            joined.extend_from_slice(&input[part.range]);
            written = part.at;
        }
        self.bytes = 0;
        joined.extend_from_slice(&out[written..]);
        joined
    }
}

/// Pieces in one call of the system.
const SLICES: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_and_what_is_left_make_the_whole(
            pieces in prop::collection::vec((1_usize..20, 1_usize..300), 1..100),
            tail in 0_usize..20,
            before in 0_usize..20,
            takes in prop::collection::vec(1_usize..3000, 0..8),
        ) {
            let input: Vec<u8> = (0..40_000).map(|at| (at % 251) as u8).collect();
            let (mut out, mut parts, mut whole, mut read) =
                (vec![1; before], Parts::default(), Vec::new(), 0);
            for (own, length) in pieces {
                out.extend(vec![252; own]);
                whole.extend(vec![252; own]);
                parts.push(out.len(), read..read + length);
                whole.extend_from_slice(&input[read..read + length]);
                read += length;
            }
            out.extend(vec![253; tail]);
            whole.extend(vec![253; tail]);
            // What comes before was written in an earlier turn.
            let (mut written, mut seen) = (before, Vec::new());
            for take in takes {
                if parts.is_empty() {
                    break;
                }
                let mut left = take;
                written = parts.write(&out, written, &input, |slices| {
                    for slice in slices {
                        let more = slice.len().min(left);
                        seen.extend_from_slice(&slice[..more]);
                        left -= more;
                    }
                    Ok(take - left)
                }).unwrap();
            }
            let left = parts.bytes();
            let joined = parts.join(&out, written, &input);
            prop_assert_eq!(joined.len(), out.len() - written + left);
            seen.extend_from_slice(&joined);
            prop_assert!(seen == whole);
        }
    }
}
