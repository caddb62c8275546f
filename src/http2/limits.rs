//! What a peer may ask for, counted where its bytes pass.

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
    /// Whether frames that cost it nothing are counted: of clients, not of our own backends.
    pub strict: bool,
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
    const fn new(burst: u32, per_second: u32) -> Self {
        Self { left: burst, burst, per_second, since: 0 }
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
    empty: u32,
    faults: u64,
    priority: u64,
    window_update: u64,
    streams: u64,
    data_sent: u64,
    /// PINGs that go with traffic: grpc-go sends one with the DATA of each round trip, to
    /// measure it.
    earned: u32,
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
    Priority,
    WindowUpdate,
}

impl Budget {
    pub(super) fn new(strict: bool) -> Self {
        Self {
            strict,
            ping: Bucket::new(20, 10),
            settings: Bucket::new(20, 10),
            reset: Bucket::new(200, 50),
            unknown: Bucket::new(100, 100),
            empty: 0,
            faults: 0,
            priority: 0,
            window_update: 0,
            streams: 0,
            data_sent: 0,
            earned: 0,
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

    /// Counts a frame; false where it is one too many. `now` is in milliseconds.
    pub(super) fn allow(&mut self, what: Cheap, now: u64) -> bool {
        if !self.strict {
            return true;
        }
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
                self.empty += 1;
                self.empty <= 100
            }
            Cheap::Fault => {
                self.faults += 1;
                self.faults <= 100 + self.streams / 10
            }
            Cheap::Priority => {
                self.priority += 1;
                self.priority <= 100 * (1 + self.streams)
            }
            Cheap::WindowUpdate => {
                self.window_update += 1;
                self.window_update <= 5 + 2 * (self.streams + 10 * self.data_sent)
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
        let mut bucket = Bucket::new(3, 10);
        assert_eq!([0, 0, 0, 0].map(|now| bucket.take(now)), [true, true, true, false]);
        assert_eq!([50, 100, 110].map(|now| bucket.take(now)), [false, true, false]);
        assert!((0..3).all(|_| bucket.take(60_000)) && !bucket.take(60_000));
    }

    #[test]
    fn pings_are_allowed_with_traffic_and_few_without() {
        let mut budget = Budget::new(true);
        for _ in 0..10_000 {
            budget.sent();
            assert!(budget.allow(Cheap::Ping, 0));
        }
        assert_eq!((0..1000).filter(|_| budget.allow(Cheap::Ping, 0)).count(), 20);
    }

    #[test]
    fn backends_are_not_counted() {
        let mut budget = Budget::new(false);
        assert!((0..1000).all(|_| budget.allow(Cheap::Ping, 0)));
    }

    #[test]
    fn window_updates_are_allowed_for_what_was_sent() {
        let mut budget = Budget::new(true);
        assert_eq!((0..10).filter(|_| budget.allow(Cheap::WindowUpdate, 0)).count(), 5);
        budget.sent();
        assert_eq!((0..30).filter(|_| budget.allow(Cheap::WindowUpdate, 0)).count(), 15);
    }
}
