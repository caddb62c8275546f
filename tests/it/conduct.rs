//! What a client or an endpoint may do over and over, since it does nothing wrong, and what ends.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

use crate::fixture::{
    echo::Echo,
    eventually,
    proxy::{Proxy, yaml},
    wire::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, End, Frame, GOAWAY, HEADERS,
        INITIAL_WINDOW_SIZE, Message, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, Wire, encode,
        grpc_frame,
    },
};

async fn proxy(endpoint: SocketAddr, limits: &str) -> Proxy {
    let config = yaml(&[endpoint], "{ tcp: {} }", &format!("limits: {limits}"));
    let proxy = Proxy::start(&config.replace("workers: 2", "workers: 1")).await;
    proxy.wait_serving().await;
    proxy
}

fn call<'a>(path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "upbeat"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    [&head[..], more].concat()
}

async fn is_served(wire: &mut Wire) {
    let stream = wire.open();
    wire.play(stream, &Message::new(&call("/test.Echo/Unary", &[])).body([0; 5]), 16_384).await;
    assert_eq!(wire.message(stream).await.value("grpc-status"), Some(&b"0"[..]));
}

#[tokio::test]
async fn a_client_may_give_up_each_call_at_its_deadline() {
    let echo = Echo::start().await;
    let limits = "{ max_concurrent_streams: 8, frames: { resets: { burst: 1, rate: 1 } } }";
    let proxy = proxy(echo.address(), limits).await;
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    for _ in 0..6 {
        let mut streams = Vec::new();
        for _ in 0..8 {
            let stream = wire.open();
            let head = call("/test.Echo/Hang", &[("grpc-timeout", "400m")]);
            wire.head(stream, &head, true).await;
            streams.push(stream);
        }
        // Its own clock may be a little ahead of the proxy's.
        sleep(Duration::from_millis(370)).await;
        for stream in streams {
            wire.reset(stream, 8).await;
        }
    }
    is_served(&mut wire).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_is_answered_may_cancel_as_often() {
    let echo = Echo::start().await;
    let limits = "{ max_concurrent_streams: 4, frames: { resets: { burst: 4, rate: 1 } } }";
    let proxy = proxy(echo.address(), limits).await;
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    for _ in 0..40 {
        is_served(&mut wire).await;
        let stream = wire.open();
        wire.head(stream, &call("/test.Echo/Hang", &[]), false).await;
        wire.reset(stream, 8).await;
    }
    is_served(&mut wire).await;
    proxy.stop().await;
}

#[tokio::test]
async fn each_call_may_begin_with_an_empty_frame() {
    let echo = Echo::start().await;
    let proxy = proxy(echo.address(), "{}").await;
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    for _ in 0..200 {
        let stream = wire.open();
        wire.head(stream, &call("/test.Echo/Unary", &[]), false).await;
        wire.data(stream, &[], false).await;
        wire.data(stream, &[0; 5], true).await;
        assert_eq!(wire.message(stream).await.value("grpc-status"), Some(&b"0"[..]));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn payload_on_its_way_to_calls_that_are_answered_is_no_fault() {
    let echo = Echo::start().await;
    let limits = "{ max_concurrent_streams: 1000, frames: { faults: { burst: 1, rate: 1 } } }";
    let proxy = proxy(echo.address(), limits).await;
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    let mut head = call("/test.Echo/Unary", &[]);
    head[4].1 = "text/plain";
    let mut streams = Vec::new();
    for _ in 0..600 {
        let stream = wire.open();
        wire.head(stream, &head, false).await;
        streams.push(stream);
    }
    let mut resets = 0;
    while resets < streams.len() {
        resets += usize::from(wire.next().await.unwrap().kind == RST_STREAM);
    }
    for stream in streams {
        wire.send(Frame::new(DATA, END_STREAM, stream, [7; 50])).await;
    }
    is_served(&mut wire).await;
    proxy.stop().await;
}

/// Sends the beginning of a frame and then a byte each 50 ms; how long that goes well.
async fn dripped(proxy: &Proxy, kind: u8, length: u8) -> Duration {
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    let begun = Instant::now();
    let head = [0, 0, length, kind, END_HEADERS, 0, 0, 0, 1];
    let mut going_on = wire.write(&head).await;
    while going_on {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is taken for ever");
        sleep(Duration::from_millis(50)).await;
        going_on = wire.write(&[0]).await;
    }
    begun.elapsed()
}

#[tokio::test]
async fn a_frame_that_does_not_become_whole_ends_its_connection() {
    let echo = Echo::start().await;
    let proxy = proxy(echo.address(), "{ frame_timeout: 2s }").await;
    let ended = r#"upbeat_connections_ended_total{listener="otlp",reason="frame_timeout"}"#;
    for (kind, length, before) in [(HEADERS, 200, 0.0), (0x77, 200, 1.0)] {
        let lasted = dripped(&proxy, kind, length).await;
        assert!(lasted >= Duration::from_millis(1900), "{kind}: {lasted:?}");
        eventually("it is counted", async || proxy.metric(ended).await == before + 1.0).await;
    }
    // Payload is passed on as it comes, however slowly.
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    let stream = wire.open();
    wire.head(stream, &call("/test.Echo/Unary", &[]), false).await;
    wire.write(&[0, 0, 10, DATA, END_STREAM, 0, 0, 0, 1]).await;
    for byte in [0, 0, 0, 0, 5, 1, 2, 3, 4, 5] {
        sleep(Duration::from_millis(300)).await;
        assert!(wire.write(&[byte]).await);
    }
    assert_eq!(wire.message(stream).await.body, [0, 0, 0, 0, 5, 1, 2, 3, 4, 5]);
    // But where nothing comes any more, nothing else can.
    let stream = wire.open();
    wire.head(stream, &call("/test.Echo/Unary", &[]), false).await;
    wire.write(&[0, 0, 10, DATA, END_STREAM, 0, 0, 0, 3, 0]).await;
    while wire.next().await.is_some() {}
    assert_eq!(proxy.metric(ended).await, 3.0);
    proxy.stop().await;
}

#[tokio::test]
async fn an_endpoint_may_send_its_head_in_small_frames_that_become_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = proxy(listener.local_addr().unwrap(), "{ frame_timeout: 400ms }").await;
    let endpoint = async {
        let mut wire = Wire::accept(&listener).await;
        wire.begun(1).await;
        let long = "v".repeat(4000);
        let head = [(":status", "200"), ("content-type", "application/grpc"), ("x-long", &long)];
        let block = encode(&[&head[..], &[("grpc-status", "0")]].concat(), &[]);
        let mut parts = block.chunks(20).peekable();
        let (mut kind, mut flags) = (HEADERS, END_STREAM);
        while let Some(part) = parts.next() {
            flags |= if parts.peek().is_none() { END_HEADERS } else { 0 };
            wire.send(Frame::new(kind, flags, 1, part)).await;
            (kind, flags) = (CONTINUATION, 0);
        }
        // This one is never whole.
        wire.begun(3).await;
        wire.send(Frame::new(HEADERS, 0, 3, [0x88])).await;
        while wire.next().await.is_some() {}
    };
    let client = async {
        let mut wire = Wire::connect(proxy.address("otlp")).await;
        let mut codes = Vec::new();
        for _ in 0..2 {
            let stream = wire.open();
            wire.head(stream, &call("/a.B/C", &[]), true).await;
            codes.push(wire.message(stream).await.value("grpc-status").unwrap().to_vec());
        }
        assert_eq!(codes, [b"0".to_vec(), b"14".to_vec()]);
        let name = "upbeat_upstream_connections_ended_total";
        let endpoint = listener.local_addr().unwrap();
        let labels = format!(r#"upstream="otlp",endpoint="{endpoint}",reason="frame_timeout""#);
        assert_eq!(proxy.metric(&format!("{name}{{{labels}}}")).await, 1.0);
    };
    tokio::join!(endpoint, client);
    proxy.stop().await;
}

#[tokio::test]
async fn blanks_at_the_ends_of_values_pass_and_harm_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = proxy(listener.local_addr().unwrap(), "{}").await;
    let words = "cannot reach ingester: ";
    let response = [
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-status", "14"),
        ("grpc-message", words),
        ("x-b", "\tb\t"),
    ];
    let most = 300;
    let endpoint = async {
        let mut wire = Wire::accept(&listener).await;
        for number in 0..most {
            let stream = 2 * number + 1;
            let request = wire.message(stream).await;
            assert_eq!(request.value("x-scope-orgid"), Some(&b"team-a "[..]));
            assert_eq!(request.value("x-a"), Some(&b" a"[..]));
            wire.play(stream, &Message::new(&response), 16_384).await;
        }
    };
    let client = async {
        let mut wire = Wire::connect(proxy.address("otlp")).await;
        for _ in 0..most {
            let stream = wire.open();
            let head = call("/a.B/C", &[("x-scope-orgid", "team-a "), ("x-a", " a")]);
            wire.head(stream, &head, true).await;
            let reply = wire.message(stream).await;
            assert_eq!(reply.value("grpc-message"), Some(words.as_bytes()));
            assert_eq!(reply.value("x-b"), Some(&b"\tb\t"[..]));
        }
        // What would split a message, and what no target has, is refused as ever.
        for (at, field) in [
            (6, ("x-a", "a\0")),
            (6, ("x-a", "a\r\nb: c")),
            (6, ("x-a", "a\n")),
            (3, (":path", "/a.B/C ")),
            (2, (":authority", " upbeat")),
            (0, (":method", "POST\t")),
            (1, (":scheme", "http ")),
        ] {
            let stream = wire.open();
            let mut head = call("/a.B/C", &[("x-a", "a")]);
            head[at] = field;
            wire.head(stream, &head, true).await;
            assert_eq!(wire.message(stream).await.ended_by, End::Reset(1), "{field:?}");
        }
    };
    tokio::join!(endpoint, client);
    proxy.stop().await;
}

#[tokio::test]
async fn windows_that_open_by_a_byte_make_no_frames_of_a_byte() {
    let echo = Echo::start().await;
    let frames = "{ window_updates: { burst: 100000, rate: 1, per_stream: 1, per_data: 1 } }";
    let proxy = proxy(echo.address(), &format!("{{ frames: {frames} }}")).await;
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    wire.credits = false;
    let [a, b] = INITIAL_WINDOW_SIZE.to_be_bytes();
    wire.send(Frame::new(SETTINGS, 0, 0, [a, b, 0, 0, 0, 0])).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        let stream = wire.open();
        let body = grpc_frame(&[7; 20_000]);
        wire.play(stream, &Message::new(&call("/test.Echo/Unary", &[])).body(body), 16_384).await;
        wire.begun(stream).await;
        streams.push(stream);
    }
    for _ in 0..1500 {
        for stream in &streams {
            wire.send(Frame::new(WINDOW_UPDATE, 0, *stream, [0, 0, 0, 1])).await;
        }
    }
    let (mut bytes, mut frames) = (0, 0);
    while bytes < 1500 * streams.len() {
        let frame = wire.next().await.unwrap();
        if frame.kind == DATA {
            (bytes, frames) = (bytes + frame.payload.len(), frames + 1);
        }
        assert_ne!(frame.kind, GOAWAY);
    }
    assert!(frames <= 600, "{bytes} bytes in {frames} frames");
    // However small a window is, what fits is sent in the end.
    wire.send(Frame::new(WINDOW_UPDATE, 0, streams[0], [0, 0, 0, 3])).await;
    wire.send(Frame::new(PING, 0, 0, *b"and now?")).await;
    while wire.next().await.unwrap().payload.len() != 3 {}
    drop(wire);
    proxy.stop().await;
}

fn cut(reason: &str) -> String {
    format!(r#"upbeat_streams_cut_total{{listener="otlp",reason="{reason}"}}"#)
}

#[tokio::test]
async fn what_is_malformed_is_counted_and_a_response_ends_in_our_own_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = proxy(listener.local_addr().unwrap(), "{}").await;
    let head = [(":status", "200"), ("content-type", "application/grpc")];
    let endpoint = async {
        let mut wire = Wire::accept(&listener).await;
        for (number, (malformed, end)) in
            [("x-A", true), ("x-b", false), ("x-b", true)].iter().enumerate()
        {
            let stream = 2 * number as u32 + 1;
            wire.message(stream).await;
            wire.head(stream, &[&head[..], &[(malformed, "a")]].concat(), false).await;
            if *malformed == "x-b" {
                wire.data(stream, &[0, 0, 0, 0, 1, 7], false).await;
                let trailers = [("grpc-status", "0"), (":status", "200")];
                wire.head(stream, &trailers[..1 + usize::from(!end)], true).await;
            }
        }
        while wire.next().await.is_some() {}
    };
    let client = async {
        let mut wire = Wire::connect(proxy.address("otlp")).await;
        let mut replies = Vec::new();
        for _ in 0..3 {
            let stream = wire.open();
            wire.play(stream, &Message::new(&call("/a.B/C", &[])).body([0; 5]), 16_384).await;
            replies.push(wire.message(stream).await);
        }
        assert_eq!(replies[0].value("grpc-status"), Some(&b"13"[..]), "{replies:?}");
        let words = replies[0].value("grpc-message").unwrap();
        assert_eq!(words, b"the upstream sent a malformed response");
        // Behind a head only a reset says that the rest is wrong.
        assert_eq!((replies[1].ended_by, replies[1].body.len()), (End::Reset(1), 6));
        assert_eq!(replies[2].value("grpc-status"), Some(&b"0"[..]));
        assert_eq!(proxy.metric(&cut("malformed_response")).await, 2.0);

        let stream = wire.open();
        wire.head(stream, &call("/a.B/C", &[("X-A", "a")]), true).await;
        assert_eq!(wire.message(stream).await.ended_by, End::Reset(1));
        let stream = wire.open();
        wire.head(stream, &call("/a.B/C", &[("content-length", "1")]), false).await;
        wire.data(stream, &[0; 5], true).await;
        assert_eq!(wire.message(stream).await.ended_by, End::Reset(1));
        assert_eq!(proxy.metric(&cut("malformed_request")).await, 2.0);
        drop(wire);
        proxy.stop().await;
    };
    tokio::join!(endpoint, client);
}

#[tokio::test]
async fn small_messages_reach_an_endpoint_together_and_at_once_where_they_are_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = proxy(listener.local_addr().unwrap(), "{}").await;
    let (many, answered) = (2000, 100);
    let endpoint = async {
        let mut wire = Wire::accept(&listener).await;
        let request = wire.message(1).await;
        assert_eq!(request.body.len(), many * 5);
        assert!(request.data_frames.len() < many / 4, "{} frames", request.data_frames.len());
        wire.head(3, &[(":status", "200"), ("content-type", "application/grpc")], false).await;
        for number in 1..=answered {
            while wire.arriving.get(&3).is_none_or(|it| it.body.len() < number * 5) {
                wire.next().await.unwrap();
            }
            wire.data(3, &[0; 5], false).await;
        }
        while wire.next().await.is_some() {}
    };
    let client = async {
        let mut wire = Wire::connect(proxy.address("otlp")).await;
        let stream = wire.open();
        wire.head(stream, &call("/a.B/C", &[]), false).await;
        for number in 1..=many {
            wire.data(stream, &[0; 5], number == many).await;
        }
        let stream = wire.open();
        wire.head(stream, &call("/a.B/C", &[]), false).await;
        let begun = Instant::now();
        for number in 1..=answered {
            wire.data(stream, &[0; 5], false).await;
            while wire.arriving.get(&stream).is_none_or(|it| it.body.len() < number * 5) {
                wire.next().await.unwrap();
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        drop(wire);
        proxy.stop().await;
    };
    tokio::join!(endpoint, client);
}
