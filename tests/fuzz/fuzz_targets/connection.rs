//! `http2::Connection` as client and as server, under a peer that the input writes and a caller
//! that the input moves: it never panics, says no more than a few times what it heard, breaks no
//! rule itself, and means the same however its input is split.

#![no_main]

use std::collections::{BTreeMap, HashSet};

use libfuzzer_sys::fuzz_target;
use upbeat::http2::{
    block::Block,
    connection::{Connection, Context, Event, Fatal, NONE, Role},
    frame::{self, DATA, END_STREAM, GOAWAY, HEADERS, Head, RST_STREAM, Reason},
    limits::Limits,
};
use upbeat_fuzz::{Input, Wire};

fuzz_target!(init: upbeat_fuzz::seed("connection"), |bytes: &[u8]| {
    let mut input = Input(bytes);
    let first = input.byte();
    let step = usize::from(input.byte()) + 2;
    let role = if first & 1 == 0 { Role::Server } else { Role::Client };
    let steps = steps(first, Wire::new(role), &mut input);
    let strict = first & 4 != 0;
    let whole = End::new(role, strict).play(&steps, usize::MAX);
    for step in [1, step] {
        assert_eq!(End::new(role, strict).play(&steps, step), whole);
    }
});

/// What happens to the end.
enum Step {
    Hear(Vec<u8>),
    Act(u8, u8, u8),
    Wait(u64),
}

fn steps(first: u8, mut wire: Wire, input: &mut Input<'_>) -> Vec<Step> {
    let mut heard = Vec::new();
    if first & 2 == 0 {
        wire.preface(&[], &mut heard);
    }
    let mut steps = Vec::new();
    while !input.is_empty() && steps.len() < STEPS {
        match input.byte() {
            0..0xc0 => {
                wire.op(input, &mut heard);
                if heard.len() < 4096 && input.0.first().is_some_and(|next| next & 1 != 0) {
                    continue;
                }
                steps.push(Step::Hear(std::mem::take(&mut heard)));
            }
            0xf8.. => steps.push(Step::Wait(u64::from(input.byte()) << 4)),
            act => steps.push(Step::Act(act, input.byte(), input.byte())),
        }
    }
    steps.push(Step::Hear(heard));
    steps
}

/// One of our ends, and what its caller knows.
struct End {
    role: Role,
    connection: Connection,
    context: Context,
    out: Vec<u8>,
    streams: BTreeMap<u32, Local>,
    heard: Heard,
}

#[derive(Default)]
struct Local {
    headed: bool,
    ended: bool,
    owed: usize,
}

/// What came of a play.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    events: Vec<String>,
    payload: BTreeMap<u32, Vec<u8>>,
    out: Vec<u8>,
    fatal: Option<Fatal>,
}

impl End {
    fn new(role: Role, strict: bool) -> Self {
        let limits = Limits {
            streams: STREAMS,
            header_list: 8192,
            header_fields: 50,
            header_frames: 3,
            stream_window: 20_000,
            connection_window: 80_000,
            frames: strict.then(Default::default),
        };
        let mut out = Vec::new();
        let connection = Connection::new(role, limits, &mut out);
        if role == Role::Client {
            out.drain(..frame::PREFACE.len());
        }
        let (context, streams) = (Context::default(), BTreeMap::new());
        Self { role, connection, context, out, streams, heard: Heard::default() }
    }

    fn play(mut self, steps: &[Step], size: usize) -> Heard {
        for step in steps {
            match step {
                Step::Hear(bytes) => {
                    let before = self.out.len();
                    for part in bytes.chunks(size) {
                        self.feed(part);
                    }
                    let said = self.out.len() - before;
                    assert!(said <= 5 * bytes.len() + 100, "{said} bytes for {}", bytes.len());
                }
                Step::Wait(time) => self.context.now += time,
                Step::Act(act, on, more) => self.act(*act, *on, *more),
            }
            if self.heard.fatal.is_some() {
                break;
            }
        }
        check(&self.out);
        self.heard.out = self.out;
        self.heard
    }

    fn feed(&mut self, part: &[u8]) {
        let (mut at, mut count) = (0, 0);
        while self.heard.fatal.is_none() {
            let (connection, context) = (&mut self.connection, &mut self.context);
            match connection.next(part, &mut at, context, &mut self.out) {
                Ok(Some(event)) => self.event(event, part),
                Ok(None) => {
                    assert_eq!(at, part.len());
                    break;
                }
                Err(fatal) => self.heard.fatal = Some(fatal),
            }
            count += 1;
            assert!(count <= part.len() + 1, "events without end");
        }
        assert_eq!(self.connection.streams(), self.streams.len());
        assert!(self.streams.len() <= STREAMS as usize + OPENED);
        assert!(self.connection.calls().all(|call| self.streams.contains_key(&call)));
    }

    fn event(&mut self, event: Event, part: &[u8]) {
        match event {
            Event::Data { stream, call, start, stop, end } => {
                assert!(call == stream && start <= stop && stop <= part.len());
                let payload = self.heard.payload.entry(stream).or_default();
                payload.extend_from_slice(&part[start..stop]);
                self.streams.get_mut(&stream).unwrap().owed += stop - start;
                self.over(stream, end);
            }
            Event::Head { stream, call, block, status, end } => {
                let text = format!("head {stream} {status} {end} {}", text(&block));
                self.heard.events.push(text);
                self.context.recycle(block);
                match status {
                    0 => self.opened(stream),
                    _ => assert_eq!(call, stream),
                }
                self.over(stream, end);
            }
            Event::TooLarge { stream, block, end } => {
                self.heard.events.push(format!("too large {stream} {end} {}", text(&block)));
                self.opened(stream);
                self.over(stream, end);
            }
            Event::Trailers { stream, call, block } => {
                assert_eq!(call, stream);
                self.heard.events.push(format!("trailers {stream} {}", text(&block)));
                self.over(stream, true);
            }
            Event::Overlong { stream, call, trailers, fields } => {
                assert_eq!(call, stream);
                self.heard.events.push(format!("overlong {stream} {trailers} {fields}"));
                self.streams.remove(&stream).unwrap();
            }
            Event::Broken { stream, call, reason } => {
                self.heard.events.push(format!("broken {stream} {reason:?}"));
                match self.streams.remove(&stream) {
                    Some(_) => assert_eq!(call, stream),
                    None => assert_eq!(call, NONE),
                }
            }
            Event::Reset { stream, call, reason } => {
                assert_eq!(call, stream);
                self.heard.events.push(format!("reset {stream} {reason:?}"));
                self.streams.remove(&stream).unwrap();
            }
            event => self.heard.events.push(format!("{event:?}")),
        }
    }

    fn opened(&mut self, stream: u32) {
        self.connection.mark(stream, stream);
        assert!(self.streams.insert(stream, Local::default()).is_none());
    }

    /// The peer is done with a stream; it may be over then.
    fn over(&mut self, stream: u32, end: bool) {
        if end {
            self.heard.events.push(format!("end {stream}"));
        }
        if self.connection.calls().all(|call| call != stream) {
            self.streams.remove(&stream);
        }
    }

    fn act(&mut self, act: u8, on: u8, more: u8) {
        let out = &mut self.out;
        let pick = self.streams.keys().copied().nth(usize::from(on) % self.streams.len().max(1));
        let end = more & 1 != 0;
        if act & 7 == 0 {
            if self.connection.may_open()
                && self.streams.len() < OPENED
                && self.role == Role::Client
            {
                let head = self.head(more);
                let next = self.connection.open(u32::MAX, &head, end, &mut self.out);
                self.opened(next);
                let local = self.streams.get_mut(&next).unwrap();
                (local.headed, local.ended) = (true, end);
            }
            return;
        }
        let Some(id) = pick else {
            if act & 7 == 7 && self.role == Role::Server {
                self.connection.go_away(end, out);
            }
            return;
        };
        let local = self.streams.get_mut(&id).unwrap();
        match act & 7 {
            1 | 2 => {
                let owed = local.owed.min(usize::from(more) << 8);
                local.owed -= owed;
                self.connection.credit(owed, out);
                self.connection.credit_stream(id, owed, 0, out);
            }
            3 | 4 if !local.ended && local.headed => {
                let room = self.connection.capacity(id).min(usize::from(more) << 7);
                local.ended = end;
                self.connection.data(id, &vec![7; room], end, out);
            }
            3..=5 if !local.ended => {
                (local.headed, local.ended) = (true, end || local.headed);
                let ended = local.ended;
                let head = self.head(more);
                self.connection.block(id, &head, ended, &mut self.out);
            }
            6 => {
                self.connection.reset(id, Reason::CANCEL, out);
                self.streams.remove(&id);
            }
            _ => {}
        }
        if self.connection.calls().all(|call| call != id) {
            self.streams.remove(&id);
        }
    }

    fn head(&mut self, more: u8) -> Block {
        let mut block = Block::new();
        let fields = &mut self.context.fields;
        for (name, value) in [(":method", "POST"), (":path", "/a"), ("te", "trailers")] {
            block.push_known(&fields.own(name, value));
        }
        let field = fields.own("x-more", "v");
        block.push_text(field.name(), &vec![b'v'; usize::from(more) * 100]);
        block
    }
}

fn text(block: &Block) -> String {
    let lines = block.lines().map(|line| {
        let mut plain = Vec::new();
        let value = line.text(&mut plain);
        format!("{:?}: {:?}", line.name().plain().escape_ascii(), value.escape_ascii())
    });
    lines.collect::<Vec<_>>().join(", ")
}

/// It broke no rule itself.
fn check(mut out: &[u8]) {
    let (mut over, mut gone) = (HashSet::new(), u32::MAX);
    while let Some((head, rest)) = out.split_first_chunk() {
        let head = Head::parse(head);
        let (payload, rest) = rest.split_at(head.length);
        out = rest;
        let said = over.contains(&head.stream);
        assert!(!said || !matches!(head.kind, DATA | HEADERS), "{head:?}");
        if head.kind == RST_STREAM || matches!(head.kind, DATA | HEADERS) && head.has(END_STREAM) {
            over.insert(head.stream);
        }
        if head.kind == GOAWAY {
            let last = u32::from_be_bytes(payload[..4].try_into().unwrap());
            assert!(last <= gone);
            gone = last;
        }
    }
    assert!(out.is_empty());
}

const STREAMS: u32 = 8;
const OPENED: usize = 12;
const STEPS: usize = 200;
