//! GOAWAY from a backend: it may end its connections whenever it likes, and no call is lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{net::TcpListener, task::JoinSet, time::sleep};

use crate::fixture::{
    caller::{Caller, read},
    echo::Echo,
    eventually,
    proxy::Proxy,
    wire::{ACK, DATA, End, Frame, GOAWAY, Message, PING, Wire},
};

#[tokio::test]
async fn goaway_under_load_loses_no_call() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for number in 0..8 {
        let address = proxy.address("otlp");
        let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
        callers.spawn(async move {
            let mut caller = Caller::connect(address).await;
            let path = if number % 2 == 0 { "/test.Echo/Unary" } else { "/test.Echo/Slow" };
            let mut failures = Vec::new();
            while !stop.load(SeqCst) {
                let reply = caller.unary(path, &[0, 0, 0, 0, 1, 7]).await.unwrap();
                let status = reply.status().unwrap();
                if status.code as u8 != 0 {
                    failures.push(status.to_string());
                }
                done.fetch_add(1, SeqCst);
            }
            failures
        });
    }
    for round in 1..=20 {
        let target = done.load(SeqCst) + 50;
        eventually("calls go on", async || done.load(SeqCst) >= target).await;
        echo.go_away();
        eventually("the connections are renewed", async || {
            echo.seen().connections.load(SeqCst) > round
        })
        .await;
    }
    stop.store(true, SeqCst);
    let mut failures = Vec::new();
    while let Some(caller) = callers.join_next().await {
        failures.extend(caller.unwrap());
    }
    assert_eq!(failures, Vec::<String>::new(), "of {} calls", done.load(SeqCst));
    proxy.stop().await;
}

#[tokio::test]
async fn a_long_call_ends_on_the_connection_that_was_told_to_go() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = caller.open("/test.Echo/Stream").await.unwrap();
    eventually("the call has arrived", async || echo.seen().open.load(SeqCst) == 1).await;
    echo.go_away();
    let connections = echo.seen().connections.load(SeqCst);
    eventually("a new connection carries new calls", async || {
        let mut other = Caller::connect(proxy.address("otlp")).await;
        assert_eq!(other.unary("/test.Echo/Unary", &[0; 5]).await.unwrap().code(), 0);
        sleep(std::time::Duration::from_millis(1)).await;
        echo.seen().connections.load(SeqCst) > connections
    })
    .await;
    call.request.send_data(vec![0, 0, 0, 0, 1, 7].into(), true).unwrap();
    let reply = crate::fixture::caller::read(call.response.await.unwrap()).await.unwrap();
    assert_eq!((reply.body.len(), reply.code()), (6, 0));
    proxy.stop().await;
}

#[tokio::test]
async fn a_lost_call_says_who_ended_its_connection_and_why() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let goaway = Frame::new(GOAWAY, 0, 0, [0, 0, 0, 1, 0, 0, 0, 2]);
    let ends = [
        (None, "closed by the endpoint"),
        (Some(goaway), "closed by the endpoint, after GOAWAY INTERNAL_ERROR"),
        (
            Some(Frame::new(DATA, 0, 0, [7])),
            "closed by the proxy, since the endpoint broke the protocol: PROTOCOL_ERROR",
        ),
    ];
    let proxy = Proxy::in_front_of(&[listener.local_addr().unwrap()]).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    for (frame, why) in ends {
        let client = caller.unary("/a.B/C", &[0; 5]);
        let endpoint = async {
            let mut endpoint = Wire::accept(&listener).await;
            endpoint.begun(1).await;
            // With everything read, its close is no reset.
            endpoint.send(Frame::new(PING, 0, 0, *b"all read")).await;
            while !endpoint.next().await.is_some_and(|it| it.kind == PING && it.has(ACK)) {}
            if let Some(frame) = frame {
                endpoint.send(frame).await;
            }
        };
        let (reply, ()) = tokio::join!(client, endpoint);
        let status = reply.unwrap().status().unwrap();
        assert_eq!(status.message, format!("upstream connection lost: {why}"));
    }
    let endpoint = listener.local_addr().unwrap();
    let labels = format!(r#"{{upstream="otlp",endpoint="{endpoint}",reason="protocol_error"}}"#);
    let ended = format!("upbeat_upstream_connections_ended_total{labels}");
    eventually("the last one is counted", async || proxy.metric(&ended).await == 1.0).await;
    drop(caller);
    proxy.stop().await;
}

fn goaway(last: u32) -> Frame {
    Frame::new(GOAWAY, 0, 0, [last.to_be_bytes(), [0; 4]].concat())
}

fn cancelled(words: &str) -> Message {
    let head = [(":status", "200"), ("content-type", "application/grpc")];
    let status = [("grpc-status", "1"), ("grpc-message", words)];
    Message::new(&[head, status].concat()).ended_by(End::Head)
}

/// As a stopping server of gRPC's core does it: the first GOAWAY takes everything, what comes then
/// is cancelled, and the last GOAWAY counts that as taken.
#[tokio::test]
async fn a_call_that_a_stopping_server_cancels_goes_to_the_next_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::in_front_of(&[listener.local_addr().unwrap()]).await;
    let placed = r#"upbeat_retries_total{listener="otlp",upstream="otlp",reason="turned_away"}"#;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = caller.open("/test.Echo/Unary").await.unwrap();
    call.request.send_data(Bytes::from_static(&[0, 0, 0, 0, 1, 7]), true).unwrap();
    let mut wire = Wire::accept(&listener).await;
    wire.message(1).await;
    wire.send(goaway(u32::MAX >> 1)).await;
    wire.play(1, &cancelled("CANCELLED"), 16_384).await;
    wire.reset(1, 0).await;
    wire.send(goaway(1)).await;
    let mut wire = Wire::accept(&listener).await;
    assert_eq!(wire.message(1).await.body, [0, 0, 0, 0, 1, 7]);
    // One that is held up meanwhile says it the other way round.
    wire.play(1, &cancelled("CANCELLED"), 16_384).await;
    wire.reset(1, 0).await;
    sleep(Duration::from_millis(20)).await;
    wire.send(goaway(u32::MAX >> 1)).await;
    let mut wire = Wire::accept(&listener).await;
    assert_eq!(wire.message(1).await.body, [0, 0, 0, 0, 1, 7]);
    wire.play(1, &cancelled("by a handler"), 16_384).await;
    let reply = read(call.response.await.unwrap()).await.unwrap();
    assert_eq!(reply.status().unwrap().message, "by a handler");
    assert_eq!(proxy.metric(placed).await, 2.0);

    // A server that goes on, and a handler's own words, are heard as they are.
    for (stream, words) in [(3, "CANCELLED"), (5, "by a handler")] {
        let mut call = caller.open("/test.Echo/Unary").await.unwrap();
        call.request.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        wire.message(stream).await;
        if stream == 5 {
            wire.send(goaway(u32::MAX >> 1)).await;
        }
        wire.play(stream, &cancelled(words), 16_384).await;
        assert_eq!(read(call.response.await.unwrap()).await.unwrap().code(), 1);
    }
    assert_eq!(proxy.metric(placed).await, 2.0);
    drop((wire, caller));
    proxy.stop().await;
}
