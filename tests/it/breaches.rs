//! The protocol core under a peer that breaks a rule, or keeps to all of them at our cost.

use tokio::time::Instant;
use upbeat::http2::{
    connection::{Connection, Context, Event, Fatal, Role},
    frame::{
        self, ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM,
        SETTINGS, WINDOW_UPDATE,
    },
};

use crate::fixture::{
    frames::{Frame, POST, frames, limits, number, put},
    wire::{Form, encode},
};

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
    let mut out = Vec::new();
    server.connection.go_away(false, &mut out);
    assert!(out.is_empty(), "no end is near: it was said");
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

/// How many of `frame` a server takes before it sends its client away, which has one stream open
/// and one closed.
fn flood(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> usize {
    let mut server = Server::new();
    let mut input = Vec::new();
    for stream in [1, 3] {
        put(HEADERS, END_HEADERS, stream, &encode(&POST, &[]), &mut input);
    }
    put(RST_STREAM, 0, 1, &[0, 0, 0, 8], &mut input);
    server.feed(&input).0.unwrap();
    input.clear();
    put(kind, flags, stream, payload, &mut input);
    let taken = (0..10_000).position(|_| server.feed(&input).0.is_err());
    taken.expect("10 000 were not too many")
}

#[test]
fn what_costs_its_sender_nothing_is_not_taken_for_ever() {
    assert_eq!(flood(GOAWAY, 0, 0, &[0; 8]), 20);
    assert_eq!(flood(RST_STREAM, 0, 1, &[0, 0, 0, 8]), 102);
    assert_eq!(flood(SETTINGS, ACK, 0, &[]), 1, "SETTINGS are sent once");
    assert_eq!(flood(PING, ACK, 0, &[0; 8]), 22);
}

#[test]
fn data_on_streams_long_closed_is_answered_a_hundred_times() {
    let mut server = Server::new();
    let mut input = Vec::new();
    let streams = || (1..1200).step_by(2);
    for stream in streams() {
        put(HEADERS, END_HEADERS, stream, &encode(&POST, &[]), &mut input);
        put(RST_STREAM, 0, stream, &[0, 0, 0, 8], &mut input);
        // Credit for resets comes with time.
        server.context.now += 100;
        server.feed(&input).0.unwrap();
        input.clear();
    }
    streams().for_each(|stream| put(DATA, 0, stream, &[0], &mut input));
    let (outcome, frames) = server.feed(&input);
    outcome.unwrap_err();
    let resets = frames.iter().filter(|(head, _)| head.kind == RST_STREAM).count();
    assert_eq!(resets, 101, "100, and the one too many");
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
