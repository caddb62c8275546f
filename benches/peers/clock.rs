//! The one look at the clock.

use std::time::Instant;

/// Now.
pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time, never paused")]
    Instant::now()
}
