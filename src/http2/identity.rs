//! A hasher for keys that are numbers.

use std::hash::{BuildHasherDefault, Hasher};

/// Of a `HashMap` whose keys are streams or addresses of memory. Nothing mixes them better than one
/// multiplication, and a peer that chose its streams badly would only slow its own connection down.
pub type ByIdentity = BuildHasherDefault<Identity>;

/// The state: the number itself.
#[derive(Debug, Default)]
pub struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 << 8 | u64::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        // The map looks at the upper bits too.
        self.0 = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
