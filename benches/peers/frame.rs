//! HTTP/2 frames, as bytes: what the load generator and the backend share.
//!
//! Nothing here checks a peer beyond what a measurement needs: the point is to cost next to
//! nothing beside the proxy. A library would cost more than the proxies that are measured.

use std::mem;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITIZED: u8 = 0x20;

pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Every window before SETTINGS and WINDOW_UPDATE, in bytes.
pub(crate) const FIRST_WINDOW: i64 = 65_535;
/// The windows that both ends of a measurement announce, and that every proxy is configured with
/// where it can be: a stream's and a connection's, in bytes.
pub(crate) const STREAM_WINDOW: u32 = 1 << 20;
pub(crate) const CONNECTION_WINDOW: u32 = 8 << 20;

const HEAD: usize = 9;
const LARGEST: usize = 16_384;

/// What a peer did that ends its connection; a reason for the report.
pub(crate) type Fault = &'static str;

/// Appends the nine bytes that open a frame.
fn head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    let length = (length as u32).to_be_bytes();
    let stream = stream.to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    out.extend_from_slice(&stream);
}

/// Appends a whole frame.
pub(crate) fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    head(out, payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
}

/// Appends HEADERS around the block that `encode` appends.
pub(crate) fn headers(
    out: &mut Vec<u8>,
    flags: u8,
    stream: u32,
    encode: impl FnOnce(&mut Vec<u8>),
) {
    let at = out.len();
    head(out, 0, HEADERS, flags | END_HEADERS, stream);
    let block = out.len();
    encode(out);
    let length = ((out.len() - block) as u32).to_be_bytes();
    out[at..at + 3].copy_from_slice(&length[1..]);
}

/// Appends a WINDOW_UPDATE.
pub(crate) fn credit(out: &mut Vec<u8>, stream: u32, bytes: u32) {
    write(out, WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
}

/// Appends SETTINGS with this benchmark's windows, and the credit that makes the connection's.
pub(crate) fn settings(out: &mut Vec<u8>) {
    let mut payload = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
    payload.extend_from_slice(&STREAM_WINDOW.to_be_bytes());
    write(out, SETTINGS, 0, 0, &payload);
    credit(out, 0, CONNECTION_WINDOW - FIRST_WINDOW as u32);
}

/// The settings of a SETTINGS payload.
pub(crate) fn each_setting(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    payload.chunks_exact(6).map(|setting| {
        (u16::from_be_bytes([setting[0], setting[1]]), number(&setting[2..]).unwrap_or_default())
    })
}

/// The number that a payload opens with: WINDOW_UPDATE, RST_STREAM.
pub(crate) fn number(payload: &[u8]) -> Result<u32, Fault> {
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).ok_or("a frame too short")
}

/// The header block of a HEADERS frame, without padding and priority.
pub(crate) fn block(flags: u8, mut payload: &[u8]) -> Result<&[u8], Fault> {
    const SHORT: Fault = "a HEADERS frame too short";
    if flags & END_HEADERS == 0 {
        return Err("a header block in several frames, which no proxy needs here");
    }
    let mut padding = 0;
    if flags & PADDED != 0 {
        let (first, rest) = payload.split_first().ok_or(SHORT)?;
        (padding, payload) = (usize::from(*first), rest);
    }
    if flags & PRIORITIZED != 0 {
        payload = payload.get(5..).ok_or(SHORT)?;
    }
    payload.get(..payload.len().wrapping_sub(padding)).ok_or(SHORT)
}

/// A frame, or a piece of one that carries DATA.
#[derive(Debug)]
pub(crate) enum Part<'a> {
    /// Some bytes of DATA; `end` with the last ones of a stream.
    Data { stream: u32, bytes: &'a [u8], end: bool },
    /// Any other frame, whole.
    Frame { kind: u8, flags: u8, stream: u32, payload: &'a [u8] },
}

/// Cuts what a socket delivers into frames. DATA goes out in the pieces that it came in, so that
/// large messages are never put together.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    /// A frame that is not whole yet, DATA apart.
    partial: Vec<u8>,
    data: Option<Data>,
}

/// DATA that is being received.
#[derive(Debug, Clone, Copy)]
struct Data {
    stream: u32,
    left: usize,
    end: bool,
}

impl Splitter {
    /// Hands on every part that is complete with these bytes.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Part) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if self.partial.is_empty() {
            let used = self.split(bytes, &mut each)?;
            self.partial.extend_from_slice(&bytes[used..]);
        } else {
            let mut all = mem::take(&mut self.partial);
            all.extend_from_slice(bytes);
            let used = self.split(&all, &mut each)?;
            all.drain(..used);
            self.partial = all;
        }
        Ok(())
    }

    /// How many bytes were used: all but those of an incomplete frame.
    fn split(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(Part) -> Result<(), Fault>,
    ) -> Result<usize, Fault> {
        let mut at = 0;
        loop {
            if let Some(Data { stream, left, end }) = self.data {
                let piece = left.min(bytes.len() - at);
                let left = left - piece;
                self.data = (left > 0).then_some(Data { stream, left, end });
                if piece > 0 || left == 0 {
                    let bytes = &bytes[at..at + piece];
                    each(Part::Data { stream, bytes, end: end && left == 0 })?;
                }
                at += piece;
                if left > 0 {
                    return Ok(at);
                }
            }
            let Some(head) = bytes[at..].first_chunk::<HEAD>() else { return Ok(at) };
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let [kind, flags] = [head[3], head[4]];
            let stream = number(&head[5..])? & 0x7fff_ffff;
            if length > LARGEST {
                return Err("a frame over 16 KiB");
            }
            if kind == DATA {
                if flags & PADDED != 0 {
                    return Err("padded DATA, which no proxy needs here");
                }
                at += HEAD;
                self.data = Some(Data { stream, left: length, end: flags & END_STREAM != 0 });
                continue;
            }
            let Some(payload) = bytes[at + HEAD..].get(..length) else { return Ok(at) };
            at += HEAD + length;
            each(Part::Frame { kind, flags, stream, payload })?;
        }
    }
}
