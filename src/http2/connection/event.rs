//! What a peer said, as the caller is told.

use crate::http2::{block::Block, frame::Reason};

/// What came in. `call` is what [`mark`](super::Connection::mark) set for the stream, or [`NONE`](super::NONE).
#[derive(Debug)]
pub enum Event {
    /// A stream's first block that is not informational: a request's head opens the stream.
    Head {
        /// The stream.
        stream: u32,
        /// The caller's number for it.
        call: u32,
        /// A checked request or response head.
        block: Block,
        /// Of a response.
        status: u16,
        /// Whether that is all.
        end: bool,
    },
    /// A request whose head is larger than the limit; its stream is open.
    TooLarge {
        /// The stream.
        stream: u32,
        /// The fields up to the limit.
        block: Block,
        /// Whether that is all.
        end: bool,
    },
    /// A response's head or trailers are larger than the limit; its stream is closed by that.
    Overlong {
        /// The stream.
        stream: u32,
        /// The caller's number for it.
        call: u32,
        /// It was the trailers.
        trailers: bool,
        /// It has too many fields, and is not too large otherwise.
        fields: bool,
    },
    /// Payload, or the end without any.
    Data {
        /// The stream.
        stream: u32,
        /// The caller's number for it.
        call: u32,
        /// Where it begins in the input.
        start: usize,
        /// Where it ends.
        stop: usize,
        /// Whether it is the last.
        end: bool,
    },
    /// The last block of a stream.
    Trailers {
        /// The stream.
        stream: u32,
        /// The caller's number for it.
        call: u32,
        /// Checked trailers.
        block: Block,
    },
    /// The peer broke the protocol on the stream, which is closed by that, and told so.
    Broken {
        /// The stream.
        stream: u32,
        /// The caller's number for it; none of a request whose head was malformed.
        call: u32,
        /// What the peer was told.
        reason: Reason,
    },
    /// The peer reset the stream.
    Reset {
        /// The stream.
        stream: u32,
        /// The caller's number for it.
        call: u32,
        /// Why.
        reason: Reason,
    },
    /// More may be sent: on a stream, or on all of them (0).
    Window {
        /// The stream.
        stream: u32,
        /// The caller's number for it.
        call: u32,
    },
    /// The peer's SETTINGS have changed what may be sent, or how many streams may be open.
    Settings,
    /// The peer takes no stream above this one.
    GoAway {
        /// The last that it may have processed.
        last: u32,
        /// Why.
        reason: Reason,
    },
}
