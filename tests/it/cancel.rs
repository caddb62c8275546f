//! Calls that their client gives up.

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;

use crate::fixture::{caller::Caller, echo::Echo, eventually, proxy::Proxy};

async fn freed(echo: &Echo, proxy: &Proxy) {
    eventually("the backend's streams end", async || echo.seen().open.load(SeqCst) == 0).await;
    eventually("no call is in flight", async || {
        proxy.metric(r#"upbeat_streams{listener="otlp",upstream="otlp"}"#).await == 0.0
            && proxy.status().await.upstreams[0].endpoints[0].in_flight == 0
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_call_frees_its_upstream_stream() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    for path in ["/test.Echo/Hang", "/test.Echo/Sink", "/test.Echo/Stream", "/test.Echo/Flood"] {
        let mut call = caller.open(path).await.unwrap();
        call.request.send_data(Bytes::from_static(&[0, 0, 0, 0, 1, 7]), false).unwrap();
        eventually("the call has arrived", async || echo.seen().open.load(SeqCst) == 1).await;
        drop(call);
        freed(&echo, &proxy).await;
    }
    assert_eq!(echo.seen().connections.load(SeqCst), 1, "its connection is kept");
    proxy.stop().await;
}

#[tokio::test]
async fn a_lost_client_frees_all_its_streams_and_no_other() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let mut lost = Caller::connect(proxy.address("otlp")).await;
    let mut calls = Vec::new();
    for _ in 0..50 {
        calls.push(lost.open("/test.Echo/Hang").await.unwrap());
    }
    eventually("all calls have arrived", async || echo.seen().open.load(SeqCst) == 50).await;
    let mut other = Caller::connect(proxy.address("otlp")).await;
    let kept = other.open("/test.Echo/Stream").await.unwrap();
    eventually("the other has arrived", async || echo.seen().open.load(SeqCst) == 51).await;
    drop((lost, calls));
    eventually("one call is left", async || echo.seen().open.load(SeqCst) == 1).await;
    drop(kept);
    freed(&echo, &proxy).await;
    proxy.stop().await;
}

#[tokio::test]
async fn thousands_of_cancelled_calls_cost_no_upstream_connection() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    for round in 0..30 {
        // A new client each time: what one may cancel is bounded.
        let mut caller = Caller::connect(proxy.address("otlp")).await;
        let mut calls = Vec::new();
        for _ in 0..100 {
            calls.push(caller.open("/test.Echo/Hang").await.unwrap());
        }
        let streams = 100 * (round + 1);
        eventually("the calls have arrived", async || echo.seen().streams.load(SeqCst) == streams)
            .await;
        drop(calls);
        eventually("the calls are over", async || echo.seen().open.load(SeqCst) == 0).await;
    }
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let reply = caller.unary("/test.Echo/Unary", &[0; 5]).await.unwrap();
    assert_eq!(reply.code(), 0);
    let connections = echo.seen().connections.load(SeqCst);
    assert!(connections <= 8, "{connections} connections, four of each worker at most");
    proxy.stop().await;
}
