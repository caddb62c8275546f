//! A listener with all the connections that it takes: who leaves, and who is answered.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::fixture::{
    caller::{Caller, get},
    echo::Echo,
    eventually,
    proxy::{CHECK, Proxy, yaml},
    wire::{GOAWAY, Message, Wire},
};

const UNARY: &str = "/test.Echo/Unary";
const OPEN: &str = r#"upbeat_connections{listener="otlp"}"#;

/// A proxy with these limits when no connection of `wait_serving` is left.
async fn proxy(echo: &Echo, limits: &str) -> Proxy {
    let proxy =
        Proxy::start(&yaml(&[echo.address()], "{ tcp: {} }", &format!("limits: {limits}"))).await;
    proxy.wait_serving().await;
    eventually("only these tests' connections", async || proxy.metric(OPEN).await == 0.0).await;
    proxy
}

fn head(path: &str) -> [(&str, &str); 6] {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "upbeat"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
}

async fn ended(proxy: &Proxy, reason: &str) -> f64 {
    let name = format!(r#"upbeat_connections_ended_total{{listener="otlp",reason="{reason}"}}"#);
    proxy.metric(&name).await
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_closed_and_one_that_asked_is_kept() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "{ first_request_timeout: 300ms, handshake_timeout: 2s }").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    assert_eq!(caller.unary(UNARY, &[0; 5]).await.unwrap().code(), 0);
    for answers in [true, false] {
        let begun = Instant::now();
        let mut wire = Wire::connect(proxy.address("otlp")).await;
        wire.answers = answers;
        wire.patience = Duration::from_secs(20);
        let mut told = false;
        while let Some(frame) = wire.next().await {
            told |= frame.kind == GOAWAY;
        }
        assert!(told && begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
    }
    assert_eq!(ended(&proxy, "first_request_timeout").await, 2.0);
    assert_eq!(caller.unary(UNARY, &[0; 5]).await.unwrap().code(), 0);
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn the_silent_make_room_then_those_that_are_idle_for_longest_and_never_the_busy() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "{ max_connections: 4 }").await;
    let address = proxy.address("otlp");
    let mut busy = Caller::connect(address).await;
    let call = busy.open("/test.Echo/Hang").await.unwrap();
    let mut older = Caller::connect(address).await;
    assert_eq!(older.unary(UNARY, &[0; 5]).await.unwrap().code(), 0);
    sleep(Duration::from_millis(50)).await;
    let mut newer = Caller::connect(address).await;
    assert_eq!(newer.unary(UNARY, &[0; 5]).await.unwrap().code(), 0);
    // One that says nothing at all.
    let mut silent = TcpStream::connect(address).await.unwrap();
    sleep(Duration::from_millis(1200)).await;

    let mut first = Caller::connect(address).await;
    assert_eq!(first.unary(UNARY, &[0; 5]).await.unwrap().code(), 0);
    let closed = timeout(Duration::from_secs(20), silent.read(&mut [0])).await;
    assert_eq!(closed.expect("the silent one is closed").unwrap_or(0), 0);

    let mut second = Caller::connect(address).await;
    assert_eq!(second.unary(UNARY, &[0; 5]).await.unwrap().code(), 0);
    assert!(older.unary(UNARY, &[0; 5]).await.is_err(), "the longest idle is closed");
    assert_eq!(newer.unary(UNARY, &[0; 5]).await.unwrap().code(), 0);
    assert_eq!(echo.seen().open.load(SeqCst), 1, "the busy one is untouched");
    assert_eq!(ended(&proxy, "max_connections").await, 2.0);
    drop((busy, call, newer, first, second));
    proxy.stop().await;
}

#[tokio::test]
async fn when_all_are_busy_health_is_answered_and_calls_are_to_come_again() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "{ max_connections: 2, reserved_connections: 2 }").await;
    let address = proxy.address("otlp");
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut caller = Caller::connect(address).await;
        let call = caller.open("/test.Echo/Hang").await.unwrap();
        busy.push((caller, call));
    }
    eventually("they are busy", async || echo.seen().open.load(SeqCst) == 2).await;
    // More than there are reserved, and silent: the older ones give way.
    let mut silent = Vec::new();
    for number in 0..20 {
        let stream = TcpStream::connect(address).await.unwrap();
        silent.push(stream);
        if number % 5 == 0 {
            let answered = timeout(Duration::from_secs(20), get(address, "/")).await;
            assert_eq!(answered.expect("health is answered").0.as_u16(), 200);
        }
    }
    assert_eq!(proxy.check().await, 1);

    let mut wire = Wire::connect(address).await;
    let check = wire.open();
    wire.play(check, &Message::new(&head(CHECK)).body([0; 5]), 16_384).await;
    assert_eq!(wire.message(check).await.value("grpc-status"), Some(&b"0"[..]));
    for path in [UNARY, "/grpc.health.v1.Health/Watch"] {
        let mut wire = Wire::connect(address).await;
        let stream = wire.open();
        wire.play(stream, &Message::new(&head(path)).body([0; 5]), 16_384).await;
        let refusal = wire.message(stream).await;
        assert_eq!(refusal.value("grpc-status"), Some(&b"14"[..]), "{refusal:?}");
        assert!(refusal.value("grpc-status-details-bin").is_some(), "RetryInfo");
        let words = String::from_utf8_lossy(refusal.value("grpc-message").unwrap());
        assert!(words.contains("limits.max_connections of Upbeat"), "{words}");
        wire.patience = Duration::from_secs(20);
        while wire.next().await.is_some() {}
    }
    let denied = r#"upbeat_denied_total{listener="otlp",reason="max_connections"}"#;
    assert_eq!(proxy.metric(denied).await, 2.0);
    assert_eq!(echo.seen().open.load(SeqCst), 2, "the busy ones are untouched");

    // A place that is free again is for calls.
    busy.pop();
    eventually("calls are taken again", async || {
        let mut caller = Caller::connect(address).await;
        caller.unary(UNARY, &[0; 5]).await.is_ok_and(|reply| reply.code() == 0)
    })
    .await;
    drop((busy, silent, wire));
    proxy.stop().await;
}

#[tokio::test]
async fn health_is_answered_at_once_beside_clients_that_say_settings_and_no_more() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "{ max_connections: 50 }").await;
    let address = proxy.address("otlp");
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(Wire::connect(address).await);
    }
    for _ in 0..3 {
        let begun = Instant::now();
        assert_eq!(get(address, "/").await.0.as_u16(), 200);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    sleep(Duration::from_millis(1200)).await;
    // Now they count as idle, and a call finds a place.
    let mut caller = Caller::connect(address).await;
    assert_eq!(caller.unary(UNARY, &[0; 5]).await.unwrap().code(), 0);
    assert!(ended(&proxy, "max_connections").await >= 1.0);
    drop((silent, caller));
    proxy.stop().await;
}

#[tokio::test]
async fn a_kept_connection_of_http_1_makes_room_too() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "{ max_connections: 1 }").await;
    let address = proxy.address("otlp");
    let mut kept = TcpStream::connect(address).await.unwrap();
    kept.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(kept.read(&mut [0; 512]).await.unwrap() > 0);
    sleep(Duration::from_millis(1200)).await;
    let mut caller = Caller::connect(address).await;
    assert_eq!(caller.unary(UNARY, &[0; 5]).await.unwrap().code(), 0);
    let closed = timeout(Duration::from_secs(20), kept.read(&mut [0])).await;
    assert_eq!(closed.expect("it is closed").unwrap_or(0), 0);
    drop(caller);
    proxy.stop().await;
}
