//! What a peer may ask for, counted where its bytes pass.

mod bucket;

use self::bucket::{Bucket, Terms};
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
    /// The frames of a header block, its HEADERS and what continues it.
    pub header_frames: usize,
    /// Its window for one stream, in bytes.
    pub stream_window: u32,
    /// Its window for all streams, in bytes.
    pub connection_window: u32,
    /// How often it may send frames that cost it nothing; none where these are not counted.
    pub frames: Option<Counted>,
}

/// How frames are counted that cost their sender nothing.
#[derive(Debug, Clone, Copy)]
pub enum Counted {
    /// Each kind by itself: a client's.
    Kinds(Frames),
    /// All alike, beside those that go with traffic: an endpoint's, which is trusted further.
    Together(Rate),
}

impl Default for Counted {
    fn default() -> Self {
        Self::Kinds(Frames::default())
    }
}

/// How often a peer has sent what costs it nothing. Every count refills, by time and by what the
/// peer does that is worth something; none is over a connection's whole life.
#[derive(Debug)]
pub(super) struct Budget {
    /// None counts nothing.
    frames: Option<Counted>,
    /// Streams that it may open at a time.
    streams: u32,
    buckets: [Bucket; Cheap::ALL.len()],
    /// Streams that were opened, and that were answered.
    opened: u32,
    answered: u32,
    /// DATA frames that were sent, for which WINDOW_UPDATEs come back.
    sent: u32,
    /// DATA frames with payload that came.
    received: u32,
    /// What came once too often, by its key.
    exceeded: Option<&'static str>,
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
    /// The head of an interim response (1xx).
    Interim,
    /// A call that is answered by a refusal.
    Refused,
    /// A stream that is opened after the last GOAWAY.
    Unseen,
}

impl Cheap {
    const ALL: [Self; 13] = [
        Self::Ping,
        Self::Settings,
        Self::Reset,
        Self::Unknown,
        Self::Empty,
        Self::Fault,
        Self::Late,
        Self::GoAway,
        Self::Priority,
        Self::WindowUpdate,
        Self::Interim,
        Self::Refused,
        Self::Unseen,
    ];

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
            Self::Interim => "interim",
            Self::Refused | Self::Unseen => "refused_calls",
        }
    }
}

impl Budget {
    /// Of a peer that may open so many streams at a time; `None` counts nothing.
    pub(super) fn new(frames: Option<Counted>, streams: u32) -> Self {
        let mut budget = Self {
            frames,
            streams,
            buckets: [Bucket::default(); Cheap::ALL.len()],
            opened: 0,
            answered: 0,
            sent: 0,
            received: 0,
            exceeded: None,
        };
        if let Some(frames) = &budget.frames {
            for what in Cheap::ALL {
                budget.buckets[what as usize].left = budget.terms(frames, what).rate.burst;
            }
        }
        budget
    }

    /// A stream was opened.
    pub(super) fn opened(&mut self) {
        self.opened = self.opened.wrapping_add(1);
    }

    /// A stream's response has begun.
    pub(super) fn answered(&mut self) {
        self.answered = self.answered.wrapping_add(1);
    }

    /// Counts a stream whose response was a refusal, which earns nothing; false where there are too
    /// many.
    pub(super) fn err(&mut self, now: u64) -> bool {
        self.answered = self.answered.wrapping_sub(1);
        self.allow(Cheap::Refused, now)
    }

    /// A DATA frame was sent.
    pub(super) fn sent(&mut self) {
        self.sent = self.sent.wrapping_add(1);
    }

    /// A DATA frame with payload has come.
    pub(super) fn received(&mut self) {
        self.received = self.received.wrapping_add(1);
    }

    /// The key of the bound that was passed, where one was.
    pub(super) fn exceeded(&self) -> Option<&'static str> {
        self.exceeded
    }

    /// Notes that the bound of a key was passed, which is not counted here.
    pub(super) fn exceed(&mut self, key: &'static str) {
        self.exceeded = Some(key);
    }

    /// Counts a frame; false where it is one too many. `now` is in milliseconds.
    pub(super) fn allow(&mut self, what: Cheap, now: u64) -> bool {
        let Some(frames) = &self.frames else { return true };
        let terms = self.terms(frames, what);
        let (bucket, key) = match frames {
            Counted::Kinds(_) => (what as usize, what.key()),
            // As many as there are streams at most.
            Counted::Together(_) if what == Cheap::Fault => return true,
            Counted::Together(_) => (0, UPSTREAM),
        };
        if self.buckets[bucket].take(&terms, self.opened, now as u32) {
            return true;
        }
        self.exceed(key);
        false
    }

    fn terms(&self, frames: &Counted, what: Cheap) -> Terms {
        let plain = |rate| Terms { rate, per_ten: 0, per_frame: 0, frames: 0, ahead: 0 };
        let frames = match frames {
            Counted::Kinds(frames) => frames,
            Counted::Together(rate) => {
                let traffic = self.sent.wrapping_add(self.received);
                let (per_ten, per_frame) = (10 * PER_FRAME, PER_FRAME);
                return Terms { rate: *rate, per_ten, per_frame, frames: traffic, ahead: AHEAD };
            }
        };
        match what {
            // grpc-go sends one with the DATA of each round trip, to measure it.
            Cheap::Ping => {
                let terms = plain(frames.pings);
                Terms { per_ten: 10, per_frame: 1, frames: self.sent, ahead: 100, ..terms }
            }
            Cheap::Settings => plain(frames.settings),
            Cheap::Reset => {
                // A client that goes away may cancel all that it has.
                let Rate { burst, rate } = frames.resets;
                let rate = Rate { burst: burst.max(self.streams), rate };
                Terms { per_ten: 1, per_frame: 1, frames: self.answered, ..plain(rate) }
            }
            // No client sends any.
            Cheap::Unknown | Cheap::Interim => plain(frames.unknown),
            Cheap::Empty => {
                let terms = plain(frames.empty_data);
                Terms { per_ten: 10, per_frame: 1, frames: self.received, ahead: 100, ..terms }
            }
            Cheap::Fault => Terms { per_ten: 1, ..plain(frames.faults) },
            Cheap::Late => Terms { per_ten: 10, ahead: 1000, ..plain(frames.late_resets) },
            Cheap::GoAway => plain(frames.goaways),
            Cheap::Refused => {
                // All that it sends at once may err before it hears of it.
                let Rate { burst, rate } = frames.refused_calls;
                let terms = plain(Rate { burst: burst.max(self.streams), rate });
                Terms { per_frame: 1, frames: self.answered, ..terms }
            }
            Cheap::Unseen => {
                // All that it may have had on the way, and what it opens until it has read GOAWAY.
                let Rate { burst, rate } = frames.refused_calls;
                plain(Rate { burst: burst.max(self.streams.saturating_mul(2)), rate })
            }
            Cheap::Priority => {
                let Priorities { burst, rate, per_stream } = frames.priorities;
                let per_ten = per_stream.saturating_mul(10);
                Terms { per_ten, ahead: AHEAD, ..plain(Rate { burst, rate }) }
            }
            Cheap::WindowUpdate => {
                let WindowUpdates { burst, rate, per_stream, per_data } = frames.window_updates;
                Terms {
                    per_ten: per_stream.saturating_mul(10),
                    per_frame: per_data,
                    frames: self.sent,
                    ahead: AHEAD,
                    ..plain(Rate { burst, rate })
                }
            }
        }
    }
}

/// The most frames that streams and payload earn ahead.
const AHEAD: u32 = 10_000;
/// Frames that an endpoint may send for each stream and for each DATA frame, sent or received.
const PER_FRAME: u32 = 20;
/// The key that bounds an endpoint's.
const UPSTREAM: &str = "max_upstream_frames";

#[cfg(test)]
mod tests {
    use super::*;

    fn strict() -> Budget {
        Budget::new(Some(Counted::default()), 128)
    }

    #[test]
    fn pings_are_allowed_with_traffic_and_few_without() {
        let mut budget = strict();
        for _ in 0..10_000 {
            budget.sent();
            assert!(budget.allow(Cheap::Ping, 0));
        }
        assert_eq!((0..1000).filter(|_| budget.allow(Cheap::Ping, 0)).count(), 20);
    }

    #[test]
    fn an_endpoints_frames_are_counted_together_beyond_those_of_traffic() {
        let rate = Rate { burst: 100, rate: 10 };
        let mut budget = Budget::new(Some(Counted::Together(rate)), 0);
        let mut all = Cheap::ALL.into_iter().filter(|what| *what != Cheap::Fault).cycle();
        let mut taken = |budget: &mut Budget, now| {
            (0..1000).filter(|_| budget.allow(all.next().unwrap(), now)).count()
        };
        assert_eq!(taken(&mut budget, 0), 100);
        budget.opened();
        budget.sent();
        budget.received();
        assert_eq!(taken(&mut budget, 0), 60);
        assert_eq!(taken(&mut budget, 1000), 10);
        assert_eq!(budget.exceeded(), Some(UPSTREAM));
        assert!((0..1000).all(|_| budget.allow(Cheap::Fault, 0)));
    }

    #[test]
    fn window_updates_are_allowed_for_what_was_sent() {
        let mut budget = strict();
        assert_eq!((0..10).filter(|_| budget.allow(Cheap::WindowUpdate, 0)).count(), 5);
        budget.sent();
        assert_eq!((0..30).filter(|_| budget.allow(Cheap::WindowUpdate, 0)).count(), 20);
    }

    #[test]
    fn no_count_is_over_a_whole_life() {
        for what in Cheap::ALL {
            let mut budget = strict();
            while budget.allow(what, 0) {}
            assert!(!budget.allow(what, 0) && budget.exceeded() == Some(what.key()));
            assert!((2..100).all(|second| budget.allow(what, second * 1000)), "{what:?}");
        }
    }

    #[test]
    fn answered_calls_and_some_of_those_that_are_opened_earn_resets() {
        let mut budget = strict();
        assert_eq!((0..300).filter(|_| budget.allow(Cheap::Reset, 0)).count(), 200);
        for _ in 0..20 {
            budget.opened();
        }
        budget.answered();
        assert_eq!((0..10).filter(|_| budget.allow(Cheap::Reset, 0)).count(), 3);
        // Not ahead of the burst.
        (0..1000).for_each(|_| budget.answered());
        assert_eq!((0..2000).filter(|_| budget.allow(Cheap::Reset, 0)).count(), 200);
    }

    #[test]
    fn a_client_may_cancel_all_the_streams_that_it_may_have() {
        let mut budget = Budget::new(Some(Counted::default()), 1000);
        assert_eq!((0..1500).filter(|_| budget.allow(Cheap::Reset, 0)).count(), 1000);
    }

    #[test]
    fn each_stream_may_begin_with_an_empty_frame() {
        let mut budget = strict();
        for _ in 0..10_000 {
            budget.opened();
            assert!(budget.allow(Cheap::Empty, 0));
        }
    }
}
