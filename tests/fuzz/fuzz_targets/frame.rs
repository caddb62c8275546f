//! Frames: what is written parses back, and any bytes make the same events however they are split.

#![no_main]

use libfuzzer_sys::fuzz_target;
use upbeat::http2::{
    connection::{Connection, Context, Event, Fatal, Role},
    frame::{self, CONTINUATION, END_HEADERS, HEADERS, Head, Reason},
    limits::Limits,
};
use upbeat_fuzz::Input;

fuzz_target!(init: upbeat_fuzz::seed("frame"), |bytes: &[u8]| {
    let mut input = Input(bytes);
    let (first, step) = (input.byte(), usize::from(input.byte()) + 1);
    written(first, step, input.0);
    let role = if first & 1 == 0 { Role::Server } else { Role::Client };
    let mut start = Vec::new();
    if first & 2 == 0 {
        if role == Role::Server {
            start.extend_from_slice(frame::PREFACE);
        }
        frame::put_settings(&[], &mut start);
    }
    start.extend_from_slice(input.0);
    let whole = read(role, &start, start.len().max(1));
    for step in [1, step] {
        assert_eq!(read(role, &start, step), whole);
    }
});

/// Writes frames and takes them apart again.
fn written(first: u8, max: usize, bytes: &[u8]) {
    if let Some(head) = bytes.first_chunk::<9>() {
        let mut same = *head;
        same[5] &= 0x7f;
        assert_eq!(Head::parse(head).bytes(), same);
    }
    let mut out = vec![first];
    out.extend_from_slice(bytes);
    frame::frame_block(1, 7, first & 4 != 0, max, &mut out);
    frame::put_settings(&[(1, 2); 3], &mut out);
    frame::put_goaway(9, Reason(max as u32), &mut out);
    frame::put_ping(first, [first; 8], &mut out);
    let (mut rest, mut block, mut ended) = (&out[1..], Vec::new(), 0);
    while let Some((head, tail)) = rest.split_first_chunk() {
        let head = Head::parse(head);
        let (payload, tail) = tail.split_at(head.length);
        rest = tail;
        if matches!(head.kind, HEADERS | CONTINUATION) {
            assert!(ended == 0 && head.length <= max && head.stream == 7);
            assert_eq!(head.kind == HEADERS, block.is_empty() && (ended == 0));
            block.extend_from_slice(payload);
            ended += usize::from(head.has(END_HEADERS));
        }
    }
    assert!(rest.is_empty() && ended == 1);
    assert_eq!(block, bytes);
}

/// What comes of `input` in parts of `step` bytes: heads and resets, payload, frames written, end.
type Reading = (Vec<String>, Vec<u8>, Vec<u8>, Option<Fatal>);

fn read(role: Role, input: &[u8], step: usize) -> Reading {
    let limits = Limits {
        streams: 8,
        header_list: 4096,
        header_fields: 50,
        header_frames: 3,
        stream_window: 65_535,
        connection_window: 65_535,
        frames: None,
    };
    let (mut context, mut out) = (Context::default(), Vec::new());
    let mut connection = Connection::new(role, limits, &mut out);
    let (mut events, mut payload) = (Vec::new(), Vec::new());
    for part in input.chunks(step) {
        let mut at = 0;
        loop {
            match connection.next(part, &mut at, &mut context, &mut out) {
                Ok(Some(Event::Data { start, stop, end, .. })) => {
                    payload.extend_from_slice(&part[start..stop]);
                    if end {
                        events.push("end".to_owned());
                    }
                }
                Ok(Some(event)) => events.push(format!("{event:?}")),
                Ok(None) => break,
                Err(fatal) => {
                    let again = connection.next(part, &mut at, &mut context, &mut out);
                    assert!(matches!(again, Err(same) if same == fatal));
                    return (events, payload, out, Some(fatal));
                }
            }
        }
        assert_eq!(at, part.len());
    }
    (events, payload, out, None)
}
