//! HTTP/2 (RFC 9113) without sockets, clocks or tasks: bytes in, events and bytes out.

pub mod field;
pub mod hpack;
pub mod huffman;
