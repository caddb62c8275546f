//! The worker's state, and the turn: from what came in on a link to what goes out on others.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use slab::Slab;
use tokio::time::Instant;

use super::{
    buffered::Buffered,
    buffers::Buffers,
    call::{Call, CallKey, StreamKey},
    cancel::{Allowance, Cancelled},
    doubt::Doubt,
    idle::IdleLinks,
    lane::{Lane, LaneKey},
    link::Kind,
    links::Links,
    millis,
    own::{Method, Own},
    payload::Payload,
    pings::Pings,
    queue::Queues,
    replay::Replays,
    settings::Settings,
};
use crate::{
    answer::Watch,
    config::{Limits, Rate},
    http2::{
        connection::{Context, Event},
        identity::ByIdentity,
    },
    metrics::Metrics,
    refusals::GivenUp,
    upstream::Upstream,
};

/// All that a worker owns. Everything here runs to its end without waiting.
#[derive(Debug)]
pub(super) struct Engine {
    /// The time of this turn, and of the engine's beginning, from which its own time is counted.
    pub(super) clock: Instant,
    pub(super) begun: Instant,
    pub(super) context: Context,
    pub(super) own: Own,
    pub(super) links: Links,
    pub(super) calls: Slab<Call>,
    /// When to look at each of them for what is late: apart, so that a tick passes by quickly.
    pub(super) looks: Vec<u64>,
    pub(super) lanes: HashMap<LaneKey, Lane, ByIdentity>,
    pub(super) queues: Queues,
    pub(super) methods: Vec<Method>,
    /// Room for a value as text.
    pub(super) plain: Vec<u8>,
    /// Of `methods`, which each configuration has anew.
    pub(super) epoch: u32,
    pub(super) buffers: Buffers,
    /// Room for what came under TLS.
    pub(super) opened: Vec<u8>,
    pub(super) replays: Replays,
    pub(super) buffered: Buffered,
    /// Answers that may be those of a server that stops.
    pub(super) doubts: Vec<Doubt>,
    /// Links that may make room for others, as they were found last.
    pub(super) idle: Option<Box<IdleLinks>>,
    /// Links with something to write.
    pub(super) dirty: Vec<usize>,
    /// Heads that were taken since the last flush.
    pub(super) heads: usize,
    /// Calls whose head waits for what comes with it.
    pub(super) opening: Vec<CallKey>,
    /// Links with payload that waits since too little of it would go.
    pub(super) held: Vec<usize>,
    /// Links that are to send parts of what is being read.
    pub(super) sending: Vec<usize>,
    /// Streams that are answered and whose client goes on, and until when it may.
    pub(super) lingering: Vec<(StreamKey, u64)>,
    /// Streams of endpoints that are to be reset.
    pub(super) cancelled: Vec<Cancelled>,
    pub(super) resets: Rate,
    /// Client addresses that gave up requests.
    pub(super) impatient: HashMap<IpAddr, Allowance>,
    pub(super) address_resets: Rate,
    /// Calls that are placed after a while, and when.
    pub(super) delayed: Vec<(CallKey, u64)>,
    /// What the engine cannot do itself, since it takes time.
    pub(super) commands: Vec<Command>,
    pub(super) serials: u64,
    /// Connections to one endpoint.
    pub(super) most_links: usize,
    /// The last ones that were taken over.
    pub(super) settings: Option<Arc<Settings>>,
    /// How long an endpoint may take nothing of what waits for it, in milliseconds.
    pub(super) patience: u64,
    /// How long a frame of an endpoint may take to be whole, in milliseconds.
    pub(super) frame_patience: u64,
    /// When an endpoint that is silent is sent a PING, and when it is given up, in milliseconds.
    pub(super) pings: Pings,
    /// Connections to endpoints that were ended for what these did.
    pub(super) given_up: GivenUp,
}

/// Work for a task.
#[derive(Debug)]
pub(super) enum Command {
    /// Connect to an endpoint.
    Dial(Arc<Upstream>, LaneKey),
    /// Tell a stream the board's changes.
    Watch(CallKey, Watch),
}

impl Engine {
    pub(super) fn new(limits: &Limits, metrics: &Metrics) -> Self {
        let mut context = Context::default();
        Self {
            clock: Instant::now(),
            begun: Instant::now(),
            own: Own::new(&mut context.fields),
            context,
            links: Links::default(),
            calls: Slab::new(),
            looks: Vec::new(),
            lanes: HashMap::default(),
            queues: Queues::default(),
            methods: Vec::new(),
            plain: Vec::new(),
            epoch: 0,
            buffers: Buffers::new(OUTPUT_ROOM),
            opened: Vec::new(),
            replays: Replays::new(
                usize::try_from(limits.max_replay_size.as_u64()).unwrap_or(usize::MAX),
            ),
            buffered: Buffered::new(limits),
            doubts: Vec::new(),
            idle: None,
            dirty: Vec::new(),
            heads: 0,
            opening: Vec::new(),
            held: Vec::new(),
            sending: Vec::new(),
            lingering: Vec::new(),
            cancelled: Vec::new(),
            resets: limits.upstream_resets,
            impatient: HashMap::new(),
            address_resets: limits.address_resets,
            delayed: Vec::new(),
            commands: Vec::new(),
            serials: 0,
            settings: None,
            most_links: limits.max_upstream_connections as usize,
            patience: millis(limits.send_timeout),
            frame_patience: millis(limits.frame_timeout),
            pings: Pings::of_endpoints(limits),
            given_up: GivenUp::new(metrics),
        }
    }

    /// Whether nothing is left of any link.
    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty()
            && self.calls.is_empty()
            && self.lanes.values().all(|lane| !lane.is_waited_for())
            && self.dirty.is_empty()
            && self.opening.is_empty()
            && self.lingering.is_empty()
            && self.delayed.is_empty()
            && self.cancelled.is_empty()
            && self.queues.is_empty()
            && self.commands.is_empty()
            && self.replays.is_empty()
            && self.doubts.is_empty()
    }

    pub(super) fn event(&mut self, id: usize, event: Event, input: &[u8]) {
        let client = matches!(self.links[id].kind, Kind::Client(_));
        match event {
            Event::Head { stream, block, end, .. } if client => {
                self.request_head(StreamKey { link: id, stream }, block, end);
            }
            Event::Head { call, block, status, end, .. } => {
                self.response_head(call, block, status, end);
            }
            Event::TooLarge { stream, block, end } => {
                self.too_large(StreamKey { link: id, stream }, block, end);
            }
            Event::Overlong { call, trailers, fields, .. } => {
                self.overlong(call, trailers, fields);
            }
            Event::Data { call, start, stop, end, .. } => {
                self.credit(id, stop - start);
                // One that is answered already takes nothing.
                if self.calls.contains(call as usize) {
                    let payload = Payload::read(input, start..stop);
                    match client {
                        true => self.request_data(call, payload, end),
                        false => self.response_data(call, payload, end),
                    }
                }
                if client {
                    self.settle_credit(id);
                }
            }
            Event::Trailers { call, block, .. } => {
                if client {
                    // A client's trailers mean nothing in gRPC.
                    self.context.recycle(block);
                    if self.calls.contains(call as usize) {
                        self.request_data(call, Payload::NONE, true);
                    }
                } else {
                    self.response_trailers(call, block);
                }
            }
            Event::Broken { call, reason, .. } => match client {
                true => self.broken_request(id, call, reason),
                false => self.broken_response(call, reason),
            },
            Event::Reset { call, reason, .. } => {
                // A stream that is answered already has no call, nor has one that failed at once.
                match self.calls.contains(call as usize) {
                    true if client => self.client_reset(call, reason),
                    true => self.endpoint_reset(call, reason),
                    false => {}
                }
            }
            Event::Window { stream: 0, .. } => self.has_room(id),
            Event::Window { call, .. } => self.pump_stream(id, call),
            Event::Settings => {
                self.pump_waiting(id);
                self.settled(id);
            }
            Event::GoAway { last, reason } => {
                if !client {
                    self.told_to_go(id, last, reason);
                }
            }
        }
    }

    /// Puts a link on the list of those to be written, where it has something.
    pub(super) fn touch(&mut self, id: usize) {
        if let Some(link) = self.links.get_mut(id)
            && !link.dirty
        {
            if link.out.is_empty() && !link.closing {
                return self.buffers.reclaim(&mut link.out);
            }
            link.dirty = true;
            self.dirty.push(id);
        }
    }

    /// Writes every link that has something: the end of a turn.
    pub(super) fn flush(&mut self) {
        self.heads = 0;
        while let Some(id) = self.dirty.pop() {
            let Some(link) = self.links.get_mut(id) else { continue };
            link.dirty = false;
            if link.blocked {
                // Its task waits for the socket.
                continue;
            }
            link.write(self.context.now);
            self.buffers.reclaim(&mut link.out);
            if !link.blocked {
                self.has_room(id);
            }
        }
    }

    /// The socket takes bytes again.
    pub(super) fn writable(&mut self, id: usize) {
        if let Some(link) = self.links.get_mut(id) {
            link.blocked = false;
            link.write(self.context.now);
            self.buffers.reclaim(&mut link.out);
            if !link.blocked {
                self.has_room(id);
            }
        }
    }

    /// A link takes more, since its socket took all that there was or its window is open again: what
    /// waits for it goes on, calls before payload that could fill it again.
    fn has_room(&mut self, id: usize) {
        if let Some(link) = self.links.get_mut(id)
            && std::mem::take(&mut link.awaited)
        {
            self.freed(id);
        }
        self.pump_waiting(id);
    }
}

/// Room of spare buffers for what links write, in bytes.
const OUTPUT_ROOM: usize = 2 << 20;
