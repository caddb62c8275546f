//! A connection that was asked to end: its grace, and what ends before.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use tokio::{task::JoinSet, time::Instant};
use upbeat::app::Ending;

use crate::fixture::{
    caller::{Caller, read},
    echo::Echo,
    eventually,
    proxy::{Proxy, yaml},
    wire::{End, Frame, GOAWAY, INITIAL_WINDOW_SIZE, Message, SETTINGS, Wire},
};

const WATCH: &str = "/grpc.health.v1.Health/Watch";

async fn proxy(echo: &Echo, limits: &str) -> Proxy {
    let proxy =
        Proxy::start(&yaml(&[echo.address()], "{ tcp: {} }", &format!("limits: {limits}"))).await;
    proxy.wait_serving().await;
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

fn code(message: &Message) -> Option<&[u8]> {
    message.value("grpc-status")
}

/// Reads to the connection's end; whether GOAWAY came.
async fn to_the_end(wire: &mut Wire) -> bool {
    wire.patience = Duration::from_secs(20);
    let mut told = false;
    while let Some(frame) = wire.next().await {
        told |= frame.kind == GOAWAY;
    }
    told
}

#[tokio::test]
async fn a_watch_ends_with_its_connections_age_and_keeps_it_no_longer() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "{ max_connection_age: 300ms, max_connection_age_grace: 10m }").await;
    for answers in [true, false] {
        let mut wire = Wire::connect(proxy.address("otlp")).await;
        wire.answers = answers;
        let stream = wire.open();
        wire.play(stream, &Message::new(&head(WATCH)).body([0; 5]), 16_384).await;
        assert!(to_the_end(&mut wire).await, "GOAWAY came first");
        let watch = &wire.arriving[&stream];
        assert_eq!((watch.body.len(), code(watch)), (7, Some(&b"14"[..])), "{watch:?}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn after_the_grace_what_is_open_ends_with_14_and_the_connection_is_closed() {
    let echo = Echo::start().await;
    let limits = "{ max_connection_age: 300ms, max_connection_age_grace: 700ms }";
    let proxy = proxy(&echo, limits).await;
    let begun = Instant::now();
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    let [a, b] = INITIAL_WINDOW_SIZE.to_be_bytes();
    wire.send(Frame::new(SETTINGS, 0, 0, [a, b, 0, 0, 0, 0])).await;
    // A request that never ends, an answer that is never taken, a Watch that cannot be told.
    let upload = wire.open();
    wire.head(upload, &head("/test.Echo/Hang"), false).await;
    let answer = wire.open();
    let request = Message::new(&head("/test.Echo/Unary")).body([0, 0, 0, 0, 1, 7]);
    wire.play(answer, &request, 16_384).await;
    let watch = wire.open();
    wire.play(watch, &Message::new(&head(WATCH)).body([0; 5]), 16_384).await;
    assert!(to_the_end(&mut wire).await, "GOAWAY came first");
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    for stream in [upload, answer, watch] {
        let message = &wire.arriving[&stream];
        assert_ne!(message.ended_by, End::Open, "{message:?}");
        assert_eq!(code(message), Some(&b"14"[..]), "{message:?}");
    }
    let words = wire.arriving[&upload].value("grpc-message").unwrap();
    assert!(words.ends_with(b"limits.max_connection_age_grace of Upbeat"), "{words:?}");
    eventually("nothing is left", async || {
        echo.seen().open.load(SeqCst) == 0
            && proxy.metric(r#"upbeat_streams{listener="otlp",upstream="otlp"}"#).await == 0.0
    })
    .await;
    let late = r#"upbeat_timeouts_total{listener="otlp",upstream="otlp",reason="age"}"#;
    assert_eq!(proxy.metric(late).await, 2.0);
    let ended =
        r#"upbeat_connections_ended_total{listener="otlp",reason="max_connection_age_grace"}"#;
    assert_eq!(proxy.metric(ended).await, 1.0);
    proxy.stop().await;
}

#[tokio::test]
async fn when_the_process_stops_calls_have_its_time_and_not_that_grace() {
    let echo = Echo::start().await;
    let limits = "limits: { max_connection_age_grace: 100ms }";
    let config = yaml(&[echo.address()], "{ tcp: {} }", limits)
        .replace("delay: 0s, timeout: 2s", "delay: 0s, timeout: 20s");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = caller.open("/test.Echo/Stream").await.unwrap();
    eventually("the call has arrived", async || echo.seen().open.load(SeqCst) == 1).await;
    let shutdown = proxy.shutdown.clone();
    let mut ending = JoinSet::new();
    ending.spawn(proxy.ending());
    shutdown.stop.cancelled().await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    call.request.send_data(vec![0, 0, 0, 0, 1, 7].into(), true).unwrap();
    let reply = read(call.response.await.unwrap()).await.unwrap();
    assert_eq!((reply.body.len(), reply.code()), (6, 0));
    drop(caller);
    assert_eq!(ending.join_next().await.unwrap().unwrap(), Ending::Clean);
}
