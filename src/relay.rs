//! A worker's streams: each one from a client is paired with one to an endpoint, or answered here.
//!
//! A worker owns its connections and calls outright, in one `Engine` that never waits:
//! what a socket read is taken through the protocol's end of its link, event by event, and written
//! into the buffers of the links that it is for. At the end of the turn each of these is written
//! once. Only `turn` knows of sockets being ready, of tasks and of time.

mod buffers;
mod call;
mod cause;
mod dial;
mod doubt;
mod downstream;
mod engine;
mod gate;
mod lane;
mod late;
mod link;
mod links;
mod listener;
mod local;
mod own;
mod parts;
mod payload;
mod pick;
mod place;
mod pump;
mod quota;
mod reflection;
mod reload;
mod removed;
mod replay;
mod request;
mod target;
mod times;
mod turn;
mod upstream;

pub use self::{listener::Listener, reload::Settings, turn::Relay};
use crate::grpc::Code;

/// How a call ended, for its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// With this grpc-status.
    Status(Code),
    /// Without reaching a backend.
    Refused(Code),
    /// With a response that is not gRPC's.
    Http,
    /// With a reset from either side.
    Reset,
}
