//! What a peer may ask for, counted where its bytes pass.

use crate::config::{Frames, Priorities, Rate, WindowUpdates};

/// Bounds on one connection's peer.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Streams that it may open at a time (SETTINGS_MAX_CONCURRENT_STREAMS).
    pub streams: u32,
    /// Its largest header list (SETTINGS_MAX_HEADER_LIST_SIZE), in bytes.
    pub header_list: usize,
    /// Its most header fields in a list.
    pub header_fields: usize,
    /// Its window for one stream, in bytes.
    pub stream_window: u32,
    /// Its window for all streams, in bytes.
    pub connection_window: u32,
    /// How often it may send frames that cost it nothing. None for our own backends, whose are
    /// not counted.
    pub frames: Option<Frames>,
}

/// A count that refills with time.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: u32,
    burst: u32,
    per_second: u32,
    since: u64,
}

impl Bucket {
    const fn new(rate: Rate) -> Self {
        Self { left: rate.burst, burst: rate.burst, per_second: rate.rate, since: 0 }
    }

    /// Takes one; false where none is left.
    fn take(&mut self, now: u64) -> bool {
        let gained = now.saturating_sub(self.since) * u64::from(self.per_second) / 1000;
        if gained > 0 {
            self.left =
                self.burst.min(self.left.saturating_add(u32::try_from(gained).unwrap_or(u32::MAX)));
            self.since = now;
        }
        self.left.checked_sub(1).inspect(|left| self.left = *left).is_some()
    }
}

/// How often a peer has sent what costs it nothing.
#[derive(Debug)]
pub(super) struct Budget {
    strict: bool,
    ping: Bucket,
    settings: Bucket,
    reset: Bucket,
    unknown: Bucket,
    empty_left: u32,
    priorities: Priorities,
    window_updates: WindowUpdates,
    most_faults: u64,
    faults: u64,
    late: u64,
    goaway: u32,
    priority: u64,
    window_update: u64,
    streams: u64,
    data_sent: u64,
    /// PINGs that go with traffic: grpc-go sends one with the DATA of each round trip, to
    /// measure it.
    earned: u32,
    /// What came once too often.
    exceeded: Option<Cheap>,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cheap {
    Ping,
    Settings,
    /// RST_STREAM before the response's head.
    Reset,
    /// A frame type that RFC 9113 does not have.
    Unknown,
    /// DATA without bytes and without an end.
    Empty,
    /// A stream that it made this end reset.
    Fault,
    /// RST_STREAM on a stream that is closed already: at most one crosses the end of each.
    Late,
    GoAway,
    Priority,
    WindowUpdate,
}

impl Cheap {
    /// The key under `limits.frames` that bounds it.
    fn key(self) -> &'static str {
        match self {
            Self::Ping => "pings",
            Self::Settings => "settings",
            Self::Reset => "resets",
            Self::Unknown => "unknown",
            Self::Empty => "empty_data",
            Self::Fault => "faults",
            Self::Late => "late_resets",
            Self::GoAway => "goaways",
            Self::Priority => "priorities",
            Self::WindowUpdate => "window_updates",
        }
    }
}

impl Budget {
    /// `None` counts nothing.
    pub(super) fn new(frames: Option<Frames>) -> Self {
        let (strict, frames) = (frames.is_some(), frames.unwrap_or_default());
        Self {
            strict,
            ping: Bucket::new(frames.pings),
            settings: Bucket::new(frames.settings),
            reset: Bucket::new(frames.resets),
            unknown: Bucket::new(frames.unknown),
            empty_left: frames.empty_data,
            priorities: frames.priorities,
            window_updates: frames.window_updates,
            most_faults: frames.faults.into(),
            faults: 0,
            late: 0,
            goaway: 0,
            priority: 0,
            window_update: 0,
            streams: 0,
            data_sent: 0,
            earned: 0,
            exceeded: None,
        }
    }

    /// A stream was opened.
    pub(super) fn opened(&mut self) {
        self.streams += 1;
        self.earned = EARNED.min(self.earned + 1);
    }

    /// A DATA frame was sent, for which WINDOW_UPDATEs come back.
    pub(super) fn sent(&mut self) {
        self.data_sent += 1;
        self.earned = EARNED.min(self.earned + 1);
    }

    /// The key of the bound that was passed, where one was.
    pub(super) fn exceeded(&self) -> Option<&'static str> {
        self.exceeded.map(Cheap::key)
    }

    /// Counts a frame; false where it is one too many. `now` is in milliseconds.
    pub(super) fn allow(&mut self, what: Cheap, now: u64) -> bool {
        if !self.strict || self.takes(what, now) {
            return true;
        }
        self.exceeded = Some(what);
        false
    }

    fn takes(&mut self, what: Cheap, now: u64) -> bool {
        match what {
            Cheap::Ping => match self.earned.checked_sub(1) {
                Some(earned) => {
                    self.earned = earned;
                    true
                }
                None => self.ping.take(now),
            },
            Cheap::Settings => self.settings.take(now),
            Cheap::Reset => self.reset.take(now),
            Cheap::Unknown => self.unknown.take(now),
            Cheap::Empty => {
                let left = self.empty_left.checked_sub(1);
                left.inspect(|left| self.empty_left = *left).is_some()
            }
            Cheap::Fault => {
                self.faults += 1;
                self.faults <= self.most_faults + self.streams / 10
            }
            Cheap::Late => {
                self.late += 1;
                self.late <= 100 + self.streams
            }
            Cheap::GoAway => {
                self.goaway += 1;
                self.goaway <= 20
            }
            Cheap::Priority => {
                self.priority += 1;
                let Priorities { burst, per_stream } = self.priorities;
                self.priority <= u64::from(burst) + u64::from(per_stream) * self.streams
            }
            Cheap::WindowUpdate => {
                self.window_update += 1;
                let WindowUpdates { burst, per_stream, per_data } = self.window_updates;
                let earned =
                    u64::from(per_stream) * self.streams + u64::from(per_data) * self.data_sent;
                self.window_update <= u64::from(burst) + earned
            }
        }
    }
}

/// The most PINGs that traffic earns ahead.
const EARNED: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_refills_with_time_up_to_its_burst() {
        let mut bucket = Bucket::new(Rate { burst: 3, rate: 10 });
        assert_eq!([0, 0, 0, 0].map(|now| bucket.take(now)), [true, true, true, false]);
        assert_eq!([50, 100, 110].map(|now| bucket.take(now)), [false, true, false]);
        assert!((0..3).all(|_| bucket.take(60_000)) && !bucket.take(60_000));
    }

    #[test]
    fn pings_are_allowed_with_traffic_and_few_without() {
        let mut budget = Budget::new(Some(Frames::default()));
        for _ in 0..10_000 {
            budget.sent();
            assert!(budget.allow(Cheap::Ping, 0));
        }
        assert_eq!((0..1000).filter(|_| budget.allow(Cheap::Ping, 0)).count(), 20);
    }

    #[test]
    fn backends_are_not_counted() {
        let mut budget = Budget::new(None);
        assert!((0..1000).all(|_| budget.allow(Cheap::Ping, 0)));
    }

    #[test]
    fn window_updates_are_allowed_for_what_was_sent() {
        let mut budget = Budget::new(Some(Frames::default()));
        assert_eq!((0..10).filter(|_| budget.allow(Cheap::WindowUpdate, 0)).count(), 5);
        budget.sent();
        assert_eq!((0..30).filter(|_| budget.allow(Cheap::WindowUpdate, 0)).count(), 15);
    }
}
