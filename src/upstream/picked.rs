//! What a pick comes to.

use super::InFlight;

/// What came of picking an endpoint for a call.
#[derive(Debug)]
pub enum Picked {
    /// The call is in flight on one.
    Endpoint(InFlight),
    /// There are some that could take it, and none of them has room.
    Full,
    /// There is none.
    None,
}

impl Picked {
    /// Where there was none, what `other` picks.
    pub fn or_else(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::None => other(),
            picked => picked,
        }
    }
}
