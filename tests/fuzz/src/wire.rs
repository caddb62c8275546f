//! One peer's frames, written as the input says: lawful, if it says no more, and then mutated.

use upbeat::http2::{
    connection::Role,
    frame::{
        self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Head, PADDED,
        PRIORITIZED, PRIORITY, PUSH_PROMISE, WINDOW_UPDATE,
    },
};

use crate::{Input, blocks};

/// A peer that writes.
#[derive(Debug)]
pub struct Wire {
    to: Role,
    next: u32,
    /// A block was begun on it.
    open: u32,
}

impl Wire {
    /// A peer of an end with the role `to`.
    pub fn new(to: Role) -> Self {
        Self { to, next: 1, open: 1 }
    }

    /// Appends what a peer says first.
    pub fn preface(&self, settings: &[(u16, u32)], out: &mut Vec<u8>) {
        if self.to == Role::Server {
            out.extend_from_slice(frame::PREFACE);
        }
        frame::put_settings(settings, out);
    }

    /// Appends a frame, or what became of it.
    pub fn op(&mut self, input: &mut Input<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        let op = input.byte();
        self.frame(op & 0x1f, input, out);
        // What comes before in `out` was written by others, and stays.
        let mut last = out.split_off(start);
        if op & 0x80 != 0 && !last.is_empty() {
            mutate(input, &mut last);
        }
        out.extend(last);
    }

    fn frame(&mut self, op: u8, input: &mut Input<'_>, out: &mut Vec<u8>) {
        match op {
            0..=7 => self.headers(op & 1 != 0, input, out),
            8..=13 => self.data(input, out),
            14 => {
                let mut block = Vec::new();
                blocks::block(input, &mut block);
                let stream = self.stream(input);
                put(HEADERS, END_HEADERS | END_STREAM, stream, &block, out);
            }
            15 => frame::put_reset(self.stream(input), frame::Reason(input.byte().into()), out),
            16 | 17 => {
                let more = input.word() >> (input.byte() & 0x1f);
                let stream = if op == 16 { 0 } else { self.stream(input) };
                put(WINDOW_UPDATE, 0, stream, &more.to_be_bytes(), out);
            }
            18 | 19 => {
                let pairs: Vec<_> = (0..input.byte() % 4)
                    .map(|_| {
                        let id = u16::from(input.byte() % 8);
                        (id, input.word() >> (input.byte() & 0x1f))
                    })
                    .collect();
                frame::put_settings(&pairs, out);
            }
            20 => frame::put_settings_ack(out),
            21 => frame::put_ping(input.byte() & ACK, *b"draining", out),
            22 => {
                let dependency = input.word();
                let mut payload = dependency.to_be_bytes().to_vec();
                payload.push(input.byte());
                put(PRIORITY, 0, self.stream(input), &payload, out);
            }
            23 => {
                let mut block = Vec::new();
                blocks::block(input, &mut block);
                put(CONTINUATION, input.byte(), self.open, &block, out);
            }
            24 => {
                let last = self.stream(input);
                let mut payload = last.to_be_bytes().to_vec();
                payload.extend(u32::from(input.byte() % 16).to_be_bytes());
                put(GOAWAY, 0, 0, &payload, out);
            }
            25 => put(PUSH_PROMISE, END_HEADERS, self.stream(input), &[0, 0, 0, 2, 0x88], out),
            26 => {
                let length = usize::from(input.byte());
                let (kind, flags) = (input.byte(), input.byte());
                let stream = self.stream(input);
                put(kind, flags, stream, input.take(length), out);
            }
            27 => {
                let length = usize::from(input.byte());
                out.extend(input.take(length));
            }
            // Many of one sort.
            28 => {
                let start = out.len();
                let times = input.byte();
                let op = input.byte() % 28;
                self.frame(op, input, out);
                let one = out[start..].to_vec();
                (0..times).for_each(|_| out.extend_from_slice(&one));
            }
            _ => self.data(input, out),
        }
    }

    fn headers(&mut self, opens: bool, input: &mut Input<'_>, out: &mut Vec<u8>) {
        let stream = match opens {
            true => {
                self.next += 2;
                self.next - 2
            }
            false => self.stream(input),
        };
        self.open = stream;
        let flags = input.byte();
        let mut payload = Vec::new();
        if flags & PADDED != 0 {
            payload.push(flags >> 4);
        }
        if flags & PRIORITIZED != 0 {
            payload.extend([0, 0, 0, 0, flags]);
        }
        blocks::block(input, &mut payload);
        if flags & PADDED != 0 {
            payload.resize(payload.len() + usize::from(flags >> 4), 0);
        }
        // Mostly whole: a block without an end stops everything else.
        let whole = if flags & 0x80 == 0 { END_HEADERS } else { 0 };
        put(HEADERS, flags & (PADDED | PRIORITIZED | END_STREAM) | whole, stream, &payload, out);
    }

    fn data(&mut self, input: &mut Input<'_>, out: &mut Vec<u8>) {
        let stream = self.stream(input);
        let (flags, size) = (input.byte(), usize::from(input.byte()));
        let mut payload = Vec::new();
        if flags & PADDED != 0 {
            payload.push(flags >> 4);
        }
        match flags >> 4 & 3 {
            // A gRPC message, whole.
            0 | 1 => {
                payload.push(0);
                payload.extend((size as u32).to_be_bytes());
                payload.resize(payload.len() + size, b'm');
            }
            2 => payload.resize(payload.len() + size * 64, 0),
            _ => payload.extend(input.take(size % 32)),
        }
        if flags & PADDED != 0 {
            payload.resize(payload.len() + usize::from(flags >> 4), 0);
        }
        put(DATA, flags & (PADDED | END_STREAM), stream, &payload, out);
    }

    /// One of the last streams, mostly.
    fn stream(&self, input: &mut Input<'_>) -> u32 {
        match input.byte() {
            back @ 0..0xc0 => self.next.saturating_sub(2 * (u32::from(back) % 8 + 1)).max(1),
            0xc0..0xf0 => self.open,
            0xf0..0xf8 => 0,
            0xf8..0xfc => self.next + 1,
            _ => input.word(),
        }
    }
}

fn mutate(input: &mut Input<'_>, bytes: &mut Vec<u8>) {
    let kind = input.byte();
    let at = match kind & 0x80 {
        // The frame's head is the interesting part.
        0 => usize::from(input.byte()) % bytes.len().min(16),
        _ => input.word() as usize % bytes.len(),
    };
    match kind & 7 {
        0..=2 => bytes[at] ^= 1 << (kind >> 3 & 7),
        3 => bytes[at] = input.byte(),
        4 => bytes.insert(at, input.byte()),
        5 => _ = bytes.remove(at),
        6 => bytes.truncate(at),
        _ => {
            let again = bytes.clone();
            bytes.extend(again);
        }
    }
}

fn put(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    Head { length: payload.len(), kind, flags, stream }.put(out);
    out.extend_from_slice(payload);
}
