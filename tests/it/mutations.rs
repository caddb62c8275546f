//! The protocol core under frames that are lawful, and under what becomes of them when they are
//! cut, turned and repeated. No sockets and no clock: bytes in, events and bytes out.

use std::collections::HashSet;

use proptest::{prelude::*, sample::Index};
use tokio::time::Instant;
use upbeat::http2::{
    block::Block,
    connection::{Connection, Context, Event, Fatal, Role},
    frame::{
        self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Head, PADDED,
        PING, PRIORITIZED, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    },
    limits::Limits,
};

use crate::fixture::wire::{Form, encode};

const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), (":authority", "a")];

fn limits(strict: bool) -> Limits {
    Limits {
        streams: 128,
        header_list: 16 << 10,
        header_fields: 100,
        stream_window: 65_535,
        connection_window: 65_535,
        frames: strict.then(Default::default),
    }
}

fn put(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    Head { length: payload.len(), kind, flags, stream }.put(out);
    out.extend_from_slice(payload);
}

type Frame = (Head, Vec<u8>);

/// The frames in `bytes`, which must be whole ones.
fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk() {
        let head = Head::parse(head);
        let (payload, rest) = rest.split_at(head.length);
        frames.push((head, payload.to_vec()));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "a frame that is cut");
    frames
}

/// A server's end that has its client's preface.
struct Server {
    connection: Connection,
    context: Context,
}

impl Server {
    fn new() -> Self {
        let connection = Connection::new(Role::Server, limits(true), &mut Vec::new());
        let mut server = Self { connection, context: Context::default() };
        let mut preface = frame::PREFACE.to_vec();
        frame::put_settings(&[], &mut preface);
        server.feed(&preface).0.unwrap();
        server
    }

    fn feed(&mut self, input: &[u8]) -> (Result<Vec<Event>, Fatal>, Vec<Frame>) {
        let (mut at, mut out, mut events) = (0, Vec::new(), Vec::new());
        loop {
            match self.connection.next(input, &mut at, &mut self.context, &mut out) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => return (Ok(events), frames(&out)),
                Err(fatal) => return (Err(fatal), frames(&out)),
            }
        }
    }
}

fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().unwrap())
}

#[test]
fn a_body_that_breaks_its_length_costs_no_window() {
    let mut server = Server::new();
    let head = encode(&[&POST[..], &[("content-length", "1")]].concat(), &[]);
    let mut window = 65_535_i64;
    for stream in (1..100).step_by(2) {
        let mut input = Vec::new();
        put(HEADERS, END_HEADERS, stream, &head, &mut input);
        put(DATA, END_STREAM, stream, &[0; 10_000], &mut input);
        window -= 10_000;
        assert!(window >= 0, "after {stream} the client may not go on");
        let (outcome, frames) = server.feed(&input);
        outcome.unwrap();
        for (head, payload) in frames {
            if head.kind == WINDOW_UPDATE && head.stream == 0 {
                window += i64::from(number(&payload));
            }
        }
    }
}

#[test]
fn a_goaway_never_names_a_higher_stream_than_the_one_before() {
    let mut server = Server::new();
    let mut input = Vec::new();
    put(HEADERS, END_HEADERS, 1, &encode(&POST, &[]), &mut input);
    server.feed(&input).0.unwrap();
    server.connection.go_away(true, &mut Vec::new());
    input.clear();
    put(HEADERS, END_HEADERS | END_STREAM, 3, &encode(&POST, &[]), &mut input);
    put(DATA, 0, 0, &[], &mut input);
    let (outcome, frames) = server.feed(&input);
    outcome.unwrap_err();
    let last = frames.iter().find(|(head, _)| head.kind == GOAWAY).map(|(_, it)| number(it));
    assert_eq!(last, Some(1), "stream 3 was not taken");
}

#[test]
fn an_idle_stream_is_never_reset() {
    for payload in [&[0, 0, 0, 5, 0][..], &[0; 4]] {
        let mut server = Server::new();
        let mut input = Vec::new();
        put(PRIORITY, 0, 5, payload, &mut input);
        let (_, frames) = server.feed(&input);
        let reset = frames.iter().any(|(head, _)| head.kind == RST_STREAM);
        assert!(!reset, "RFC 9113, 6.4: not for an idle stream");
    }
}

#[test]
fn a_client_that_makes_the_server_reset_is_sent_away() {
    let mut server = Server::new();
    for stream in (1..2000).step_by(2) {
        let mut input = Vec::new();
        put(HEADERS, END_HEADERS, stream, &encode(&POST, &[]), &mut input);
        put(WINDOW_UPDATE, 0, stream, &[0; 4], &mut input);
        if server.feed(&input).0.is_err() {
            assert!(stream / 2 <= 200);
            return;
        }
    }
    panic!("1000 resets were not too many");
}

#[test]
fn nothing_is_read_after_the_end() {
    let mut server = Server::new();
    let mut input = Vec::new();
    put(DATA, 0, 0, &[], &mut input);
    let (ended, _) = server.feed(&input);
    input.clear();
    put(HEADERS, END_HEADERS | END_STREAM, 1, &encode(&POST, &[]), &mut input);
    let (outcome, frames) = server.feed(&input);
    assert_eq!(outcome.unwrap_err(), ended.unwrap_err());
    assert!(frames.is_empty(), "the GOAWAY was said");
}

#[test]
fn a_reference_to_a_long_field_costs_about_what_one_to_a_short_field_does() {
    // The best of a few rounds, so that a busy machine makes no difference.
    let cost = |value: &str| {
        let mut head = encode(&[("x", value)], &[Form::Incremental]);
        head.resize(16 << 10, 0xbe);
        let round = || {
            let mut server = Server::new();
            let mut input = Vec::new();
            put(HEADERS, END_HEADERS | END_STREAM, 1, &head, &mut input);
            let started = Instant::now();
            server.feed(&input).0.unwrap();
            started.elapsed()
        };
        (0..5).map(|_| round()).min().unwrap()
    };
    let (short, long) = (cost("v"), cost(&"v".repeat(3900)));
    assert!(long < 30 * short, "{long:?} against {short:?}");
}

/// What a peer does, if it may; on the stream that was picked from those it may do it on.
#[derive(Debug, Clone)]
enum Step {
    Head { end: bool, forms: [u8; 3], resize: bool, shape: u8, length: Option<u16> },
    Data { on: Index, length: usize, padding: Option<u8>, end: bool },
    Trailers { on: Index },
    Reset { on: Index, code: u32 },
    Credit { on: Option<Index>, more: u32 },
    Priority { weight: u8 },
    Settings { table: u32, window: u32, frame: u32 },
    Ping { ack: bool },
    Unknown { kind: u8, length: usize },
    GoAway,
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![9 => Just(None), 1 => (0_u16..3000).prop_map(Some)];
    prop_oneof![
        6 => (any::<bool>(), any::<[u8; 3]>(), any::<bool>(), any::<u8>(), length).prop_map(
            |(end, forms, resize, shape, length)| Step::Head { end, forms, resize, shape, length }
        ),
        8 => (any::<Index>(), 0_usize..2000, any::<Option<u8>>(), any::<bool>()).prop_map(
            |(on, length, padding, end)| Step::Data { on, length, padding, end }
        ),
        3 => any::<Index>().prop_map(|on| Step::Trailers { on }),
        1 => (any::<Index>(), any::<u32>()).prop_map(|(on, code)| Step::Reset { on, code }),
        2 => (any::<Option<Index>>(), 1_u32..1000).prop_map(|(on, more)| Step::Credit { on, more }),
        1 => any::<u8>().prop_map(|weight| Step::Priority { weight }),
        2 => (
            prop::sample::select(vec![0, 100, 4096, 1 << 16]),
            prop::sample::select(vec![0, 1, 65_535, 1 << 20]),
            prop::sample::select(vec![1 << 14, (1 << 24) - 1]),
        ).prop_map(|(table, window, frame)| Step::Settings { table, window, frame }),
        1 => any::<bool>().prop_map(|ack| Step::Ping { ack }),
        1 => (10_u8.., 0_usize..50).prop_map(|(kind, length)| Step::Unknown { kind, length }),
        1 => Just(Step::GoAway),
    ]
}

/// A conversation's frames as one peer of ours writes them, and whether one breaks its
/// content-length.
struct Script {
    to: Role,
    frames: Vec<Vec<u8>>,
    next: u32,
    /// Streams whose sender is not done, with what content-length leaves.
    open: Vec<(u32, Option<u16>)>,
    /// Whether the first entry of the dynamic table is there.
    entry: bool,
    heads: usize,
    lies: bool,
}

impl Script {
    fn new(to: Role, steps: &[Step]) -> Self {
        let mut script = Self {
            to,
            frames: Vec::new(),
            next: 1,
            open: Vec::new(),
            entry: false,
            heads: 0,
            lies: false,
        };
        for step in steps {
            script.play(step);
        }
        script
    }

    fn put(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut bytes = Vec::new();
        put(kind, flags, stream, payload, &mut bytes);
        self.frames.push(bytes);
    }

    fn play(&mut self, step: &Step) {
        let pick = |open: &Vec<_>, on: &Index| (!open.is_empty()).then(|| on.index(open.len()));
        match step {
            Step::Head { end, forms, resize, shape, length } => {
                self.head(*end, *forms, *resize, *shape, *length);
            }
            Step::Data { on, length, padding, end } => {
                let Some(at) = pick(&self.open, on) else { return };
                let (stream, left) = self.open[at];
                let mut payload = vec![*length as u8; *length];
                if let Some(padding) = padding {
                    payload.insert(0, *padding);
                    payload.resize(payload.len() + usize::from(*padding), 0);
                }
                let flags = if padding.is_some() { PADDED } else { 0 };
                self.put(DATA, flags | u8::from(*end), stream, &payload);
                if let Some(left) = left {
                    let rest = usize::from(left).checked_sub(*length);
                    self.lies |= rest.is_none() || *end && rest != Some(0);
                    self.open[at].1 = rest.map(|rest| rest as u16);
                }
                if *end {
                    self.open.remove(at);
                }
            }
            Step::Trailers { on } => {
                let Some(at) = pick(&self.open, on) else { return };
                let (stream, left) = self.open.remove(at);
                self.lies |= left.is_some_and(|left| left > 0);
                let block = encode(&[("grpc-status", "0"), ("x-t", "u")], &[]);
                self.put(HEADERS, END_HEADERS | END_STREAM, stream, &block);
            }
            Step::Reset { on, code } => {
                let Some(at) = pick(&self.open, on) else { return };
                let (stream, _) = self.open.remove(at);
                self.put(RST_STREAM, 0, stream, &code.to_be_bytes());
            }
            Step::Credit { on, more } => {
                let at = on.as_ref().map(|on| pick(&self.open, on));
                let stream = match at {
                    Some(None) => return,
                    Some(Some(at)) => self.open[at].0,
                    None => 0,
                };
                self.put(WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
            }
            Step::Priority { weight } => {
                self.put(PRIORITY, 0, self.next, &[0, 0, 0, 0, *weight]);
            }
            Step::Settings { table, window, frame } => {
                let mut bytes = Vec::new();
                let list = [
                    (frame::HEADER_TABLE_SIZE, *table),
                    (frame::INITIAL_WINDOW_SIZE, *window),
                    (frame::MAX_FRAME_SIZE, *frame),
                ];
                frame::put_settings(&list, &mut bytes);
                self.frames.push(bytes);
            }
            Step::Ping { ack } => self.put(PING, u8::from(*ack) * ACK, 0, b"upbeat!!"),
            Step::Unknown { kind, length } => self.put(*kind, 0xff, 0, &vec![7; *length]),
            Step::GoAway => self.put(GOAWAY, 0, 0, &[0x7f, 255, 255, 255, 0, 0, 0, 0, b'x']),
        }
    }

    fn head(&mut self, end: bool, forms: [u8; 3], resize: bool, shape: u8, length: Option<u16>) {
        if self.to == Role::Client && self.next > OPENED {
            return;
        }
        let stream = self.next;
        self.next += 2;
        let mut block = Vec::new();
        if resize {
            // To nothing, and back to all of it (RFC 7541, 6.3).
            block.extend([0x20, 0x3f, 0xe1, 0x1f]);
            self.entry = false;
        }
        match self.to {
            Role::Server => block.extend([0x83, 0x86, 0x84]),
            Role::Client => block.push(0x88),
        }
        if self.entry {
            block.push(0xbe);
        }
        let forms = forms.map(|form| match form % 3 {
            0 => Form::Incremental,
            1 => Form::NeverIndexed,
            _ => Form::Plain,
        });
        self.entry |= forms.contains(&Form::Incremental);
        let value = "v".repeat(usize::from(shape));
        block.extend(encode(&[("x-a", "b"), ("x-c", &value), ("x-d", "")], &forms));
        if let Some(length) = length {
            block.extend(encode(&[("content-length", &length.to_string())], &[]));
            self.lies |= end && length > 0 && self.to == Role::Server;
        }
        let mut flags = u8::from(end);
        let mut payload = Vec::new();
        if shape & 1 != 0 {
            flags |= PADDED;
            payload.push(shape);
        }
        if shape & 2 != 0 {
            flags |= PRIORITIZED;
            payload.extend([0, 0, 0, 0, 7]);
        }
        let rest = if shape & 4 != 0 { block.split_off(block.len() / 2) } else { Vec::new() };
        payload.extend(block);
        if shape & 1 != 0 {
            payload.resize(payload.len() + usize::from(shape), 0);
        }
        flags |= if shape & 4 == 0 { END_HEADERS } else { 0 };
        self.put(HEADERS, flags, stream, &payload);
        if shape & 4 != 0 {
            self.put(CONTINUATION, END_HEADERS, stream, &rest);
        }
        self.heads += 1;
        if !end {
            self.open.push((stream, length));
        }
    }
}

/// What becomes of a conversation on its way.
#[derive(Debug, Clone)]
enum Mutation {
    Flip(Index, u8),
    Insert(Index, u8),
    Delete(Index),
    Drop(Index),
    Repeat(Index),
    Swap(Index, Index),
    Cut(Index, Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), 0_u32..8).prop_map(|(at, bit)| Mutation::Flip(at, 1 << bit)),
        1 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Flip(at, byte)),
        1 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        1 => at().prop_map(Mutation::Delete),
        2 => at().prop_map(Mutation::Drop),
        2 => at().prop_map(Mutation::Repeat),
        2 => (at(), at()).prop_map(|(a, b)| Mutation::Swap(a, b)),
        2 => (at(), at()).prop_map(|(at, to)| Mutation::Cut(at, to)),
    ]
}

/// Flips in the first bytes of a frame are the interesting ones, so half of them go there.
fn mutate(mut frames: Vec<Vec<u8>>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        if frames.is_empty() {
            break;
        }
        let count = frames.len();
        let place = |at: &Index, frames: &[Vec<u8>]| {
            let frame = at.index(count);
            let size = frames[frame].len();
            let size = if at.index(2 * count).is_multiple_of(2) { size.min(16) } else { size };
            (frame, at.index(count * 1009) % size.max(1))
        };
        match mutation {
            Mutation::Flip(at, bits) => {
                let (frame, at) = place(at, &frames);
                if let Some(byte) = frames[frame].get_mut(at) {
                    *byte ^= bits;
                }
            }
            Mutation::Insert(at, byte) => {
                let (frame, at) = place(at, &frames);
                let at = at.min(frames[frame].len());
                frames[frame].insert(at, *byte);
            }
            Mutation::Delete(at) => {
                let (frame, at) = place(at, &frames);
                if at < frames[frame].len() {
                    frames[frame].remove(at);
                }
            }
            Mutation::Drop(at) => drop(frames.remove(at.index(count))),
            Mutation::Repeat(at) => {
                let again = frames[at.index(count)].clone();
                frames.insert(at.index(count), again);
            }
            Mutation::Swap(a, b) => frames.swap(a.index(count), b.index(count)),
            Mutation::Cut(at, to) => {
                let frame = &mut frames[at.index(count)];
                frame.truncate(to.index(frame.len() + 1));
            }
        }
    }
    frames.concat()
}

/// What an end of ours made of its input.
#[derive(Debug, PartialEq)]
struct Run {
    /// Events, DATA put together again.
    events: Vec<String>,
    out: Vec<Frame>,
    verdict: Option<Fatal>,
}

/// Feeds `input` in parts that end at `cuts`, and answers each request at its end.
fn run(role: Role, strict: bool, input: &[u8], cuts: &[usize]) -> Run {
    let mut out = Vec::new();
    let mut context = Context::default();
    let mut connection = Connection::new(role, limits(strict), &mut out);
    let mut preface = if role == Role::Server { frame::PREFACE.to_vec() } else { Vec::new() };
    frame::put_settings(&[], &mut preface);
    let next = |connection: &mut Connection, input, at: &mut _, context: &mut _, out: &mut _| {
        connection.next(input, at, context, out)
    };
    let mut at = 0;
    while next(&mut connection, &preface, &mut at, &mut context, &mut out).unwrap().is_some() {}
    let mut fields = [":method", ":scheme", ":path"].into_iter().zip(["POST", "http", "/"]);
    if role == Role::Client {
        let mut head = Block::new();
        fields.by_ref().for_each(|(name, value)| head.push_known(&context.fields.own(name, value)));
        for call in 0..OPENED.div_ceil(2) {
            connection.open(call, &head, call % 2 == 0, &mut out);
        }
    }
    let mut answer = Block::new();
    answer.push_known(&context.fields.own(":status", "200"));
    let mut run = Run { events: Vec::new(), out: Vec::new(), verdict: None };
    let (mut body, mut count, mut start) = (None::<(u32, Vec<u8>)>, 0, 0);
    'parts: for stop in cuts.iter().copied().chain([input.len()]) {
        let (part, mut at) = (&input[start..stop], 0);
        start = stop;
        loop {
            let event = match next(&mut connection, part, &mut at, &mut context, &mut out) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(fatal) => {
                    run.verdict = Some(fatal);
                    break 'parts;
                }
            };
            count += 1;
            assert!(count <= input.len() + 1, "events without end");
            if let Event::Data { stream, start, stop, end, .. } = event {
                let (_, bytes) = match &mut body {
                    Some(body) if body.0 == stream => body,
                    _ => {
                        run.events.extend(body.take().map(|body| format!("{body:?}")));
                        body.insert((stream, Vec::new()))
                    }
                };
                bytes.extend_from_slice(&part[start..stop]);
                if end {
                    run.events.extend(body.take().map(|body| format!("{body:?} ends")));
                    answered(&mut connection, stream, &answer, &mut out);
                }
                continue;
            }
            run.events.extend(body.take().map(|body| format!("{body:?}")));
            match &event {
                Event::Head { stream, end: true, .. } | Event::Trailers { stream, .. } => {
                    answered(&mut connection, *stream, &answer, &mut out);
                }
                Event::Head { stream, .. } => connection.mark(*stream, *stream),
                _ => {}
            }
            run.events.push(summary(&event));
        }
        assert_eq!(at, part.len(), "all of it is taken");
    }
    run.events.extend(body.take().map(|body| format!("{body:?}")));
    if role == Role::Client {
        out.drain(..frame::PREFACE.len());
    }
    run.out = frames(&out);
    run
}

fn answered(connection: &mut Connection, stream: u32, answer: &Block, out: &mut Vec<u8>) {
    connection.block(stream, answer, false, out);
    let room = connection.capacity(stream).min(40_000);
    connection.data(stream, &vec![7; room], true, out);
}

/// An event with the text of its fields.
fn summary(event: &Event) -> String {
    let lines = |block: &Block| {
        let line = |line: upbeat::http2::hpack::Line<'_>| {
            (line.name().plain().to_vec(), line.text(&mut Vec::new()).to_vec())
        };
        block.lines().map(line).collect::<Vec<_>>()
    };
    match event {
        Event::Head { stream, call, block, status, end } => {
            format!("head {stream} {call} {status} {end} {:?}", lines(block))
        }
        Event::TooLarge { stream, block, end } => {
            format!("too large {stream} {end} {:?}", lines(block))
        }
        Event::Trailers { stream, call, block } => {
            format!("trailers {stream} {call} {:?}", lines(block))
        }
        event => format!("{event:?}"),
    }
}

/// Each frame is one that a peer may be sent.
fn check(run: &Run) {
    let (mut block, mut over, mut gone) = (None, HashSet::new(), u32::MAX);
    for (head, payload) in &run.out {
        let of_connection = matches!(head.kind, SETTINGS | PING | GOAWAY);
        assert!(head.kind == WINDOW_UPDATE || of_connection == (head.stream == 0), "{head:?}");
        assert!(block.is_none_or(|stream| (CONTINUATION, stream) == (head.kind, head.stream)));
        assert!(head.kind != CONTINUATION || block.is_some());
        let lawful = match head.kind {
            DATA | HEADERS | CONTINUATION => !over.contains(&head.stream),
            SETTINGS if head.has(ACK) => payload.is_empty(),
            SETTINGS => payload.len() % 6 == 0,
            PING => payload.len() == 8,
            RST_STREAM => payload.len() == 4,
            WINDOW_UPDATE => payload.len() == 4 && (1..=frame::STREAM).contains(&number(payload)),
            GOAWAY => payload.len() == 8 && number(payload) <= gone,
            _ => false,
        };
        assert!(lawful, "{head:?} {payload:?}");
        match head.kind {
            HEADERS | CONTINUATION => block = (!head.has(END_HEADERS)).then_some(head.stream),
            RST_STREAM => _ = over.insert(head.stream),
            GOAWAY => gone = number(payload),
            _ => {}
        }
        if matches!(head.kind, DATA | HEADERS) && head.has(END_STREAM) {
            over.insert(head.stream);
        }
    }
    let last = run.out.last().filter(|(head, _)| head.kind == GOAWAY);
    let said = last.map(|(_, payload)| number(&payload[4..]));
    assert_eq!(said, run.verdict.map(|fatal| fatal.0.0), "the last word says why");
}

fn same_however_split(role: Role, strict: bool, input: &[u8], cuts: &[Index]) -> Run {
    let whole = run(role, strict, input, &[]);
    check(&whole);
    let mut parts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
    parts.sort_unstable();
    let bytes: Vec<_> = (0..input.len()).collect();
    for cuts in [&parts, &bytes] {
        let split = run(role, strict, input, cuts);
        check(&split);
        assert_eq!(split, whole);
    }
    whole
}

/// The last stream that an end of ours opens as a client.
const OPENED: u32 = 15;

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Server), Just(Role::Client)]
}

proptest! {
    #[test]
    fn lawful_frames_are_taken(
        role in role(),
        steps in prop::collection::vec(step(), 0..25),
        cuts in prop::collection::vec(any::<Index>(), 0..10),
    ) {
        let script = Script::new(role, &steps);
        let input = script.frames.concat();
        let run = same_however_split(role, false, &input, &cuts);
        prop_assert_eq!(run.verdict, None);
        if !script.lies {
            let heads = run.events.iter().filter(|event| event.starts_with("head")).count();
            prop_assert_eq!(heads, script.heads);
            let resets = run.out.iter().filter(|(head, _)| head.kind == RST_STREAM).count();
            prop_assert_eq!(resets, 0);
        }
    }

    #[test]
    fn mutated_frames_mean_the_same_however_they_are_split(
        (role, strict) in (role(), any::<bool>()),
        steps in prop::collection::vec(step(), 1..25),
        mutations in prop::collection::vec(mutation(), 1..6),
        cuts in prop::collection::vec(any::<Index>(), 0..10),
    ) {
        let script = Script::new(role, &steps);
        let input = mutate(script.frames, &mutations);
        same_however_split(role, strict, &input, &cuts);
    }
}
