//! A worker's streams: each one from a client is paired with one to an endpoint, or answered here.
//!
//! A worker owns its connections and calls outright, in one `Engine` that never waits:
//! what a socket read is taken through the protocol's end of its link, event by event, and written
//! into the buffers of the links that it is for. At the end of the turn each of these is written
//! once. Only `turn` knows of sockets being ready, of tasks and of time.
//!
//! ```text
//! turn  dial                      sockets, tasks, time
//! request  gate  local  watches …     what `Engine` does with a call that comes: lets it in, answers it
//! place  pick  lanes  retry …     finds an endpoint and a connection for it, and another one
//! downstream  upstream  pump …    takes what both sides say through to the other
//! times  late  leaving  idle …    ends what is over
//! engine                          all that a worker owns
//! call  flow  link  lane …        what that is; nothing here knows the engine
//! ```

mod buffered;
mod buffers;
mod call;
mod calls;
mod cancel;
mod cause;
mod dial;
mod doubt;
mod downstream;
mod engine;
mod erring;
mod feed;
mod flow;
mod gate;
mod gone;
mod idle;
mod lane;
mod lanes;
mod late;
mod leaving;
mod link;
mod links;
mod listener;
mod local;
mod memory;
mod own;
mod parts;
mod payload;
mod pick;
mod pings;
mod place;
mod pump;
mod queue;
mod quota;
mod reflection;
mod reload;
mod removed;
mod replay;
mod request;
mod reserved;
mod retry;
mod settings;
mod target;
mod times;
mod turn;
mod turned_away;
mod upstream;
mod waiting;
mod watches;

use std::time::Duration;

pub use self::{
    buffered::worker_buffer, idle::Idle, listener::Listener, settings::Settings, turn::Relay,
    watches::Watches,
};
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

/// As the engine counts time.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}
