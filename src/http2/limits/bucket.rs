//! Counts that refill.

use crate::config::Rate;

/// A count that refills.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    pub(super) left: u32,
    /// Up to when time, streams and frames are reckoned in.
    since: u32,
    streams: u32,
    frames: u32,
}

/// How a count refills.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) rate: Rate,
    /// For ten streams that were opened.
    pub(super) per_ten: u32,
    /// For each frame that is worth something, of which there were so many.
    pub(super) per_frame: u32,
    pub(super) frames: u32,
    /// The most that streams and frames earn ahead.
    pub(super) ahead: u32,
}

impl Bucket {
    /// Takes one; false where none is left. `now` is in milliseconds, and may wrap.
    pub(super) fn take(&mut self, terms: &Terms, streams: u32, now: u32) -> bool {
        let Rate { burst, rate } = terms.rate;
        let gained = u64::from(now.wrapping_sub(self.since)) * u64::from(rate) / 1000;
        if gained > 0 {
            // What is left of a whole one counts on.
            self.since = self.since.wrapping_add((gained * 1000).div_ceil(rate.into()) as u32);
            self.add(gained, burst);
        }
        let most = burst.max(terms.ahead);
        let (ten, opened) = (u64::from(terms.per_ten), streams.wrapping_sub(self.streams));
        let earned = u64::from(opened) * ten / 10;
        if earned > 0 {
            self.streams = self.streams.wrapping_add((earned * 10).div_ceil(ten) as u32);
            self.add(earned, most);
        }
        // Below what it was where one was taken back.
        let frames = terms.frames.wrapping_sub(self.frames) as i32;
        self.frames = terms.frames;
        self.add(frames.max(0) as u64 * u64::from(terms.per_frame), most);
        self.left.checked_sub(1).inspect(|left| self.left = *left).is_some()
    }

    /// Adds some, up to `most`, and takes none away.
    fn add(&mut self, more: u64, most: u32) {
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.left = self.left.max(self.left.saturating_add(more).min(most));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_refills_with_time_up_to_its_burst() {
        let rate = Rate { burst: 3, rate: 10 };
        let terms = Terms { rate, per_ten: 0, per_frame: 0, frames: 0, ahead: 0 };
        let mut bucket = Bucket { left: 3, ..Bucket::default() };
        let mut take = |now| bucket.take(&terms, 0, now);
        assert_eq!([0, 0, 0, 0].map(&mut take), [true, true, true, false]);
        assert_eq!([50, 150, 199, 200].map(&mut take), [false, true, false, true]);
        assert!((0..3).all(|_| take(60_000)) && !take(60_000));
    }

    #[test]
    fn a_bucket_outlives_the_turn_of_its_clock() {
        let rate = Rate { burst: 3, rate: 10 };
        let terms = Terms { rate, per_ten: 0, per_frame: 0, frames: 0, ahead: 0 };
        let mut bucket = Bucket { since: u32::MAX - 99, ..Bucket::default() };
        assert!(!bucket.take(&terms, 0, u32::MAX) && bucket.take(&terms, 0, 0));
    }
}
