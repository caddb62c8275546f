//! The protocol core under frames that are lawful, and under what becomes of them when they are
//! cut, turned and repeated. No sockets and no clock: bytes in, events and bytes out.

use std::collections::HashSet;

use proptest::{prelude::*, sample::Index};
use upbeat::http2::{
    block::Block,
    connection::{Connection, Context, Event, Fatal, Role},
    frame::{
        self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM,
        SETTINGS, WINDOW_UPDATE,
    },
};

use crate::fixture::frames::{
    Frame, OPENED, Script, frames, limits, mutate, mutation, number, step,
};

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
        let input = mutate(script.frames, &mutations).concat();
        same_however_split(role, strict, &input, &cuts);
    }
}
