//! A connection as the relay holds it: the protocol's end, the socket, and what waits for it.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use tokio::{net::TcpStream, sync::Notify};

use super::{
    Listener, call::CallKey, cancel::Allowance, cause::Cause, feed::Unread, lane::LaneKey,
    parts::Parts, payload::Payload,
};
use crate::{
    auth::Peer,
    http2::{connection::Connection, frame::Reason},
    tls::Session,
};

/// One connection, to a client or to an endpoint.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) kind: Kind,
    pub(super) socket: Rc<TcpStream>,
    /// Where what goes over the socket is under TLS.
    pub(super) session: Option<Box<Session>>,
    /// What was read and waits for its turn.
    pub(super) unread: Option<Box<Unread>>,
    /// The last read was more than one turn takes, or nothing was read yet: the next one is small, so
    /// that little waits.
    pub(super) busy: bool,
    /// What is to be written, from `written` on.
    pub(super) out: Vec<u8>,
    written: usize,
    /// What the socket has taken since the beginning, in bytes.
    taken: u64,
    /// What is to be written between them.
    parts: Parts,
    /// Whether the link is on the list of those to be written at the end of the turn.
    pub(super) dirty: bool,
    /// The socket took less than there was.
    pub(super) blocked: bool,
    /// When the socket took something last, or had nothing to take.
    pub(super) moved_at: u64,
    /// The socket takes nothing any more, and may still have something to be read.
    deaf: bool,
    /// It is closed when `out` is written.
    pub(super) closing: bool,
    /// Why it ends: what was seen first.
    pub(super) cause: Option<Cause>,
    /// The endpoint has said GOAWAY, with this reason.
    pub(super) told: Option<Reason>,
    /// GOAWAY was said; new streams are not waited for.
    pub(super) draining: bool,
    /// It has brought a response: an endpoint that closes it was worth connecting to.
    pub(super) served: bool,
    /// Wakes the link's task.
    pub(super) changed: Rc<Notify>,
    /// Told when an endpoint's first SETTINGS have come.
    pub(super) settled: Rc<Notify>,
    /// Directions of calls that have more for this link than it took.
    pub(super) waiting: VecDeque<(CallKey, Direction)>,
    /// Calls may wait until it takes one.
    pub(super) awaited: bool,
    /// It is on the list of those with payload that waits.
    pub(super) held: bool,
    /// Frames are sent for however little.
    pub(super) pressed: bool,
    /// Since when no stream is open, or the time of the last sign of life before there was one.
    pub(super) quiet_since: u64,
    /// When it is asked to end, for its age; then, when it was.
    pub(super) old_at: u64,
    /// When something came last, or when no stream was open.
    pub(super) heard_at: u64,
    /// A client's, beyond those that its listener takes: it may ask for health alone.
    pub(super) reserved: bool,
    /// Resets that were sent to an endpoint.
    pub(super) resets: Allowance,
    /// Since when an endpoint's link looks dead and takes no calls, and how often it did so since it
    /// brought a response.
    pub(super) suspected_at: Option<u64>,
    pub(super) suspicions: u8,
    /// The doubts of its endpoint that it knows.
    pub(super) doubts: u32,
    /// How much waits of a client's calls, and how much of its window it is not given back for that,
    /// in bytes.
    pub(super) buffered: usize,
    pub(super) withheld: usize,
    /// Where a client's connection comes from.
    pub(super) client: Option<SocketAddr>,
    /// Whom a client's certificate names.
    pub(super) peer: Peer,
    /// When it was asked for a sign of life.
    pub(super) pinged_at: Option<u64>,
}

/// Who is at the other end.
#[derive(Debug)]
pub(super) enum Kind {
    /// A client of this listener.
    Client(Arc<Listener>),
    /// The endpoint of this lane.
    Endpoint(LaneKey),
}

/// Which way payload goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// To the endpoint.
    Request,
    /// To the client.
    Response,
}

impl Link {
    pub(super) fn new(
        connection: Connection,
        kind: Kind,
        socket: Rc<TcpStream>,
        out: Vec<u8>,
        now: u64,
        old_at: u64,
    ) -> Self {
        Self {
            connection,
            kind,
            socket,
            session: None,
            unread: None,
            busy: true,
            out,
            written: 0,
            taken: 0,
            parts: Parts::default(),
            dirty: false,
            blocked: false,
            moved_at: now,
            deaf: false,
            closing: false,
            cause: None,
            told: None,
            draining: false,
            served: false,
            changed: Rc::default(),
            settled: Rc::default(),
            waiting: VecDeque::new(),
            awaited: false,
            held: false,
            pressed: false,
            quiet_since: now,
            old_at,
            heard_at: now,
            reserved: false,
            resets: Allowance::default(),
            suspected_at: None,
            suspicions: 0,
            doubts: 0,
            buffered: 0,
            withheld: 0,
            client: None,
            peer: Peer::Nobody,
            pinged_at: None,
        }
    }

    /// Where a client comes from, and what it connected to.
    pub(super) fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.client.zip(self.socket.local_addr().ok())
    }

    /// How much payload it takes now: what its socket has not taken is bounded.
    pub(super) fn room(&self) -> usize {
        HIGH_WATER.saturating_sub(self.unwritten())
    }

    /// How much of `wanted` may be sent on a stream now; nothing where that is too little to be
    /// worth a frame.
    pub(super) fn room_on(&self, stream: u32, wanted: usize) -> usize {
        let room = self.room().min(self.connection.capacity(stream));
        if room >= wanted {
            return wanted;
        }
        if room >= self.connection.worth() || self.pressed { room } else { 0 }
    }

    fn unwritten(&self) -> usize {
        self.out.len() - self.written + self.parts.bytes()
    }

    /// What the socket may have taken since the beginning, in bytes.
    pub(super) fn taken(&self) -> u64 {
        let sealed = self.session.as_ref().map_or(0, |session| session.sealed());
        self.taken + sealed as u64
    }

    /// What it will have taken when all that there is now is written.
    pub(super) fn end(&self) -> u64 {
        self.taken + self.unwritten() as u64
    }

    /// Whether so much waits for its socket that its peer is not read any more: answers without
    /// payload, which no window bounds, would pile up.
    pub(super) fn is_full(&self) -> bool {
        self.out.len() - self.written > 2 * HIGH_WATER
    }

    /// Sends payload on a stream, large parts of what is being read from where they are. True where
    /// [`Link::send_parts`] has to follow.
    pub(super) fn send(&mut self, stream: u32, payload: Payload<'_>, end: bool) -> bool {
        if self.blocked || self.deaf || !payload.is_in_place() {
            self.connection.data(stream, payload.bytes(), end, &mut self.out);
            return false;
        }
        let (first, start) = (self.parts.is_empty(), payload.range().start);
        let parts = &mut self.parts;
        self.connection.data_by(stream, payload.len(), end, &mut self.out, |out, part| {
            parts.push(out.len(), start + part.start..start + part.end);
        });
        first
    }

    /// Writes the parts of `input` that are to be sent; what the socket does not take is copied.
    pub(super) fn send_parts(&mut self, input: &[u8], now: u64) {
        while !self.parts.is_empty() && !self.blocked {
            let (socket, session, taken) = (&self.socket, &mut self.session, &mut self.taken);
            let write = |slices: &[IoSlice<'_>]| {
                let written = match session {
                    None => socket.try_write_vectored(slices),
                    Some(session) => session.write(socket, slices),
                };
                written.inspect(|bytes| *taken += *bytes as u64)
            };
            let written = self.parts.write(&self.out, self.written, input, write);
            self.wrote(written, now);
        }
        if !self.parts.is_empty() {
            self.out = self.parts.join(&self.out, self.written, input);
            self.written = 0;
        }
        self.see_to_rest();
    }

    /// Whether a call can be opened on it now. A head is bounded by no window: many of them would pile
    /// up where the endpoint reads slowly, each larger than the few bytes by which HPACK referred to it.
    pub(super) fn takes_call(&self) -> bool {
        self.connection.may_open() && self.room() > 0
    }

    /// Whether it may be given a new stream.
    pub(super) fn is_open(&self) -> bool {
        !self.closing && !self.deaf && self.suspected_at.is_none()
    }

    /// Writes what the socket takes. An error ends a client's link. An endpoint that closes with
    /// frames of ours unread resets the connection behind its last responses, which the socket
    /// still has: those are read first, and then that read ends the link.
    pub(super) fn write(&mut self, now: u64) {
        if self.deaf {
            self.written = self.out.len();
        }
        while self.written < self.out.len() && !self.blocked {
            let rest = &self.out[self.written..];
            let written = match &mut self.session {
                None => self.socket.try_write(rest),
                Some(session) => session.write(&self.socket, &[IoSlice::new(rest)]),
            };
            self.taken += written.as_ref().map_or(0, |bytes| *bytes as u64);
            self.wrote(written.map(|bytes| self.written + bytes), now);
        }
        self.see_to_rest();
    }

    fn see_to_rest(&mut self) {
        if self.written == self.out.len() {
            self.blocked = false;
            self.written = 0;
            self.out.clear();
        }
        if self.blocked || self.is_over() {
            self.changed.notify_one();
        }
    }

    /// Takes down how far a write came.
    fn wrote(&mut self, written: io::Result<usize>, now: u64) {
        match written {
            Ok(written) => {
                self.written = written;
                self.moved_at = now;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.blocked = true,
            Err(error) => {
                self.cause.get_or_insert_with(|| Cause::Failed(error.kind()));
                self.deaf = true;
                self.closing |= matches!(self.kind, Kind::Client(_));
                self.parts.clear();
                self.written = self.out.len();
            }
        }
    }

    /// Gives it up, and what was not written.
    pub(super) fn abandon(&mut self, cause: Cause) {
        self.cause.get_or_insert(cause);
        self.closing = true;
        self.out.clear();
        self.written = 0;
        self.changed.notify_one();
    }

    /// Whether all is written and nothing more will be.
    pub(super) fn is_over(&self) -> bool {
        self.closing && self.out.is_empty()
    }

    /// Says GOAWAY in its two phases; the second follows when the client has seen the first.
    pub(super) fn drain(&mut self, now: u64) {
        if !self.draining {
            self.draining = true;
            (self.quiet_since, self.old_at) = (now, now);
            self.connection.go_away(false, &mut self.out);
        }
    }

    /// Ends it at once.
    pub(super) fn close(&mut self, reason: Reason) {
        if !self.closing {
            self.cause.get_or_insert(match reason {
                Reason::SETTINGS_TIMEOUT => Cause::Unsettled,
                _ => Cause::Retired,
            });
            self.closing = true;
            self.connection.abort(reason, &mut self.out);
        }
    }
}

/// Payload that may wait for one socket, in bytes.
const HIGH_WATER: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::BytesMut;
    use tokio::{io::Interest, net::TcpListener};

    use super::*;
    use crate::http2::{connection::Role, limits::Limits};

    #[tokio::test]
    async fn what_an_endpoint_sent_before_its_reset_is_still_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = Rc::new(TcpStream::connect(address).await.unwrap());
        let (endpoint, _) = listener.accept().await.unwrap();
        let limits = Limits {
            streams: 0,
            header_list: 1024,
            header_fields: 100,
            header_frames: 8,
            stream_window: 65_535,
            connection_window: 65_535,
            frames: None,
        };
        let mut out = Vec::new();
        let connection = Connection::new(Role::Client, limits, &mut out);
        let kind = Kind::Endpoint(LaneKey::default());
        let mut link = Link::new(connection, kind, Rc::clone(&socket), out, 0, u64::MAX);

        endpoint.writable().await.unwrap();
        assert_eq!(endpoint.try_write(b"the last response").unwrap(), 17);
        socket.ready(Interest::READABLE).await.unwrap();
        let now = Some(Duration::ZERO);
        socket2::SockRef::from(&endpoint).set_linger(now).unwrap();
        drop(endpoint);
        for _ in 0..2 {
            link.out.extend_from_slice(b"frames that nobody reads");
            link.write(0);
            assert!(link.out.is_empty() && !link.is_over() && !link.is_open());
        }
        let mut seen = BytesMut::new();
        while socket.ready(Interest::READABLE).await.is_ok()
            && socket.try_read_buf(&mut seen).is_ok_and(|read| read > 0)
        {}
        assert_eq!(seen, &b"the last response"[..]);
    }
}
