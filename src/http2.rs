//! HTTP/2 (RFC 9113) without sockets, clocks or tasks: bytes in, events and bytes out.

pub mod block;
pub mod connection;
pub mod field;
pub mod flow;
pub mod frame;
pub mod hpack;
pub mod huffman;
pub mod identity;
pub mod limits;
pub mod literal;
mod role;
