//! One connection to the backend: bytes in, bytes out. No socket, no clock.

use std::{collections::VecDeque, mem};

use crate::{
    frame::{self, Fault, Part, Splitter},
    head::Head,
    hpack::Encoder,
    pipe::Endpoint,
    streams::Streams,
};

/// A connection as the backend sees it.
pub(super) struct Server {
    echoes: bool,
    out: Vec<u8>,
    greeted: bool,
    splitter: Splitter,
    streams: Streams<Stream>,
    /// What waits for the peer's windows: DATA of a stream.
    owed: VecDeque<(u32, Vec<u8>)>,
    stream_window: i64,
    window: i64,
    /// Bytes received that the connection's window was not given back for.
    taken: u32,
    encoder: Encoder,
    head: Head,
    success: Head,
    failure: Head,
}

struct Stream {
    window: i64,
    /// The message's length as its prefix has it.
    prefix: [u8; 5],
    received: usize,
    taken: u32,
}

impl Endpoint for Server {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        if !self.greeted {
            bytes = bytes.strip_prefix(frame::PREFACE).ok_or("no whole preface")?;
            self.greeted = true;
        }
        let mut splitter = mem::take(&mut self.splitter);
        splitter.feed(bytes, |part| match part {
            Part::Data { stream, bytes, end } => self.data(stream, bytes, end),
            Part::Frame { kind, flags, stream, payload } => {
                self.frame(kind, flags, stream, payload)
            }
        })?;
        self.splitter = splitter;
        Ok(())
    }

    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }
}

impl Server {
    pub(super) fn new(echoes: bool) -> Self {
        let mut out = Vec::new();
        frame::settings(&mut out);
        Self {
            echoes,
            out,
            greeted: false,
            splitter: Splitter::default(),
            streams: Streams::new(),
            owed: VecDeque::new(),
            stream_window: frame::FIRST_WINDOW,
            window: frame::FIRST_WINDOW,
            taken: 0,
            encoder: Encoder::new(),
            head: Head::response(),
            success: Head::trailers("0", ""),
            failure: Head::trailers("13", "the body is not what its prefix says"),
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) -> Result<(), Fault> {
        match kind {
            frame::HEADERS if !self.streams.is_past(id) => self.request(id, flags)?,
            // Trailers of a request, which no client here sends but which end it all the same.
            frame::HEADERS => self.finish(id),
            frame::WINDOW_UPDATE => {
                let credit = i64::from(frame::number(payload)?);
                match self.streams.get(id) {
                    _ if id == 0 => self.window += credit,
                    Some(stream) => stream.window += credit,
                    None => {}
                }
                self.pay();
            }
            frame::SETTINGS if flags & frame::ACK == 0 => {
                for (name, value) in frame::each_setting(payload) {
                    match name {
                        frame::HEADER_TABLE_SIZE => self.encoder.resize(value),
                        frame::INITIAL_WINDOW_SIZE => {
                            let more = i64::from(value) - self.stream_window;
                            self.stream_window += more;
                            self.streams.each().for_each(|(_, stream)| stream.window += more);
                        }
                        _ => {}
                    }
                }
                frame::write(&mut self.out, frame::SETTINGS, frame::ACK, 0, &[]);
                self.pay();
            }
            frame::PING if flags & frame::ACK == 0 => {
                frame::write(&mut self.out, frame::PING, frame::ACK, 0, payload);
            }
            frame::RST_STREAM => {
                self.streams.remove(id);
            }
            _ => {}
        }
        Ok(())
    }

    fn request(&mut self, id: u32, flags: u8) -> Result<(), Fault> {
        let window = self.stream_window;
        self.streams.insert(id, Stream { window, prefix: [0; 5], received: 0, taken: 0 })?;
        if self.echoes {
            self.head(id);
        }
        if flags & frame::END_STREAM != 0 {
            self.finish(id);
        }
        Ok(())
    }

    fn data(&mut self, id: u32, bytes: &[u8], end: bool) -> Result<(), Fault> {
        self.taken += bytes.len() as u32;
        if self.taken > frame::CONNECTION_WINDOW / 4 {
            frame::credit(&mut self.out, 0, mem::take(&mut self.taken));
        }
        let Some(stream) = self.streams.get(id) else { return Ok(()) };
        stream.taken += bytes.len() as u32;
        if stream.taken > frame::STREAM_WINDOW / 4 && !end {
            frame::credit(&mut self.out, id, mem::take(&mut stream.taken));
        }
        if stream.received < stream.prefix.len() {
            let room = &mut stream.prefix[stream.received..];
            let size = room.len().min(bytes.len());
            room[..size].copy_from_slice(&bytes[..size]);
        }
        stream.received += bytes.len();
        if self.echoes && !bytes.is_empty() {
            self.owed.push_back((id, bytes.to_vec()));
            self.pay();
        }
        if end {
            self.finish(id);
        }
        Ok(())
    }

    /// The request has ended: the rest of its response.
    fn finish(&mut self, id: u32) {
        let Some(stream) = self.streams.get(id) else { return };
        if self.echoes {
            return self.trailers(id, true);
        }
        let [_, length @ ..] = stream.prefix;
        if u32::from_be_bytes(length) as usize + stream.prefix.len() == stream.received {
            // A partial success that is present and empty, as the collector's receiver says it.
            self.owed.push_back((id, b"\0\0\0\0\x02\x0a\0".to_vec()));
            self.pay();
        } else {
            self.head(id);
            self.trailers(id, false);
        }
    }

    /// Sends what waits, as far as the windows admit it.
    fn pay(&mut self) {
        while let Some((id, bytes)) = self.owed.front() {
            let (id, size) = (*id, bytes.len() as i64);
            let Some(stream) = self.streams.get(id) else {
                self.owed.pop_front();
                continue;
            };
            if self.window < size || stream.window < size {
                return;
            }
            self.window -= size;
            stream.window -= size;
            let Some((_, bytes)) = self.owed.pop_front() else { return };
            if self.echoes {
                frame::write(&mut self.out, frame::DATA, 0, id, &bytes);
            } else {
                self.head(id);
                frame::write(&mut self.out, frame::DATA, 0, id, &bytes);
                self.trailers(id, true);
            }
        }
    }

    fn head(&mut self, id: u32) {
        write(&mut self.out, &mut self.encoder, &mut self.head, 0, id);
    }

    /// Ends a stream, well or not.
    fn trailers(&mut self, id: u32, success: bool) {
        let fields = if success { &mut self.success } else { &mut self.failure };
        write(&mut self.out, &mut self.encoder, fields, frame::END_STREAM, id);
        self.streams.remove(id);
    }
}

fn write(out: &mut Vec<u8>, encoder: &mut Encoder, fields: &mut Head, flags: u8, id: u32) {
    frame::headers(out, flags, id, |out| fields.encode(encoder, 0, out));
}
