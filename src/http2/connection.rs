//! One end of a connection: bytes come in, events and bytes go out.
//!
//! The caller feeds what its socket read to [`Connection::next`] until that has no event left,
//! and writes what was appended to `out`. It keeps the message bodies itself: DATA is handed out as
//! ranges of the input, as it arrives, and is credited to the peer by [`Connection::credit`] for all
//! streams and by [`Connection::credit_stream`] for its own.

mod context;
mod control;
mod event;
mod forgotten;
mod heads;
mod receive;
mod send;

use std::collections::HashMap;

use self::forgotten::Forgotten;
pub use self::{context::Context, event::Event};
use super::{
    flow::{ReceiveWindow, SendWindow},
    frame::{self, Reason},
    hpack::{Decoder, Encoder},
    identity::ByIdentity,
    limits::{Budget, Limits},
};

/// Which end this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It opens streams.
    Client,
    /// It answers on them.
    Server,
}

/// The connection is over; GOAWAY with this reason was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fatal(pub Reason);

/// An event, or none, or the end.
type Outcome = Result<Option<Event>, Fatal>;

/// The `call` of a stream that was not marked.
pub const NONE: u32 = u32::MAX;

/// One end of a connection.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    limits: Limits,
    budget: Budget,
    reading: Reading,
    /// The beginning of a frame whose rest has not come.
    partial: Vec<u8>,
    /// When that began, or when more of a DATA frame's payload came.
    cut_at: u64,
    assembling: Option<Assembling>,
    decoder: Decoder,
    encoder: Encoder,
    streams: HashMap<u32, Stream, ByIdentity>,
    /// The highest stream that the peer opened.
    highest: u32,
    /// The next stream that this end opens.
    next: u32,
    receive: ReceiveWindow,
    send: SendWindow,
    peer: Settings,
    settled: bool,
    /// The peer has acknowledged the SETTINGS of this end, which are sent once.
    acknowledged: bool,
    told_to_go: Option<u32>,
    went: Option<u32>,
    forgotten: Forgotten,
    /// The peer has made this end reset too many streams.
    overdrawn: bool,
    /// The peer broke the protocol for good.
    over: Option<Fatal>,
}

#[derive(Debug)]
struct Stream {
    call: u32,
    send: SendWindow,
    receive: ReceiveWindow,
    /// The peer may still send.
    receiving: bool,
    /// This end may still send.
    sending: bool,
    /// The head has come: what comes next is a body or trailers.
    headed: bool,
    /// This end has sent its head.
    answered: bool,
    /// What `content-length` leaves to come.
    expected: Option<u64>,
    /// From when on a reset is what its client said it would do, in the caller's milliseconds.
    due: u64,
}

impl Stream {
    /// Counts a DATA frame's payload against `content-length` (RFC 9113, 8.1.1), when its head has
    /// come, so that what is handed out does not depend on how much of it came at once.
    fn expects(&mut self, bytes: usize, end: bool) -> bool {
        let Some(expected) = &mut self.expected else { return true };
        match expected.checked_sub(bytes as u64) {
            Some(rest) if !end || rest == 0 => {
                *expected = rest;
                true
            }
            _ => false,
        }
    }
}

/// The peer's settings that matter here (RFC 9113, 6.5.2).
#[derive(Debug, Clone, Copy)]
struct Settings {
    streams: u32,
    window: u32,
    frame: usize,
    header_list: usize,
}

/// Where in the input the reader is.
#[derive(Debug, Clone, Copy)]
enum Reading {
    /// This much of the client's preface has come.
    Preface(usize),
    /// A frame's head is next.
    Frame,
    /// The padding's length is next, in a DATA frame.
    Padding(frame::Head),
    /// Payload of DATA is next, then padding.
    Data { stream: u32, left: usize, padding: usize, end: bool, wanted: bool },
}

/// A header block whose last frame has not come.
#[derive(Debug)]
struct Assembling {
    stream: u32,
    end: bool,
    depends_on_itself: bool,
    frames: usize,
    since: u64,
    bytes: Vec<u8>,
}

impl Connection {
    /// Begins a connection: appends the preface, where it is a client's, and SETTINGS.
    pub fn new(role: Role, limits: Limits, out: &mut Vec<u8>) -> Self {
        let mut settings = vec![
            (frame::INITIAL_WINDOW_SIZE, limits.stream_window),
            (frame::MAX_HEADER_LIST_SIZE, limits.header_list as u32),
        ];
        match role {
            Role::Client => {
                out.extend_from_slice(frame::PREFACE);
                settings.push((frame::ENABLE_PUSH, 0));
            }
            Role::Server => settings.push((frame::MAX_CONCURRENT_STREAMS, limits.streams)),
        }
        frame::put_settings(&settings, out);
        let more = limits.connection_window.saturating_sub(DEFAULT_WINDOW);
        if more > 0 {
            frame::put_window_update(0, more, out);
        }
        Self {
            role,
            limits,
            budget: Budget::new(limits.frames, limits.streams),
            reading: match role {
                Role::Client => Reading::Frame,
                Role::Server => Reading::Preface(0),
            },
            partial: Vec::new(),
            cut_at: 0,
            assembling: None,
            decoder: Decoder::new(TABLE),
            encoder: Encoder::new(TABLE),
            streams: HashMap::default(),
            highest: 0,
            next: 1,
            receive: ReceiveWindow::new(limits.connection_window.max(DEFAULT_WINDOW)),
            send: SendWindow::new(DEFAULT_WINDOW),
            peer: Settings {
                streams: u32::MAX,
                window: DEFAULT_WINDOW,
                frame: DEFAULT_FRAME,
                header_list: usize::MAX,
            },
            settled: false,
            acknowledged: false,
            told_to_go: None,
            went: None,
            forgotten: Forgotten::default(),
            overdrawn: false,
            over: None,
        }
    }

    /// Whether the peer's SETTINGS have come, which are its preface.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether the peer has opened a stream, at some time.
    pub fn has_asked(&self) -> bool {
        self.highest > 0
    }

    /// Whether a stream is open.
    pub fn has_stream(&self, id: u32) -> bool {
        self.streams.contains_key(&id)
    }

    /// Streams that are open.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// How many streams the peer takes at a time.
    pub fn max_streams(&self) -> usize {
        self.peer.streams as usize
    }

    /// The largest header list that the peer takes, in bytes (RFC 9113, 6.5.2).
    pub fn max_header_list(&self) -> usize {
        self.peer.header_list
    }

    /// Whether the peer has said GOAWAY: it takes no new stream.
    pub fn is_told_to_go(&self) -> bool {
        self.told_to_go.is_some() || self.next > frame::STREAM
    }

    /// Whether so many streams were opened that another connection should take its place: their
    /// numbers end (RFC 9113, 5.1.1).
    pub fn is_spent(&self) -> bool {
        self.next > SPENT
    }

    /// Whether the last GOAWAY was said.
    pub fn has_gone(&self) -> bool {
        self.went.is_some()
    }

    /// Since when a frame or a header block has not been whole, in the caller's milliseconds; of a
    /// client's DATA, which is handed out as it comes, since when no more of it has come. Of an
    /// endpoint's it is not told: other clocks run there, and it carries everybody's calls.
    pub fn is_waiting_since(&self) -> Option<u64> {
        if let Some(block) = &self.assembling {
            return Some(block.since);
        }
        let cut = match self.reading {
            Reading::Preface(_) => false,
            Reading::Frame => !self.partial.is_empty(),
            Reading::Padding(_) | Reading::Data { .. } => self.role == Role::Server,
        };
        cut.then_some(self.cut_at)
    }

    /// Waits anew for what is not whole: it was this end that did not read on.
    pub fn wait_anew(&mut self, now: u64) {
        self.cut_at = now;
        if let Some(block) = &mut self.assembling {
            block.since = now;
        }
    }

    /// Counts a stream whose request was answered by a refusal; false where there are too many.
    pub fn err(&mut self, now: u64) -> bool {
        self.budget.err(now)
    }

    /// The key under `limits.frames` of the bound by which the peer has ended the connection.
    pub fn exceeded(&self) -> Option<&'static str> {
        self.budget.exceeded()
    }

    /// Sets the caller's number for a stream.
    pub fn mark(&mut self, stream: u32, call: u32) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.call = call;
        }
    }

    /// Sets the caller's number for a stream that its client has said to give up from `due` on, in
    /// the caller's milliseconds: a reset from then on is none that is counted.
    pub fn mark_until(&mut self, stream: u32, call: u32, due: u64) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            (stream.call, stream.due) = (call, due);
        }
    }

    /// The caller's numbers of open streams above `last`.
    pub fn calls_above(&self, last: u32) -> impl Iterator<Item = u32> {
        let above = self.streams.iter().filter(move |(id, _)| **id > last);
        above.map(|(_, stream)| stream.call)
    }

    /// The caller's number of the lowest open stream above `last`: the first that a peer did not
    /// take up.
    pub fn call_after(&self, last: u32) -> Option<u32> {
        let above = self.streams.iter().filter(|(id, _)| **id > last);
        above.min_by_key(|(id, _)| **id).map(|(_, stream)| stream.call)
    }

    /// The caller's numbers of all open streams, which are lost with the connection.
    pub fn calls(&self) -> impl Iterator<Item = u32> {
        self.streams.values().map(|stream| stream.call)
    }
}

/// Half of the numbers there are: the other half is left for those that are opened meanwhile.
const SPENT: u32 = 1 << 30;
const DEFAULT_WINDOW: u32 = 65_535;
const DEFAULT_FRAME: usize = 16_384;
const TABLE: usize = 4096;
