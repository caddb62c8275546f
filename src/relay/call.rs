//! A call: a client's stream, and the endpoint's stream or the answer that belongs to it.

use std::{net::SocketAddr, ops::Range, rc::Rc, sync::Arc};

use tokio::time::Instant;

use super::{
    End, Listener, flow::Flow, lane::LaneKey, millis, quota::Held, replay::Replay,
    watches::Watching,
};
use crate::{
    config::{NotServingAs, Policy},
    grpc::Status,
    http2::{block::Block, field::Field},
    route::Dialect,
    upstream::{InFlight, Place, Ticket, Turn},
};

/// A call's place, and a number that no other call at that place has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallKey {
    pub(super) index: u32,
    pub(super) serial: u64,
}

/// One stream of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamKey {
    pub(super) link: usize,
    pub(super) stream: u32,
}

/// A call, until its response has ended.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) serial: u64,
    pub(super) listener: Arc<Listener>,
    pub(super) client: StreamKey,
    pub(super) started: Instant,
    pub(super) label: Label,
    pub(super) end: Option<End>,
    pub(super) peer: Peer,
    pub(super) request: Flow,
    pub(super) response: Flow,
    /// How much waits of both, as it was taken down last, in bytes.
    pub(super) buffered: usize,
    /// Whether the response's head was sent.
    pub(super) answered: bool,
    /// Which of the listener's ways it takes, and which of its targets.
    pub(super) way: u16,
    pub(super) target: u16,
    /// When it began, when its client gives it up, and when payload moved last, in milliseconds.
    pub(super) begun: u64,
    pub(super) deadline: u64,
    pub(super) moved_at: u64,
    /// Its place among the retries of an upstream.
    pub(super) retrying: Option<Place>,
    /// What it has of its client's bounds, until it ends.
    pub(super) holds: Holds,
}

/// What a call has of its client's bounds: of its address and its tenant, where these are bounded.
/// Those of most calls are empty, which the first place tells.
#[derive(Debug, Default)]
pub(super) struct Holds(Option<Held>, Option<Held>);

impl Holds {
    /// Adds one more.
    pub(super) fn add(&mut self, held: Option<Held>) {
        match self.0 {
            None => self.0 = held,
            Some(_) => self.1 = held,
        }
    }

    /// Takes bytes that the call brings.
    pub(super) fn took(&self, bytes: usize, now: Instant) {
        if let Some(first) = &self.0 {
            first.took(bytes, now);
            if let Some(second) = &self.1 {
                second.took(bytes, now);
            }
        }
    }
}

impl Call {
    /// Whether an endpoint has it, and not the whole request.
    pub(super) fn is_unfinished(&self) -> bool {
        matches!(self.peer, Peer::Endpoint(_)) && !self.request.ended
    }

    /// How it is treated.
    pub(super) fn policy(&self) -> &Policy {
        &self.listener.ways[usize::from(self.way)].policy
    }

    /// When it ends at the latest, if no payload passes.
    pub(super) fn ends_at(&self) -> u64 {
        let policy = self.policy();
        let bounds = [(self.begun, policy.call_timeout), (self.moved_at, policy.idle_timeout)];
        let ends = bounds.into_iter().filter_map(|(since, bound)| Some(since + millis(bound?)));
        ends.fold(self.deadline, u64::min)
    }
}

/// How a call is counted.
#[derive(Debug)]
pub(super) enum Label {
    /// A health check, which is counted when it is asked, or reflection, which is not.
    Health,
    /// By its index among the worker's methods.
    Known(u32),
    /// By its path, and the field that has it, where it came as one that repeats.
    Path(Box<[u8]>, Option<Rc<Field>>),
}

/// Who answers.
#[derive(Debug)]
pub(super) enum Peer {
    /// An endpoint will.
    Opening(Opening),
    /// An endpoint does.
    Endpoint(Forwarded),
    /// The relay itself.
    Local(Local),
    /// The relay itself, question by question.
    Reflection(Reflection),
}

/// A call without a stream to an endpoint yet.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) head: Block,
    /// The request is its head alone.
    pub(super) bodiless: bool,
    /// The head came in what is being read, where more of the call may follow.
    pub(super) new: bool,
    /// Where in what is being read the payload is that followed.
    pub(super) first: Range<usize>,
    /// The endpoint that it waits for.
    pub(super) waits_for: Option<InFlight>,
    /// Since when, in milliseconds.
    pub(super) waits_since: u64,
    /// It is placed later, or when its request is whole.
    pub(super) delayed: bool,
    /// Its place among those that wait for one of its streams.
    pub(super) waiting: Option<Waiting>,
    /// Its place among those that wait until an endpoint has room, and until when.
    pub(super) queued: Option<(Ticket, u64)>,
    /// Targets without an endpoint for it.
    pub(super) passed: Vec<u16>,
    /// Endpoints that could not be reached.
    pub(super) tried: Vec<SocketAddr>,
    /// Endpoints that had the call and gave it back.
    pub(super) left: Vec<SocketAddr>,
    /// Why the last one could not be reached, or gave it back.
    pub(super) why: Option<String>,
}

impl Opening {
    /// A call that nothing was tried for yet.
    pub(super) fn new(head: Block, bodiless: bool) -> Self {
        Self {
            head,
            bodiless,
            new: false,
            first: 0..0,
            waits_for: None,
            waits_since: 0,
            delayed: false,
            waiting: None,
            queued: None,
            passed: Vec::new(),
            tried: Vec::new(),
            left: Vec::new(),
            why: None,
        }
    }
}

/// A call's place among those that wait for a stream of an endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) at: LaneKey,
    pub(super) turn: Turn,
    /// It is held back, since its client has more than its share.
    pub(super) held_back: bool,
}

/// A call that an endpoint has.
#[derive(Debug)]
pub(super) struct Forwarded {
    pub(super) at: StreamKey,
    /// The status with which the response must end, if its end has none.
    pub(super) missing: Option<Status>,
    /// Until the streams end.
    pub(super) in_flight: InFlight,
    /// Where the head ends in what the link writes.
    pub(super) head_end: u64,
    /// What another endpoint would need, until the response's head has come.
    pub(super) replay: Option<Replay>,
}

/// A call that is answered here.
#[derive(Debug)]
pub(super) struct Local {
    /// What was asked, until it is answered.
    pub(super) asked: Option<Asked>,
    /// Of a Watch that has begun.
    pub(super) watch: Option<Watching>,
}

/// A health check whose message is still on its way.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) dialect: Dialect,
    pub(super) encoding: Option<Vec<u8>>,
    /// How it is to be told that a service is not serving.
    pub(super) way: NotServingAs,
    pub(super) until: u64,
}

/// A stream of reflection.
#[derive(Debug)]
pub(super) struct Reflection {
    pub(super) encoding: Option<Vec<u8>>,
    /// Whether something was asked, and answered.
    pub(super) asked: bool,
    /// When it ends, unless something is asked before.
    pub(super) until: u64,
}
