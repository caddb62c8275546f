//! Frames as they are written (RFC 9113, 4 and 6).

use std::fmt;

/// The nine bytes before each frame's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Of the payload, in bytes.
    pub length: usize,
    /// The frame type.
    pub kind: u8,
    /// Flags, by type.
    pub flags: u8,
    /// The stream, 0 for the connection.
    pub stream: u32,
}

impl Head {
    /// Its own size, in bytes.
    pub const SIZE: usize = 9;

    /// Reads one. The reserved bit of the stream is passed over.
    pub fn parse(bytes: &[u8; Self::SIZE]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = *bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & STREAM,
        }
    }

    /// Appends it.
    pub fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes());
    }

    /// As it is written.
    pub fn bytes(self) -> [u8; Self::SIZE] {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    /// Whether a flag is set.
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// An error code (RFC 9113, 7), also one that has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(pub u32);

impl Reason {
    /// 0
    pub const NO_ERROR: Self = Self(0);
    /// 1
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// 3
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    /// 4
    pub const SETTINGS_TIMEOUT: Self = Self(4);
    /// 5
    pub const STREAM_CLOSED: Self = Self(5);
    /// 6
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    /// 7
    pub const REFUSED_STREAM: Self = Self(7);
    /// 8
    pub const CANCEL: Self = Self(8);
    /// 9
    pub const COMPRESSION_ERROR: Self = Self(9);
    /// 11
    pub const ENHANCE_YOUR_CALM: Self = Self(11);

    /// Whether a GOAWAY with it says that the peer could not bear what it was sent.
    pub fn blames(self) -> bool {
        matches!(self, Self::PROTOCOL_ERROR | Self::FRAME_SIZE_ERROR | Self::COMPRESSION_ERROR)
    }

    /// As a metric has it.
    pub fn label(self) -> &'static str {
        LABELS.get(self.0 as usize).copied().unwrap_or("other_error")
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "error code {}", self.0),
        }
    }
}

/// By code (RFC 9113, 7).
const NAMES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// By code, as metrics have them.
const LABELS: [&str; 14] = [
    "no_error",
    "protocol_error",
    "internal_error",
    "flow_control_error",
    "settings_timeout",
    "stream_closed",
    "frame_size_error",
    "refused_stream",
    "cancel",
    "compression_error",
    "connect_error",
    "enhance_your_calm",
    "inadequate_security",
    "http_1_1_required",
];

/// Appends SETTINGS with these pairs.
pub fn put_settings(settings: &[(u16, u32)], out: &mut Vec<u8>) {
    Head { length: settings.len() * 6, kind: SETTINGS, flags: 0, stream: 0 }.put(out);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends the acknowledgement of the peer's SETTINGS.
pub fn put_settings_ack(out: &mut Vec<u8>) {
    Head { length: 0, kind: SETTINGS, flags: ACK, stream: 0 }.put(out);
}

/// Appends a PING, or with [`ACK`] the answer to one.
pub fn put_ping(flags: u8, payload: [u8; 8], out: &mut Vec<u8>) {
    Head { length: 8, kind: PING, flags, stream: 0 }.put(out);
    out.extend_from_slice(&payload);
}

/// Appends GOAWAY: streams above `last` were not and will not be processed.
pub fn put_goaway(last: u32, reason: Reason, out: &mut Vec<u8>) {
    Head { length: 8, kind: GOAWAY, flags: 0, stream: 0 }.put(out);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&reason.0.to_be_bytes());
}

/// Appends WINDOW_UPDATE for a stream, or with 0 for the connection.
pub fn put_window_update(stream: u32, bytes: u32, out: &mut Vec<u8>) {
    Head { length: 4, kind: WINDOW_UPDATE, flags: 0, stream }.put(out);
    out.extend_from_slice(&bytes.to_be_bytes());
}

/// Appends RST_STREAM.
pub fn put_reset(stream: u32, reason: Reason, out: &mut Vec<u8>) {
    Head { length: 4, kind: RST_STREAM, flags: 0, stream }.put(out);
    out.extend_from_slice(&reason.0.to_be_bytes());
}

/// Puts the frame heads of HEADERS, and of CONTINUATION where it takes more than one frame, around
/// the block that `out` has from `start` on.
pub fn frame_block(start: usize, stream: u32, end: bool, max: usize, out: &mut Vec<u8>) {
    let length = out.len() - start;
    let flags = if end { END_STREAM } else { 0 };
    if length <= max {
        let head = Head { length, kind: HEADERS, flags: flags | END_HEADERS, stream };
        out.splice(start..start, head.bytes());
        return;
    }
    let block = out.split_off(start);
    let last = block.len().div_ceil(max) - 1;
    for (index, part) in block.chunks(max).enumerate() {
        let (kind, flags) = if index == 0 { (HEADERS, flags) } else { (CONTINUATION, 0) };
        let flags = if index == last { flags | END_HEADERS } else { flags };
        Head { length: part.len(), kind, flags, stream }.put(out);
        out.extend_from_slice(part);
    }
}

/// What a client sends first (RFC 9113, 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// DATA
pub const DATA: u8 = 0;
/// HEADERS
pub const HEADERS: u8 = 1;
/// PRIORITY
pub const PRIORITY: u8 = 2;
/// RST_STREAM
pub const RST_STREAM: u8 = 3;
/// SETTINGS
pub const SETTINGS: u8 = 4;
/// PUSH_PROMISE
pub const PUSH_PROMISE: u8 = 5;
/// PING
pub const PING: u8 = 6;
/// GOAWAY
pub const GOAWAY: u8 = 7;
/// WINDOW_UPDATE
pub const WINDOW_UPDATE: u8 = 8;
/// CONTINUATION
pub const CONTINUATION: u8 = 9;

/// Of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
/// Of SETTINGS and PING.
pub const ACK: u8 = 1;
/// Of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;
/// Of DATA and HEADERS.
pub const PADDED: u8 = 8;
/// Of HEADERS.
pub const PRIORITIZED: u8 = 0x20;

/// SETTINGS_HEADER_TABLE_SIZE
pub const HEADER_TABLE_SIZE: u16 = 1;
/// SETTINGS_ENABLE_PUSH
pub const ENABLE_PUSH: u16 = 2;
/// SETTINGS_MAX_CONCURRENT_STREAMS
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
/// SETTINGS_INITIAL_WINDOW_SIZE
pub const INITIAL_WINDOW_SIZE: u16 = 4;
/// SETTINGS_MAX_FRAME_SIZE
pub const MAX_FRAME_SIZE: u16 = 5;
/// SETTINGS_MAX_HEADER_LIST_SIZE
pub const MAX_HEADER_LIST_SIZE: u16 = 6;

/// The bits of a stream's number, and the largest window.
pub const STREAM: u32 = 0x7fff_ffff;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn heads_come_back(length in 0_usize..1 << 24, kind: u8, flags: u8, stream in 0_u32..=STREAM) {
            let head = Head { length, kind, flags, stream };
            prop_assert_eq!(Head::parse(&head.bytes()), head);
        }

        #[test]
        fn a_block_is_cut_into_frames_that_the_peer_takes(block: Vec<u8>, max in 1_usize..64, end: bool) {
            let mut out = vec![7; 3];
            out.extend_from_slice(&block);
            frame_block(3, 5, end, max, &mut out);
            let (mut rest, mut seen, mut frames) = (&out[3..], Vec::new(), Vec::new());
            while let Some((head, tail)) = rest.split_first_chunk() {
                let head = Head::parse(head);
                prop_assert!(head.length <= max && head.stream == 5);
                seen.extend_from_slice(&tail[..head.length]);
                rest = &tail[head.length..];
                frames.push(head);
            }
            prop_assert_eq!(seen, block);
            prop_assert_eq!(frames[0].kind, HEADERS);
            prop_assert_eq!(frames[0].has(END_STREAM), end);
            prop_assert!(frames[1..].iter().all(|head| head.kind == CONTINUATION));
            let ends = frames.iter().filter(|head| head.has(END_HEADERS)).count();
            prop_assert!(ends == 1 && frames.last().unwrap().has(END_HEADERS));
        }
    }
}
