//! One client connection: bytes in, finished calls and bytes out. No socket, no clock.

use std::{collections::VecDeque, mem, rc::Rc};

use crate::{
    frame::{self, Fault, Part, Splitter},
    head::Head,
    hpack::{Encoder, Meaning, Reader},
    request::Request,
    streams::Streams,
};

/// A connection as a client sees it.
pub(crate) struct Client {
    pub(crate) out: Vec<u8>,
    /// What ended since the last look.
    pub(crate) ended: Vec<Ended>,
    request: Request,
    body: Rc<[u8]>,
    head: Head,
    splitter: Splitter,
    reader: Reader,
    encoder: Encoder,
    streams: Streams<Stream>,
    next: u32,
    /// Where calls begin to count: no two connections send the same traceparent.
    call: u64,
    /// Starts of calls that wait for the peer's SETTINGS or for a stream.
    waiting: VecDeque<u64>,
    /// Streams with something to send that their windows allow.
    sending: VecDeque<u32>,
    /// The peer's SETTINGS came.
    ready: bool,
    most_streams: usize,
    stream_window: i64,
    window: i64,
    /// Bytes received that the connection's window was not given back for.
    taken: u32,
}

/// A call that ended, or a message that came back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    /// When it was meant to start, in nanoseconds.
    pub(crate) start: u64,
    pub(crate) what: What,
    pub(crate) outcome: Result<(), Fault>,
}

/// What it is that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Call,
    /// A message; its stream goes on.
    Echo(u32),
    /// A stream of messages, after both sides said so.
    Stream,
}

struct Stream {
    start: u64,
    window: i64,
    sent: usize,
    /// Nothing more will be sent.
    closing: bool,
    received: usize,
    taken: u32,
    status: Option<u16>,
}

impl Client {
    pub(crate) fn new(number: usize, request: Request, head: Head, body: Rc<[u8]>) -> Self {
        let mut out = frame::PREFACE.to_vec();
        frame::settings(&mut out);
        Self {
            out,
            ended: Vec::new(),
            request,
            body,
            head,
            splitter: Splitter::default(),
            reader: Reader::new(),
            encoder: Encoder::new(),
            streams: Streams::new(),
            next: 1,
            call: (number as u64) << 40,
            waiting: VecDeque::new(),
            sending: VecDeque::new(),
            ready: false,
            most_streams: usize::MAX,
            stream_window: frame::FIRST_WINDOW,
            window: frame::FIRST_WINDOW,
            taken: 0,
        }
    }

    /// Calls and streams that have not ended.
    pub(crate) fn open(&self) -> usize {
        self.streams.len() + self.waiting.len()
    }

    /// Starts a call, or a stream with its first message, as soon as the peer admits it.
    pub(crate) fn call(&mut self, start: u64) {
        self.waiting.push_back(start);
    }

    /// Sends the next message of a stream.
    pub(crate) fn say(&mut self, id: u32, start: u64) {
        if let Some(stream) = self.streams.get(id) {
            (stream.start, stream.sent) = (start, 0);
            self.sending.push_back(id);
        }
    }

    /// Ends the client's side of a stream.
    pub(crate) fn hang_up(&mut self, id: u32) {
        if let Some(stream) = self.streams.get(id) {
            stream.closing = true;
            frame::write(&mut self.out, frame::DATA, frame::END_STREAM, id, &[]);
        }
    }

    /// Takes what the socket delivered.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut splitter = mem::take(&mut self.splitter);
        splitter.feed(bytes, |part| match part {
            Part::Data { stream, bytes, end } => self.data(stream, bytes.len(), end),
            Part::Frame { kind, flags, stream, payload } => {
                self.frame(kind, flags, stream, payload)
            }
        })?;
        self.splitter = splitter;
        Ok(())
    }

    /// Writes what may be sent into `out`, up to a bound.
    pub(crate) fn pump(&mut self) -> Result<(), Fault> {
        const MOST: usize = 128 << 10;
        while self.ready && self.streams.len() < self.most_streams && self.out.len() < MOST {
            let Some(start) = self.waiting.pop_front() else { break };
            self.open_stream(start)?;
        }
        let echo = matches!(self.request, Request::Echo { .. });
        while self.window > 0 && self.out.len() < MOST {
            // In turns, a frame each, as grpc-go's loop does it.
            let Some(id) = self.sending.pop_front() else { break };
            let Some(stream) = self.streams.get(id) else { continue };
            let left = self.body.len() - stream.sent;
            let size = (16_384.min(left) as i64).min(stream.window).min(self.window);
            if size <= 0 {
                // The stream's own window is closed; its credit puts it back.
                continue;
            }
            let bytes = &self.body[stream.sent..stream.sent + size as usize];
            stream.sent += bytes.len();
            stream.window -= size;
            self.window -= size;
            let last = stream.sent == self.body.len();
            let flags = if last && !echo { frame::END_STREAM } else { 0 };
            frame::write(&mut self.out, frame::DATA, flags, id, bytes);
            if last {
                stream.closing |= !echo;
            } else {
                self.sending.push_back(id);
            }
        }
        Ok(())
    }

    fn open_stream(&mut self, start: u64) -> Result<(), Fault> {
        let id = self.next;
        self.next += 2;
        let stream = Stream {
            start,
            window: self.stream_window,
            sent: 0,
            closing: false,
            received: 0,
            taken: 0,
            status: None,
        };
        self.streams.insert(id, stream)?;
        let (head, encoder, call) = (&mut self.head, &mut self.encoder, self.call);
        let flags = if self.body.is_empty() { frame::END_STREAM } else { 0 };
        frame::headers(&mut self.out, flags, id, |out| head.encode(encoder, call, out));
        self.call += 1;
        if !self.body.is_empty() {
            self.sending.push_back(id);
        }
        Ok(())
    }

    fn frame(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) -> Result<(), Fault> {
        match kind {
            frame::HEADERS => {
                let meaning = self.reader.read(frame::block(flags, payload)?)?;
                self.headers(id, meaning, flags & frame::END_STREAM != 0);
            }
            frame::WINDOW_UPDATE if id == 0 => self.window += i64::from(frame::number(payload)?),
            frame::WINDOW_UPDATE => {
                let credit = i64::from(frame::number(payload)?);
                let size = self.body.len();
                if let Some(stream) = self.streams.get(id) {
                    let stalled = stream.window <= 0 && stream.sent < size;
                    stream.window += credit;
                    if stalled && stream.window > 0 {
                        self.sending.push_back(id);
                    }
                }
            }
            frame::SETTINGS if flags & frame::ACK == 0 => self.settings(payload),
            frame::PING if flags & frame::ACK == 0 => {
                frame::write(&mut self.out, frame::PING, frame::ACK, 0, payload);
            }
            frame::RST_STREAM => self.end(id, Err("RST_STREAM")),
            frame::GOAWAY => return Err("GOAWAY"),
            _ => {}
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) {
        for (name, value) in frame::each_setting(payload) {
            match name {
                frame::HEADER_TABLE_SIZE => self.encoder.resize(value),
                frame::MAX_CONCURRENT_STREAMS => self.most_streams = value as usize,
                frame::INITIAL_WINDOW_SIZE => self.resize_windows(i64::from(value)),
                _ => {}
            }
        }
        self.ready = true;
        frame::write(&mut self.out, frame::SETTINGS, frame::ACK, 0, &[]);
    }

    fn resize_windows(&mut self, window: i64) {
        let more = window - self.stream_window;
        self.stream_window = window;
        let size = self.body.len();
        for (id, stream) in self.streams.each() {
            let stalled = stream.window <= 0 && stream.sent < size;
            stream.window += more;
            if stalled && stream.window > 0 {
                self.sending.push_back(id);
            }
        }
    }

    fn headers(&mut self, id: u32, meaning: Meaning, end: bool) {
        let Some(stream) = self.streams.get(id) else { return };
        stream.status = stream.status.or(meaning.status);
        if end {
            let outcome = match (stream.status, meaning.grpc_status, self.request) {
                (Some(200), Some(0), _) => self.whole(id),
                (Some(200), None, Request::Get) => Ok(()),
                (Some(200), Some(14), _) => Err("grpc-status 14"),
                (Some(200), Some(_), _) => Err("another grpc-status than 0"),
                (Some(200), None, _) => Err("no grpc-status"),
                _ => Err("another :status than 200"),
            };
            self.end(id, outcome);
        }
    }

    /// Whether a response with a good status was complete.
    fn whole(&mut self, id: u32) -> Result<(), Fault> {
        let Some(stream) = self.streams.get(id) else { return Ok(()) };
        match self.request {
            Request::Export { .. } if stream.received < 5 => Err("a response without a message"),
            Request::Echo { .. } if !stream.closing => Err("a stream that ended early"),
            _ => Ok(()),
        }
    }

    fn data(&mut self, id: u32, size: usize, end: bool) -> Result<(), Fault> {
        self.taken += size as u32;
        if self.taken > frame::CONNECTION_WINDOW / 4 {
            frame::credit(&mut self.out, 0, mem::take(&mut self.taken));
        }
        let Some(stream) = self.streams.get(id) else { return Ok(()) };
        stream.received += size;
        stream.taken += size as u32;
        if stream.taken > frame::STREAM_WINDOW / 4 && !end {
            frame::credit(&mut self.out, id, mem::take(&mut stream.taken));
        }
        if let Request::Echo { .. } = self.request
            && stream.received >= self.body.len()
        {
            stream.received -= self.body.len();
            let start = stream.start;
            self.ended.push(Ended { start, what: What::Echo(id), outcome: Ok(()) });
        }
        if end {
            let got = self.request == Request::Get && stream.status == Some(200);
            self.end(id, if got { Ok(()) } else { Err("a response without trailers") });
        }
        Ok(())
    }

    fn end(&mut self, id: u32, outcome: Result<(), Fault>) {
        if let Some(stream) = self.streams.remove(id) {
            let echo = matches!(self.request, Request::Echo { .. });
            let what = if echo { What::Stream } else { What::Call };
            self.ended.push(Ended { start: stream.start, what, outcome });
        }
    }
}
