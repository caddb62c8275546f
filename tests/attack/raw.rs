//! The attacker's side of a connection: frames as they are told, lawful or not.
//!
//! [`Raw`] writes and reads at the same time, so that a peer that answers while it is flooded
//! blocks nobody, and keeps count of what it hears in [`Heard`].

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use loona_hpack::Decoder;
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, timeout_at},
};
use upbeat::http2::frame::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, put_settings,
};

use crate::fixture::{
    frame::{self, PREFACE, Part, Splitter, block, number},
    wire::{Field, encode},
};

/// One connection to the proxy.
pub(crate) struct Raw {
    socket: TcpStream,
    splitter: Splitter,
    decoder: Decoder<'static>,
    out: Vec<u8>,
    written: usize,
    next: u32,
    /// Whether what comes is read; true at first.
    pub(crate) reads: bool,
    /// Whether the window that DATA used is given back; true at first.
    pub(crate) credits: bool,
    pub(crate) heard: Heard,
}

/// What the proxy has said.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) closed: Option<Instant>,
    /// The last stream, and the code.
    pub(crate) goaway: Option<(u32, u32)>,
    /// Code by stream.
    pub(crate) resets: BTreeMap<u32, u32>,
    /// By stream that ended in good order: `:status` and grpc-status.
    pub(crate) ended: BTreeMap<u32, Ended>,
    pub(crate) pongs: usize,
    /// Bytes of DATA.
    pub(crate) bytes: usize,
    /// DATA frames, or pieces of them.
    pub(crate) pieces: usize,
}

/// How a response ended.
#[derive(Debug, Default, Clone)]
pub(crate) struct Ended {
    pub(crate) http: String,
    /// Each grpc-status, of which there should be one.
    pub(crate) grpc: Vec<String>,
    pub(crate) message: String,
    whole: bool,
}

impl Heard {
    /// How many streams have ended, in whatever way.
    pub(crate) fn over(&self) -> usize {
        self.resets.len() + self.ended.values().filter(|ended| ended.whole).count()
    }

    /// Whether a stream has ended.
    pub(crate) fn is_over(&self, stream: u32) -> bool {
        self.resets.contains_key(&stream) || self.ended.get(&stream).is_some_and(|it| it.whole)
    }

    /// How many streams ended with this grpc-status alone.
    pub(crate) fn with(&self, code: u8) -> usize {
        let code = code.to_string();
        self.ended.values().filter(|ended| ended.whole && ended.grpc == [&*code]).count()
    }
}

/// What a request of gRPC has at least.
pub(crate) fn request(path: &str) -> Vec<(&str, &str)> {
    vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "upbeat"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
}

impl Raw {
    /// Opens a connection, says these settings, and hears the proxy's.
    pub(crate) async fn connect(
        address: SocketAddr,
        settings: &[(u16, u32)],
    ) -> anyhow::Result<Self> {
        let mut raw = Self::silent(address).await?;
        raw.out.extend_from_slice(PREFACE);
        put_settings(settings, &mut raw.out);
        raw.flush(PATIENCE).await;
        ensure!(raw.heard.closed.is_none(), "closed at once");
        Ok(raw)
    }

    /// Opens a connection and says nothing.
    pub(crate) async fn silent(address: SocketAddr) -> anyhow::Result<Self> {
        let connect = timeout_at(Instant::now() + PATIENCE, TcpStream::connect(address));
        let socket = connect.await.context("connecting takes too long")??;
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            splitter: Splitter::default(),
            decoder: Decoder::new(),
            out: Vec::new(),
            written: 0,
            next: 1,
            reads: true,
            credits: true,
            heard: Heard::default(),
        })
    }

    /// Queues any bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Queues a frame.
    pub(crate) fn put(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        frame::write(&mut self.out, kind, flags, stream, payload);
    }

    /// A fresh stream's number.
    pub(crate) fn stream(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// How many streams it has opened.
    pub(crate) fn opened(&self) -> usize {
        self.next as usize / 2
    }

    /// Queues a request's head on a fresh stream.
    pub(crate) fn open(&mut self, head: &[impl Field], end: bool) -> u32 {
        let stream = self.stream();
        self.head(stream, &encode(head, &[]), end);
        stream
    }

    /// Queues a header block, in as many frames as it needs.
    pub(crate) fn head(&mut self, stream: u32, block: &[u8], end: bool) {
        let mut pieces = block.chunks(16_384).peekable();
        let (mut kind, mut flags) = (HEADERS, if end { END_STREAM } else { 0 });
        loop {
            let piece = pieces.next().unwrap_or_default();
            let last = pieces.peek().is_none();
            self.put(kind, flags | if last { END_HEADERS } else { 0 }, stream, piece);
            if last {
                return;
            }
            (kind, flags) = (CONTINUATION, 0);
        }
    }

    /// Queues a whole unary call of a message of so many bytes.
    pub(crate) fn unary(&mut self, head: &[impl Field], message: usize) -> u32 {
        let stream = self.open(head, false);
        let mut body = vec![0; 5 + message];
        body[1..5].copy_from_slice(&(message as u32).to_be_bytes());
        self.put(DATA, END_STREAM, stream, &body);
        stream
    }

    /// Queues a RST_STREAM.
    pub(crate) fn reset(&mut self, stream: u32, code: u32) {
        self.put(RST_STREAM, 0, stream, &code.to_be_bytes());
    }

    /// Queues a WINDOW_UPDATE.
    pub(crate) fn credit(&mut self, stream: u32, bytes: u32) {
        self.put(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    }

    /// Writes what is queued, and hears what comes meanwhile; false once the peer has closed, or
    /// if it does not take it in this time.
    pub(crate) async fn flush(&mut self, limit: Duration) -> bool {
        self.drive(limit, |raw| raw.out.is_empty()).await;
        self.out.is_empty() && self.heard.closed.is_none()
    }

    /// Hears what comes, and writes what is queued, for a time or until the peer closes.
    pub(crate) async fn listen(&mut self, limit: Duration) {
        self.drive(limit, |_| false).await;
    }

    /// The same, until a condition holds; whether it does.
    pub(crate) async fn until(
        &mut self,
        limit: Duration,
        mut condition: impl FnMut(&Heard) -> bool,
    ) -> bool {
        self.drive(limit, |raw| condition(&raw.heard)).await;
        condition(&self.heard)
    }

    /// Writes what `put` makes, again and again, until the peer closes; returns how often. At most
    /// so often, and so long.
    pub(crate) async fn flood(
        &mut self,
        times: usize,
        limit: Duration,
        mut put: impl FnMut(&mut Self),
    ) -> usize {
        let end = Instant::now() + limit;
        let mut done = 0;
        while done < times && self.heard.closed.is_none() {
            while done < times && self.out.len() < BATCH {
                put(self);
                done += 1;
            }
            let left = end.saturating_duration_since(Instant::now());
            if !self.flush(left).await {
                break;
            }
        }
        done
    }

    /// Writes what `put` makes one step at a time, and has the proxy answer a PING after each `pace`
    /// steps, so that what it has taken is known; returns how many steps it took before it closed
    /// or said GOAWAY, infinity where it never did.
    pub(crate) async fn in_step(
        &mut self,
        most: usize,
        pace: usize,
        mut put: impl FnMut(&mut Self),
    ) -> f64 {
        for done in 1..=most {
            put(self);
            if done % pace == 0 || done == most {
                let pongs = self.heard.pongs;
                self.put(PING, 0, 0, &[7; 8]);
                self.until(PATIENCE, |heard| heard.pongs > pongs || heard.goaway.is_some()).await;
            }
            if self.heard.closed.is_some() || self.heard.goaway.is_some() {
                return done as f64;
            }
        }
        f64::INFINITY
    }

    /// How long from `started` until the peer had closed, in seconds; waits for it up to a limit,
    /// and is more than that where it did not.
    pub(crate) async fn closed(&mut self, started: Instant, limit: Duration) -> f64 {
        self.drive(limit, |_| false).await;
        let closed = self.heard.closed.map(|at| at.saturating_duration_since(started));
        closed.map_or(f64::INFINITY, |after| after.as_secs_f64())
    }

    async fn drive(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + limit;
        while self.heard.closed.is_none() && !done(self) {
            let interest = match (self.reads, self.out.is_empty()) {
                (true, true) => Interest::READABLE,
                (true, false) => Interest::READABLE | Interest::WRITABLE,
                (false, false) => Interest::WRITABLE,
                (false, true) => Interest::ERROR,
            };
            match timeout_at(end, self.socket.ready(interest)).await {
                Err(_) => return,
                Ok(Err(_)) => self.close(),
                Ok(Ok(ready)) => {
                    if ready.is_readable() && self.reads {
                        self.read();
                    }
                    if ready.is_writable() && !self.out.is_empty() {
                        self.write();
                    }
                    if ready.is_error() {
                        self.close();
                    }
                }
            }
        }
    }

    fn close(&mut self) {
        self.heard.closed.get_or_insert_with(Instant::now);
    }

    fn write(&mut self) {
        match self.socket.try_write(&self.out[self.written..]) {
            Ok(written) => self.written += written,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => {
                // What the peer said before it closed is still to be read.
                self.read();
                self.close();
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 16_384];
        loop {
            match self.socket.try_read(&mut buffer) {
                Ok(0) => return self.close(),
                Ok(length) => self.feed(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => return self.close(),
            }
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let (heard, decoder, out) = (&mut self.heard, &mut self.decoder, &mut self.out);
        let credits = self.credits;
        let fed = self.splitter.feed(bytes, |part| {
            match part {
                Part::Data { stream, bytes, end } => {
                    heard.bytes += bytes.len();
                    heard.pieces += 1;
                    if end {
                        heard.ended.entry(stream).or_default().whole = true;
                    }
                    if credits && !bytes.is_empty() {
                        frame::credit(out, 0, bytes.len() as u32);
                        if !end {
                            frame::credit(out, stream, bytes.len() as u32);
                        }
                    }
                }
                Part::Frame { kind, flags, stream, payload } => {
                    heard.frame(kind, flags, stream, payload, decoder, out)?;
                }
            }
            Ok(())
        });
        // A block in several frames is no measurement's business; what follows is read on.
        if fed.is_err() {
            self.splitter = Splitter::default();
        }
    }
}

impl Heard {
    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        decoder: &mut Decoder<'static>,
        out: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        match kind {
            HEADERS => {
                let fields = decoder.decode(block(flags, payload)?).map_err(|_| "bad HPACK")?;
                let ended = self.ended.entry(stream).or_default();
                for (name, value) in fields {
                    let value = String::from_utf8_lossy(&value).into_owned();
                    match &*name {
                        b":status" => ended.http = value,
                        b"grpc-status" => ended.grpc.push(value),
                        b"grpc-message" => ended.message = value,
                        _ => {}
                    }
                }
                ended.whole |= flags & END_STREAM != 0;
            }
            // One after the end, without an error, is only to stop the request.
            RST_STREAM if self.ended.get(&stream).is_some_and(|it| it.whole) => {}
            RST_STREAM => _ = self.resets.insert(stream, number(payload)?),
            SETTINGS if flags & ACK == 0 => frame::write(out, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame::write(out, PING, ACK, 0, payload),
            PING => self.pongs += 1,
            GOAWAY => {
                let code = number(payload.get(4..).unwrap_or_default())?;
                self.goaway = Some((number(payload)?, code));
            }
            _ => {}
        }
        Ok(())
    }
}

/// For what takes a moment.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much is queued before it is written.
const BATCH: usize = 64 << 10;
