//! Calls that an endpoint cannot bear, and clients that make no others: nobody else pays for them.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::fixture::{
    echo::Echo,
    eventually,
    proxy::{Proxy, yaml},
    wire::{
        ACK, DATA, END_HEADERS, END_STREAM, End, Form, Frame, GOAWAY, HEADERS, Message, SETTINGS,
        Wire, encode,
    },
};

async fn proxy(endpoints: &[SocketAddr], limits: &str) -> Proxy {
    let config = yaml(endpoints, "{ tcp: {} }", &format!("limits: {limits}"));
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

fn served() -> Message {
    let head = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "0")];
    Message::new(&head)
}

#[tokio::test]
async fn a_head_that_is_larger_than_an_endpoint_takes_is_answered_here() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = proxy(&[address], "{}").await;
    let endpoint = async {
        let mut wire = Wire::accept(&listener).await;
        wire.message(1).await;
        wire.send(Frame::new(SETTINGS, 0, 0, [0, 6, 0, 0, 0x10, 0])).await;
        while !wire.next().await.is_some_and(|it| it.kind == SETTINGS && it.has(ACK)) {}
        wire.play(1, &served(), 16_384).await;
        wire.message(3).await;
        wire.play(3, &served(), 16_384).await;
        while wire.next().await.is_some() {}
    };
    let client = async {
        let mut wire = Wire::connect(proxy.address("otlp")).await;
        let long = "v".repeat(5000);
        let heads = [call("/a.B/C", &[]), call("/a.B/C", &[("x-a", &long)]), call("/a.B/C", &[])];
        let mut replies = Vec::new();
        for head in heads {
            let stream = wire.open();
            wire.head(stream, &head, true).await;
            replies.push(wire.message(stream).await);
        }
        let code = |reply: &Message| reply.value("grpc-status").unwrap().to_vec();
        assert_eq!(replies.iter().map(code).collect::<Vec<_>>(), [b"0", b"8", b"0"]);
        let words = String::from_utf8(replies[1].value("grpc-message").unwrap().to_vec()).unwrap();
        assert!(words.contains(&address.to_string()) && words.contains("4096"), "{words}");
        let cut = r#"{listener="otlp",reason="endpoint_header_list_size"}"#;
        assert_eq!(proxy.metric(&format!("upbeat_streams_cut_total{cut}")).await, 1.0);
        drop(wire);
        proxy.stop().await;
    };
    tokio::join!(endpoint, client);
}

/// Serves connections until `over`; ends each on which a head comes that it cannot bear, as Go's
/// server does. How many these were.
async fn delicate(listener: TcpListener, over: tokio::sync::watch::Receiver<bool>) -> usize {
    let mut ended = 0;
    loop {
        let mut stop = over.clone();
        let mut wire = tokio::select! {
            wire = Wire::accept(&listener) => wire,
            _ = stop.wait_for(|over| *over) => return ended,
        };
        let (mut last, mut stop) = (0, over.clone());
        loop {
            let frame = tokio::select! {
                frame = wire.next() => frame,
                _ = stop.wait_for(|over| *over) => return ended,
            };
            let Some(frame) = frame else { break };
            if frame.kind != HEADERS {
                continue;
            }
            let stream = frame.stream;
            if wire.arriving[&stream].value("x-poison").is_some() {
                let last: [u8; 4] = u32::to_be_bytes(last);
                let payload = [last, [0, 0, 0, 1]].concat();
                wire.send(Frame::new(GOAWAY, 0, 0, payload)).await;
                ended += 1;
                break;
            }
            last = stream;
            wire.play(stream, &served(), 16_384).await;
        }
    }
}

#[tokio::test]
async fn a_call_that_ends_one_connection_ends_no_other() {
    let (mut endpoints, mut addresses) = (Vec::new(), Vec::new());
    let (over, told) = tokio::sync::watch::channel(false);
    for _ in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(listener.local_addr().unwrap());
        endpoints.push(delicate(listener, told.clone()));
    }
    let client = async {
        let proxy = proxy(&addresses, "{}").await;
        let mut wire = Wire::connect(proxy.address("otlp")).await;
        for _ in 0..3 {
            let mut streams = Vec::new();
            for number in 0..10 {
                let stream = wire.open();
                let more: &[_] = if number == 4 { &[("x-poison", "1")] } else { &[] };
                wire.head(stream, &call("/a.B/C", more), true).await;
                streams.push((stream, number == 4));
            }
            for (stream, poison) in streams {
                let expected = if poison { &b"14"[..] } else { b"0" };
                let reply = wire.message(stream).await;
                assert_eq!(reply.value("grpc-status"), Some(expected), "{reply:?}");
            }
        }
        drop(wire);
        proxy.stop().await;
        over.send(true).unwrap();
    };
    let second = endpoints.pop().unwrap();
    let (first, second, ()) = tokio::join!(endpoints.pop().unwrap(), second, client);
    assert_eq!(first + second, 3, "one connection for each of the calls that cannot be borne");
}

#[tokio::test]
async fn a_client_that_only_errs_is_sent_away_and_what_is_open_ends_well() {
    let echo = Echo::start().await;
    let limits =
        "{ max_concurrent_streams: 20, frames: { refused_calls: { burst: 20, rate: 1 } } }";
    let proxy = proxy(&[echo.address()], limits).await;
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    // As many that are served make up for it.
    let wrong = |stream: u32| {
        let mut head = call("/a.B/C", &[]);
        head[4].1 = "text/plain";
        (stream, head)
    };
    for _ in 0..60 {
        let stream = wire.open();
        wire.play(stream, &Message::new(&call("/test.Echo/Unary", &[])).body([0; 5]), 100).await;
        assert_eq!(wire.message(stream).await.value("grpc-status"), Some(&b"0"[..]));
        let (stream, head) = wrong(wire.open());
        wire.head(stream, &head, true).await;
        assert_eq!(wire.message(stream).await.value(":status"), Some(&b"415"[..]));
    }
    let open = wire.open();
    wire.head(open, &call("/test.Echo/Unary", &[]), false).await;
    let mut refused = 0;
    let said = 'said: loop {
        let (stream, head) = wrong(wire.open());
        wire.head(stream, &head, true).await;
        loop {
            let frame = wire.next().await.unwrap();
            match frame.kind {
                GOAWAY if frame.payload[4..8] != [0; 4] => break 'said frame.payload,
                HEADERS if frame.stream == stream => break,
                _ => {}
            }
        }
        refused += 1;
        assert!(refused < 100, "it may err for ever");
    };
    assert_eq!(said[4..8], [0, 0, 0, 11], "ENHANCE_YOUR_CALM");
    wire.data(open, &[0; 5], true).await;
    assert_eq!(wire.message(open).await.value("grpc-status"), Some(&b"0"[..]));
    while wire.next().await.is_some() {}
    let ended = r#"upbeat_connections_ended_total{listener="otlp",reason="refused_calls"}"#;
    eventually("it is counted", async || proxy.metric(ended).await == 1.0).await;
    proxy.stop().await;
}

#[tokio::test]
async fn thousands_of_frames_in_one_read_are_all_taken() {
    let echo = Echo::start().await;
    let proxy = proxy(&[echo.address()], "{}").await;
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    let head = call("/grpc.health.v1.Health/Check", &[]);
    let first = encode(&head, &[Form::Incremental; 6]);
    let indexed: Vec<u8> = (0..6).map(|at| 0xbe + 5 - at).collect();
    let mut burst = Vec::new();
    let mut put = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        burst.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        burst.extend([kind, flags]);
        burst.extend(stream.to_be_bytes());
        burst.extend_from_slice(payload);
    };
    let most = 4000;
    for number in 0..most {
        let block = if number == 0 { &first } else { &indexed };
        put(HEADERS, END_HEADERS, 2 * number + 1, block);
        put(DATA, END_STREAM, 2 * number + 1, &[0; 5]);
    }
    assert!(wire.write(&burst).await);
    for number in 0..most {
        let reply = wire.message(2 * number + 1).await;
        assert_eq!((reply.ended_by, &*reply.body), (End::Trailers, &[0, 0, 0, 0, 2, 8, 1][..]));
    }
    proxy.stop().await;
}
