//! Buffers for what links write: taken when there is something, given back when it is written.

/// A worker's spare buffers. The one given back last is taken first, as the caches still have it.
#[derive(Debug, Default)]
pub(super) struct Buffers(Vec<Vec<u8>>);

impl Buffers {
    /// Sees that `out` has room before something is appended.
    pub(super) fn supply(&mut self, out: &mut Vec<u8>) {
        if out.capacity() == 0
            && let Some(spare) = self.0.pop()
        {
            *out = spare;
        }
    }

    /// Takes the room of `out` where nothing is in it.
    pub(super) fn reclaim(&mut self, out: &mut Vec<u8>) {
        if out.is_empty() && out.capacity() > 0 {
            let spare = std::mem::take(out);
            if self.0.len() < SPARES && spare.capacity() <= LARGEST {
                self.0.push(spare);
            }
        }
    }
}

/// How many are kept.
const SPARES: usize = 32;
/// Larger ones are not kept, in bytes.
const LARGEST: usize = 128 << 10;
