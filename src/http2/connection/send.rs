//! What this end sends.

use std::ops::Range;

use super::{Connection, ReceiveWindow, Role, SendWindow, Stream};
use crate::http2::{
    block::Block,
    field::Role as FieldRole,
    frame::{self, DATA, END_STREAM, Head, Reason},
};

impl Connection {
    /// Whether the peer takes one more stream now.
    pub fn may_open(&self) -> bool {
        self.settled && !self.is_told_to_go() && self.streams.len() < self.max_streams()
    }

    /// Opens a stream as a client, with a request's head. `end` where that is all.
    pub fn open(&mut self, call: u32, head: &Block, end: bool, out: &mut Vec<u8>) -> u32 {
        debug_assert!(self.role == Role::Client && self.may_open());
        let id = self.next;
        self.next += 2;
        self.budget.opened();
        let stream = Stream {
            call,
            send: SendWindow::new(self.peer.window),
            receive: ReceiveWindow::new(self.limits.stream_window),
            receiving: true,
            sending: true,
            headed: false,
            answered: true,
            expected: None,
            due: u64::MAX,
        };
        self.streams.insert(id, stream);
        self.block(id, head, end, out);
        id
    }

    /// Sends a head or trailers. Nothing happens on a stream that is over.
    pub fn block(&mut self, id: u32, block: &Block, end: bool, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !std::mem::replace(&mut stream.answered, true) {
            self.budget.answered();
        }
        let start = out.len();
        block.write(&mut self.encoder, out, |role| role != FieldRole::HopByHop);
        frame::frame_block(start, id, end, self.peer.frame, out);
        if end {
            self.end(id);
        }
    }

    /// How many bytes may be sent on a stream now.
    pub fn capacity(&self, id: u32) -> usize {
        let stream = self.streams.get(&id).map_or(0, |stream| stream.send.available());
        stream.min(self.send.available())
    }

    /// Tells that streams which the peer does not read hold the window that all share.
    pub fn is_exhausted(&self) -> bool {
        self.send.available() < WORTH
    }

    /// How many bytes are worth a frame of their own where more wait: a window that opens by small
    /// steps makes as many small frames (RFC 1122, 4.2.3.4). A peer whose windows are small from
    /// the beginning gets half of one.
    pub fn worth(&self) -> usize {
        match self.peer.window {
            0 => WORTH,
            window => WORTH.min((window as usize / 2).max(1)),
        }
    }

    /// Sends payload, no more than [`Connection::capacity`]. `end` for the last. Nothing happens
    /// on a stream that is over.
    pub fn data(&mut self, id: u32, bytes: &[u8], end: bool, out: &mut Vec<u8>) {
        self.data_by(id, bytes.len(), end, out, |out, part| out.extend_from_slice(&bytes[part]));
    }

    /// Sends `length` bytes of payload as [`Connection::data`] does, which the caller puts behind
    /// the heads of their frames: `put` is told which part is next.
    pub fn data_by(
        &mut self,
        id: u32,
        length: usize,
        end: bool,
        out: &mut Vec<u8>,
        mut put: impl FnMut(&mut Vec<u8>, Range<usize>),
    ) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.send.spend(length);
        self.send.spend(length);
        let mut start = 0;
        loop {
            let stop = length.min(start + self.peer.frame);
            let flags = if end && stop == length { END_STREAM } else { 0 };
            Head { length: stop - start, kind: DATA, flags, stream: id }.put(out);
            put(out, start..stop);
            self.budget.sent();
            start = stop;
            if start == length {
                break;
            }
        }
        if end {
            self.end(id);
        }
    }

    /// Resets a stream. Nothing happens on one that is over.
    pub fn reset(&mut self, id: u32, reason: Reason, out: &mut Vec<u8>) {
        if self.streams.remove(&id).is_some() {
            frame::put_reset(id, reason, out);
            self.forget(id);
        }
    }

    /// Gives bytes back to the peer for all streams.
    pub fn credit(&mut self, bytes: usize, out: &mut Vec<u8>) {
        if let Some(more) = self.receive.credit(bytes) {
            frame::put_window_update(0, more, out);
        }
    }

    /// Gives bytes of payload back for one stream, and widens its window to `size` where it is
    /// smaller.
    pub fn credit_stream(&mut self, id: u32, bytes: usize, size: u32, out: &mut Vec<u8>) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.receiving
            && let Some(more) = stream.receive.credit_up_to(bytes, size)
        {
            frame::put_window_update(id, more, out);
        }
    }

    /// Says GOAWAY: first that an end is near, which refuses nothing; then, with `last`, that no
    /// stream above the highest so far is taken (RFC 9113, 6.8). After that there is no more to say.
    pub fn go_away(&mut self, last: bool, out: &mut Vec<u8>) {
        if self.went.is_some() {
            return;
        }
        if last {
            self.went = Some(self.highest);
            frame::put_goaway(self.highest, Reason::NO_ERROR, out);
        } else {
            frame::put_goaway(frame::STREAM, Reason::NO_ERROR, out);
            frame::put_ping(0, DRAIN, out);
        }
    }

    /// Says GOAWAY to a peer that is to ask nothing more; its open streams go on.
    pub fn dismiss(&mut self, out: &mut Vec<u8>) {
        if self.went.is_none() {
            self.went = Some(self.highest);
            frame::put_goaway(self.highest, Reason::ENHANCE_YOUR_CALM, out);
        }
    }

    /// Asks for a sign of life, which is anything that comes.
    pub fn ask(&mut self, out: &mut Vec<u8>) {
        frame::put_ping(0, LIVE, out);
    }

    /// Says GOAWAY for good. The streams that it does not name may be tried again elsewhere, and a
    /// later one names no more than an earlier one did (RFC 9113, 6.8).
    pub fn abort(&mut self, reason: Reason, out: &mut Vec<u8>) {
        let last = self.went.unwrap_or(self.highest);
        self.went = Some(last);
        frame::put_goaway(last, reason, out);
    }

    fn end(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.sending = false;
            if !stream.receiving {
                self.streams.remove(&id);
            }
        }
    }

    pub(super) fn forget(&mut self, id: u32) {
        // A client's end takes whatever comes on streams that it has no more.
        if self.role == Role::Server {
            self.forgotten.add(id, RESETS.max(2 * self.limits.streams as usize));
        }
    }

    /// Whether what comes on a stream that is not there is to be passed over: this end reset it, or
    /// never took it, and the peer may not know yet.
    pub(super) fn is_forgotten(&self, id: u32) -> bool {
        self.forgotten.contains(id) || self.went.is_some_and(|last| id > last)
    }
}

/// The PING after the first GOAWAY: its answer shows that the peer has read both.
pub(super) const DRAIN: [u8; 8] = *b"draining";
/// A PING that only asks whether the peer is there.
const LIVE: [u8; 8] = *b"upbeat\0\0";
/// Payload that is worth a frame of its own, in bytes.
pub(super) const WORTH: usize = 1024;
/// Resets that are remembered at least; else twice as many as there may be streams, since each of
/// those may be answered early and reset with its payload on the way.
const RESETS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::{connection::Context, limits::Limits};

    fn client() -> (Connection, Context) {
        let limits = Limits {
            streams: 0,
            header_list: 1024,
            header_fields: 100,
            header_frames: 8,
            stream_window: 65_535,
            connection_window: 65_535,
            frames: None,
        };
        let mut context = Context::default();
        let mut connection = Connection::new(Role::Client, limits, &mut Vec::new());
        let (mut settings, mut at) = (Vec::new(), 0);
        frame::put_settings(&[], &mut settings);
        connection.next(&settings, &mut at, &mut context, &mut Vec::new()).unwrap();
        (connection, context)
    }

    #[test]
    fn a_connection_is_spent_long_before_its_numbers_end() {
        let (mut connection, mut context) = client();
        connection.next = (1 << 30) - 1;
        let (head, mut out) = (context.block(), Vec::new());
        assert!(!connection.is_spent());
        connection.open(0, &head, true, &mut out);
        assert!(connection.is_spent() && connection.may_open(), "calls go on until it is replaced");
        connection.next = frame::STREAM;
        connection.open(0, &head, true, &mut out);
        assert!(!connection.may_open());
    }

    #[test]
    fn no_more_frames_are_taken_than_are_admitted() {
        let (mut connection, mut context) = client();
        let (mut input, mut at, mut out) = (Vec::new(), 0, Vec::new());
        (0..5).for_each(|_| frame::put_ping(0, *b"upbeat..", &mut input));
        context.frames = 2;
        for rest in [3, 1, 0] {
            assert!(connection.next(&input, &mut at, &mut context, &mut out).unwrap().is_none());
            assert_eq!(input.len() - at, rest * 17);
            context.frames = 2;
        }
        assert_eq!(out.len(), 5 * 17);
    }
}
