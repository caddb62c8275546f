//! PINGs to endpoints: where a call waits and nothing is heard, and nowhere else.

use std::time::Duration;

use tokio::{
    net::TcpListener,
    time::{Instant, timeout_at},
};

use crate::fixture::{
    caller::{Call, Caller, read},
    proxy::{Proxy, yaml},
    wire::{ACK, Frame, GOAWAY, PING, Wire},
};

const UNARY: &str = "/test.Echo/Unary";
const LIMITS: &str = "limits: { upstream_ping_interval: 300ms, upstream_ping_timeout: 400ms }";

/// A call that an endpoint has and does not answer.
async fn waiting(limits: &str) -> (Proxy, TcpListener, Caller, Call, Wire) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = yaml(&[listener.local_addr().unwrap()], "{ tcp: {} }", limits)
        .replace("workers: 2", "workers: 1");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = caller.open(UNARY).await.unwrap();
    call.request.send_data(bytes::Bytes::from_static(&[0; 5]), true).unwrap();
    let mut wire = Wire::accept(&listener).await;
    wire.message(1).await;
    (proxy, listener, caller, call, wire)
}

/// The PINGs that come within a time.
async fn pings(wire: &mut Wire, within: Duration) -> usize {
    let (end, mut count) = (Instant::now() + within, 0);
    while let Ok(Some(frame)) = timeout_at(end, wire.next()).await {
        count += usize::from(frame.kind == PING && !frame.has(ACK));
    }
    count
}

#[tokio::test]
async fn an_endpoint_that_is_silent_and_answers_pings_keeps_its_call() {
    let (proxy, _listener, caller, call, mut wire) = waiting(LIMITS).await;
    let count = pings(&mut wire, Duration::from_millis(1700)).await;
    assert!((2..=5).contains(&count), "{count}");
    wire.head(1, &[(":status", "200"), ("content-type", "application/grpc")], false).await;
    wire.head(1, &[("grpc-status", "0")], true).await;
    assert_eq!(read(call.response.await.unwrap()).await.unwrap().code(), 0);
    assert_eq!(pings(&mut wire, Duration::from_millis(700)).await, 0, "no stream is open");
    drop((wire, caller));
    proxy.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_answers_no_ping_is_given_up() {
    let (proxy, _listener, caller, call, mut wire) = waiting(LIMITS).await;
    wire.answers = false;
    let begun = Instant::now();
    let reader = async { while wire.next().await.is_some() {} };
    let (reply, ()) = tokio::join!(call.response, reader);
    let status = read(reply.unwrap()).await.unwrap().status().unwrap();
    assert_eq!(
        (status.code as u8, &*status.message),
        (14, "upstream connection lost: closed by the proxy, since a PING had no answer")
    );
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(600) && took < Duration::from_secs(20), "{took:?}");
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_finds_pings_too_many_gets_half_as_many() {
    let (proxy, listener, mut caller, _call, mut wire) = waiting(LIMITS).await;
    while wire.next().await.unwrap().kind != PING {}
    let calm = [&1_u32.to_be_bytes()[..], &11_u32.to_be_bytes(), b"too_many_pings"].concat();
    wire.send(Frame::new(GOAWAY, 0, 0, calm)).await;
    let mut next = caller.open(UNARY).await.unwrap();
    next.request.send_data(bytes::Bytes::from_static(&[0; 5]), true).unwrap();
    let mut other = Wire::accept(&listener).await;
    other.message(1).await;
    let begun = Instant::now();
    while other.next().await.unwrap().kind != PING {}
    assert!(begun.elapsed() > Duration::from_millis(550), "{:?}", begun.elapsed());
    drop((wire, other, caller));
    _ = proxy.ending().await;
}

#[tokio::test]
async fn by_default_no_ping_is_sent_within_seconds() {
    let (proxy, _listener, caller, _call, mut wire) = waiting("").await;
    assert_eq!(pings(&mut wire, Duration::from_secs(2)).await, 0);
    drop((wire, caller));
    proxy.stop().await;
}
