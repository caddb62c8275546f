//! Clients that vanish without a word.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::fixture::{
    caller::Caller,
    echo::Echo,
    eventually, kernel,
    proxy::{Proxy, yaml},
    tunnel::Tunnel,
    wire::{ACK, PING, Wire},
};

async fn proxy(echo: &Echo, limits: &str) -> Proxy {
    let proxy =
        Proxy::start(&yaml(&[echo.address()], "{ tcp: {} }", &format!("limits: {limits}"))).await;
    proxy.wait_serving().await;
    proxy
}

const OPEN: &str = r#"upbeat_connections{listener="otlp"}"#;

#[tokio::test]
async fn clients_that_vanish_with_open_calls_are_soon_gone() {
    let echo = Echo::start().await;
    let limits = "{ client_ping_interval: 400ms, client_ping_timeout: 600ms }";
    let proxy = proxy(&echo, limits).await;
    eventually("only these tests' connections", async || proxy.metric(OPEN).await == 0.0).await;
    let way = Tunnel::to(proxy.address("otlp")).await;
    let (mut lost, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let mut caller = Caller::connect(way.address()).await;
        calls.push(caller.open("/test.Echo/Hang").await.unwrap());
        lost.push(caller);
    }
    let mut stays = Caller::connect(proxy.address("otlp")).await;
    let call = stays.open("/test.Echo/Hang").await.unwrap();
    eventually("all calls have arrived", async || echo.seen().open.load(SeqCst) == 21).await;
    assert_eq!(proxy.metric(OPEN).await, 21.0);
    way.swallow_all();
    eventually("they are gone", async || {
        proxy.metric(OPEN).await == 1.0 && echo.seen().open.load(SeqCst) == 1
    })
    .await;
    // One that is silent and answers is kept.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(echo.seen().open.load(SeqCst), 1);
    drop((call, stays));
    proxy.stop().await;
}

#[tokio::test]
async fn an_old_connection_of_a_vanished_client_has_its_bound() {
    let echo = Echo::start().await;
    // The PINGs alone would take an hour.
    let limits = "{ max_connection_age: 300ms, max_connection_age_grace: 300ms, client_ping_interval: 1h, handshake_timeout: 300ms }";
    let proxy = proxy(&echo, limits).await;
    let way = Tunnel::to(proxy.address("otlp")).await;
    let mut caller = Caller::connect(way.address()).await;
    let _call = caller.open("/test.Echo/Hang").await.unwrap();
    eventually("the call has arrived", async || echo.seen().open.load(SeqCst) == 1).await;
    way.swallow_all();
    eventually("it is gone", async || {
        proxy.metric(OPEN).await == 0.0 && echo.seen().open.load(SeqCst) == 0
    })
    .await;
    proxy.stop().await;
}

#[tokio::test]
async fn only_a_client_that_waits_in_silence_is_asked() {
    let echo = Echo::start().await;
    let limits = "{ client_ping_interval: 300ms, client_ping_timeout: 5s }";
    let proxy = proxy(&echo, limits).await;
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    let asked = async |wire: &mut Wire| {
        let (end, mut count) = (Instant::now() + Duration::from_millis(1300), 0);
        while let Ok(Some(frame)) = timeout_at(end, wire.next()).await {
            count += usize::from(frame.kind == PING && !frame.has(ACK));
        }
        count
    };
    assert_eq!(asked(&mut wire).await, 0, "no stream is open");
    let stream = wire.open();
    let head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "upbeat"),
        (":path", "/test.Echo/Hang"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    wire.head(stream, &head, false).await;
    let count = asked(&mut wire).await;
    assert!((1..=4).contains(&count), "{count}");
    drop(wire);
    proxy.stop().await;
}

#[tokio::test]
async fn the_kernel_looks_after_connections_without_streams_and_of_http_1() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "{}").await;
    let address = proxy.address("otlp");
    let idle = TcpStream::connect(address).await.unwrap();
    let mut health = TcpStream::connect(address).await.unwrap();
    health.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(health.read(&mut [0; 512]).await.unwrap() > 0);
    for stream in [&idle, &health] {
        let client = stream.local_addr().unwrap();
        // 02 is keepalive's, in hundredths of a second: 30 s at most.
        eventually("the timer runs", async || {
            let timer = kernel::timer(address, client);
            let left = timer.strip_prefix("02:").map(|left| u64::from_str_radix(left, 16).unwrap());
            left.is_some_and(|left| left <= 3001)
        })
        .await;
    }
    drop((idle, health));
    proxy.stop().await;
}
