//! Each limit of the configuration, set low, bites; what stays below it is served.

use std::{net::SocketAddr, sync::atomic::Ordering::SeqCst, time::Duration};

use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

use crate::fixture::{
    caller::Caller,
    echo::Echo,
    eventually,
    proxy::{Proxy, yaml},
    wire::{
        DATA, Frame, GOAWAY, INITIAL_WINDOW_SIZE, Message, PING, PRIORITY, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, Wire,
    },
};

async fn proxy(endpoint: SocketAddr, limits: &str) -> Proxy {
    let config = yaml(&[endpoint], "{ tcp: {} }", &format!("limits: {limits}"));
    let proxy = Proxy::start(&config.replace("workers: 2", "workers: 1")).await;
    proxy.wait_serving().await;
    proxy
}

fn call(path: &str) -> [(&str, &str); 6] {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "upbeat"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
}

/// Sends what costs nothing, once; false where the connection is over.
async fn cheap(wire: &mut Wire, what: &str, open: u32) -> bool {
    let frame = match what {
        "pings" => Frame::new(PING, 0, 0, *b"are you?"),
        "settings" => Frame::new(SETTINGS, 0, 0, []),
        "unknown" => Frame::new(0x77, 0, 0, []),
        "priorities" => Frame::new(PRIORITY, 0, open, [0, 0, 0, 0, 16]),
        "window_updates" => Frame::new(WINDOW_UPDATE, 0, 0, [0, 0, 0, 1]),
        "empty_data" => Frame::new(DATA, 0, open, []),
        "resets" => {
            let stream = wire.open();
            wire.head(stream, &call("/test.Echo/Hang"), false).await;
            Frame::new(RST_STREAM, 0, stream, [0, 0, 0, 8])
        }
        "faults" => {
            let stream = wire.open();
            let length = [("content-length", "5")];
            wire.head(stream, &[&call("/test.Echo/Hang")[..], &length].concat(), true).await;
            return true;
        }
        other => panic!("{other}"),
    };
    wire.send(frame).await
}

#[tokio::test]
async fn frames_that_cost_nothing_are_taken_up_to_their_limit() {
    let echo = Echo::start().await;
    for (what, limit) in [
        ("pings", "{ burst: 4, rate: 1 }"),
        ("settings", "{ burst: 4, rate: 1 }"),
        ("unknown", "{ burst: 4, rate: 1 }"),
        ("resets", "{ burst: 4, rate: 1 }"),
        ("priorities", "{ burst: 4, per_stream: 1 }"),
        ("window_updates", "{ burst: 4, per_stream: 1, per_data: 1 }"),
        ("empty_data", "{ burst: 4, rate: 1 }"),
        ("faults", "{ burst: 4, rate: 1 }"),
    ] {
        let limits = format!("{{ max_concurrent_streams: 4, frames: {{ {what}: {limit} }} }}");
        let proxy = proxy(echo.address(), &limits).await;
        let mut wire = Wire::connect(proxy.address("otlp")).await;
        wire.credits = false;
        let open = wire.open();
        wire.head(open, &call("/test.Echo/Hang"), false).await;
        for _ in 0..3 {
            assert!(cheap(&mut wire, what, open).await, "{what}");
        }
        let stream = wire.open();
        let unary = Message::new(&call("/test.Echo/Unary")).body([0; 5]);
        wire.play(stream, &unary, 16_384).await;
        let reply = wire.message(stream).await;
        assert_eq!(reply.value("grpc-status"), Some(&b"0"[..]), "{what} below the limit");

        // Some more were earned by the streams, and by the time that they took.
        for _ in 0..12 {
            cheap(&mut wire, what, open).await;
        }
        let mut said = None;
        while let Some(frame) = wire.next().await {
            if frame.kind == GOAWAY {
                said = Some(frame.payload[4..8].to_vec());
            }
        }
        assert_eq!(said, Some(vec![0, 0, 0, 11]), "{what}: GOAWAY with ENHANCE_YOUR_CALM");
        let ended = format!(r#"upbeat_connections_ended_total{{listener="otlp",reason="{what}"}}"#);
        eventually("it is counted", async || proxy.metric(&ended).await == 1.0).await;
        drop(wire);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_closed_after_its_time() {
    let echo = Echo::start().await;
    let proxy = proxy(echo.address(), "{ send_timeout: 300ms }").await;
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    let [a, b] = INITIAL_WINDOW_SIZE.to_be_bytes();
    wire.send(Frame::new(SETTINGS, 0, 0, [a, b, 0x40, 0, 0, 0])).await;
    wire.send(Frame::new(WINDOW_UPDATE, 0, 0, [0x40, 0, 0, 0])).await;
    let stream = wire.open();
    wire.head(stream, &call("/test.Echo/Flood"), false).await;
    eventually("the flood comes", async || echo.seen().bytes.load(SeqCst) > 1 << 20).await;
    eventually("it is closed", async || {
        proxy.metric(r#"upbeat_streams{listener="otlp",upstream="otlp"}"#).await == 0.0
    })
    .await;
    assert_eq!(proxy.check().await, 1);
    drop(wire);
    proxy.stop().await;
}

#[tokio::test]
async fn a_request_with_too_many_fields_reaches_no_backend() {
    let echo = Echo::start().await;
    let proxy = proxy(echo.address(), "{ max_header_fields: 8 }").await;
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    for (more, taken) in [(2, true), (3, false)] {
        let fields = [&call("/test.Echo/Unary")[..], &vec![("x-more", "1"); more]].concat();
        let stream = wire.open();
        wire.play(stream, &Message::new(&fields).body([0; 5]), 16_384).await;
        let status = if taken { &b"0"[..] } else { b"8" };
        assert_eq!(wire.message(stream).await.value("grpc-status"), Some(status), "{more} more");
    }
    assert_eq!(echo.seen().streams.load(SeqCst), 1);
    drop(wire);
    proxy.stop().await;
}

/// A head or trailers with so many fields more, each this large, and which limit they are over.
type Overlong = (&'static str, bool, usize, usize, Option<&'static str>);

#[tokio::test]
async fn an_overlong_response_ends_with_a_status_of_our_own_and_nothing_else_does() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap();
    let limits = "{ max_upstream_header_fields: 8, max_upstream_header_list_size: 32KiB }";
    let cases: [Overlong; 7] = [
        ("head", false, 6, 1, None),
        ("head", false, 7, 1, Some("limits.max_upstream_header_fields of Upbeat")),
        ("head", true, 1, 40_000, Some("limits.max_upstream_header_list_size of Upbeat")),
        ("trailers", true, 1, 30_000, None),
        ("trailers", true, 1, 40_000, Some("limits.max_upstream_header_list_size of Upbeat")),
        ("trailers", true, 5, 100_000, Some("limits.max_upstream_header_list_size of Upbeat")),
        ("trailers", true, 0, 0, None),
    ];
    let backend = async {
        let mut backend = Wire::accept(&listener).await;
        // One of another client, which is there from the first to the last.
        backend.begun(1).await;
        for (number, (place, body, more, size, _)) in cases.into_iter().enumerate() {
            let stream = 3 + 2 * number as u32;
            let more = vec![("x-more", "v".repeat(size)); more];
            let more: Vec<_> = more.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let mut head = vec![(":status", "200"), ("content-type", "application/grpc")];
            let mut trailers = vec![("grpc-status", "0")];
            if place == "head" { &mut head } else { &mut trailers }.extend(more);
            backend.message(stream).await;
            let body = if body { vec![0, 0, 0, 0, 1, 7] } else { Vec::new() };
            let response = Message::new(&head).body(body).trailers(&trailers);
            backend.play(stream, &response, 16_384).await;
        }
        let response = Message::new(&[(":status", "200"), ("content-type", "application/grpc")]);
        backend.play(1, &response.trailers(&[("grpc-status", "0")]), 16_384).await;
        while backend.next().await.is_some() {}
    };
    let client = async {
        let proxy = proxy(endpoint, limits).await;
        let mut other = Wire::connect(proxy.address("otlp")).await;
        let stays = other.open();
        other.head(stays, &call("/test.Echo/Unary"), true).await;
        let mut wire = Wire::connect(proxy.address("otlp")).await;
        for (place, _, _, _, over) in cases {
            let stream = wire.open();
            let request = Message::new(&call("/test.Echo/Unary")).body([0; 5]);
            wire.play(stream, &request, 16_384).await;
            let reply = wire.message(stream).await;
            let status = if over.is_some() { &b"8"[..] } else { b"0" };
            assert_eq!(reply.value("grpc-status"), Some(status), "{place} {over:?} {reply:?}");
            if let Some(over) = over {
                let words = String::from_utf8_lossy(reply.value("grpc-message").unwrap());
                assert!(words.ends_with(over), "{words}");
                assert_eq!(reply.value("grpc-status-details-bin"), None, "no RetryInfo");
                assert_eq!(reply.body.is_empty(), place == "head");
            }
        }
        assert_eq!(other.message(stays).await.value("grpc-status"), Some(&b"0"[..]));
        for (key, count) in [("list_size", 3.0), ("fields", 1.0)] {
            let name = format!(
                r#"upbeat_streams_cut_total{{listener="otlp",reason="max_upstream_header_{key}"}}"#
            );
            assert_eq!(proxy.metric(&name).await, count, "{key}");
        }
        let ejected =
            format!(r#"upbeat_endpoint_ejected{{upstream="otlp",endpoint="{endpoint}"}}"#);
        assert_eq!(proxy.metric(&ejected).await, 0.0);
        drop((wire, other));
        proxy.stop().await;
    };
    tokio::join!(backend, client);
}

#[tokio::test]
async fn endpoints_have_no_more_connections_than_they_may() {
    let echo = Echo::with_limit(1).await;
    for most in [1, 3] {
        let proxy = proxy(echo.address(), &format!("{{ max_upstream_connections: {most} }}")).await;
        let open = format!(
            r#"upbeat_upstream_connections{{upstream="otlp",endpoint="{}"}}"#,
            echo.address()
        );
        let mut caller = Caller::connect(proxy.address("otlp")).await;
        let mut calls = Vec::new();
        for _ in 0..4 {
            calls.push(caller.open("/test.Echo/Hang").await.unwrap());
        }
        eventually("its connections are made", async || {
            proxy.metric(&open).await == f64::from(most)
                && echo.seen().open.load(SeqCst) == most as usize
        })
        .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(proxy.metric(&open).await, f64::from(most));
        drop((calls, caller));
        eventually("the calls are over", async || echo.seen().open.load(SeqCst) == 0).await;
        proxy.stop().await;
    }
}

#[tokio::test]
async fn old_connections_to_endpoints_are_replaced_and_no_call_is_lost() {
    let echo = Echo::start().await;
    let proxy = proxy(echo.address(), "{ max_upstream_connection_age: 100ms }").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let before = echo.seen().connections.load(SeqCst);
    let deadline = Instant::now() + Duration::from_secs(5);
    while echo.seen().connections.load(SeqCst) < before + 4 {
        assert!(Instant::now() < deadline, "no connection was replaced");
        let reply = caller.unary("/test.Echo/Slow", &[0; 5]).await.unwrap();
        assert_eq!(reply.code(), 0);
    }
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn an_address_with_all_its_connections_is_refused_more_and_the_others_live() {
    let echo = Echo::start().await;
    let proxy = proxy(echo.address(), "{ max_connections_per_address: 2 }").await;
    let address = proxy.address("otlp");
    let gauge = r#"upbeat_connections{listener="otlp"}"#;
    eventually("only these tests' connections", async || proxy.metric(gauge).await == 0.0).await;
    let mut first = Caller::connect(address).await;
    let mut second = Caller::connect(address).await;
    for caller in [&mut first, &mut second] {
        assert_eq!(caller.unary("/test.Echo/Unary", &[0; 5]).await.unwrap().code(), 0);
    }
    let refused = r#"upbeat_connections_refused_total{listener="otlp",reason="per_address"}"#;
    let before = proxy.metric(refused).await;
    let mut third = TcpStream::connect(address).await.unwrap();
    let closed = timeout(Duration::from_secs(20), third.read(&mut [0])).await;
    assert!(closed.expect("it is closed").is_ok_and(|read| read == 0));
    assert_eq!(proxy.metric(refused).await, before + 1.0);
    assert_eq!(first.unary("/test.Echo/Unary", &[0; 5]).await.unwrap().code(), 0);
    drop(second);
    eventually("a place was freed", async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        timeout(Duration::from_millis(100), stream.read(&mut [0])).await.is_err()
    })
    .await;
    drop(first);
    proxy.stop().await;
}
