//! The end: health first, then calls, then the process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::timeout};
use tokio_stream::StreamExt;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use upbeat::app::Ending;

use crate::fixture::{
    caller::{Caller, get, read},
    echo::Echo,
    eventually,
    proxy::{Proxy, yaml},
};

/// A proxy that goes on for half a second after it was told to stop.
async fn proxy(echo: &Echo) -> Proxy {
    let config = yaml(&[echo.address()], "{ tcp: {} }", "")
        .replace("delay: 0s, timeout: 2s", "delay: 500ms, timeout: 500ms");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    proxy
}

#[tokio::test]
async fn health_says_not_serving_while_calls_are_still_taken() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo).await;
    proxy.shutdown.drain.cancel();
    proxy.wait_not_serving().await;
    let (status, _) = get(proxy.admin(), "/readyz").await;
    assert_eq!(status.as_u16(), 503);
    assert_eq!(get(proxy.admin(), "/livez").await.0.as_u16(), 200);
    assert_eq!(proxy.status().await.services[0].reason, "draining");
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    assert_eq!(caller.unary("/test.Echo/Unary", &[0; 5]).await.unwrap().code(), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn open_watch_ends_with_not_serving_on_drain() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo).await;
    let address = format!("http://{}", proxy.address("otlp"));
    let endpoint = tonic::transport::Endpoint::from_shared(address).unwrap();
    let mut client = HealthClient::new(endpoint.connect().await.unwrap());
    let mut stream = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(stream.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    proxy.shutdown.drain.cancel();
    let told = timeout(Duration::from_secs(10), stream.next()).await.expect("told at once");
    assert_eq!(told.unwrap().unwrap().status(), ServingStatus::NotServing);
    let end = stream.next().await.unwrap().unwrap_err();
    assert_eq!(end.code(), tonic::Code::Unavailable);
    // The watcher keeps its connection, and does not hold the end up.
    proxy.stop().await;
}

#[tokio::test]
async fn no_accepted_call_fails_when_the_process_stops_under_load() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo).await;
    let done = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for number in 0..8 {
        let (address, done) = (proxy.address("otlp"), Arc::clone(&done));
        callers.spawn(async move {
            let mut caller = Caller::connect(address).await;
            let path = if number % 2 == 0 { "/test.Echo/Unary" } else { "/test.Echo/Slow" };
            loop {
                match caller.unary(path, &[0, 0, 0, 0, 1, 7]).await {
                    Ok(reply) => assert_eq!(reply.code(), 0, "{:?}", reply.status()),
                    // Told to go away before the call was sent, or not taken up by GOAWAY.
                    Err(error) => {
                        assert!(error.is_go_away(), "{error}");
                        assert_eq!(error.reason(), Some(h2::Reason::NO_ERROR));
                        return;
                    }
                }
                done.fetch_add(1, SeqCst);
            }
        });
    }
    eventually("calls go on", async || done.load(SeqCst) >= 100).await;
    proxy.stop().await;
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
}

#[tokio::test]
async fn a_call_in_flight_may_end_within_the_timeout() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = caller.open("/test.Echo/Stream").await.unwrap();
    eventually("the call has arrived", async || echo.seen().open.load(SeqCst) == 1).await;
    let address = proxy.address("otlp");
    let shutdown = proxy.shutdown.clone();
    let mut ending = JoinSet::new();
    ending.spawn(proxy.ending());
    shutdown.stop.cancelled().await;
    eventually("nothing is accepted any more", async || {
        tokio::net::TcpStream::connect(address).await.is_err()
    })
    .await;
    call.request.send_data(vec![0, 0, 0, 0, 1, 7].into(), true).unwrap();
    let reply = read(call.response.await.unwrap()).await.unwrap();
    assert_eq!((reply.body.len(), reply.code()), (6, 0));
    assert_eq!(ending.join_next().await.unwrap().unwrap(), Ending::Clean);
}

#[tokio::test]
async fn a_call_that_does_not_end_is_cut_and_counted() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let _call = caller.open("/test.Echo/Hang").await.unwrap();
    eventually("the call has arrived", async || echo.seen().open.load(SeqCst) == 1).await;
    assert_eq!(proxy.ending().await, Ending::Cut(1));
}

#[tokio::test]
async fn a_second_signal_cuts_at_once() {
    let echo = Echo::start().await;
    let config = yaml(&[echo.address()], "{ tcp: {} }", "")
        .replace("delay: 0s, timeout: 2s", "delay: 60s, timeout: 60s");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let _call = caller.open("/test.Echo/Hang").await.unwrap();
    eventually("the call has arrived", async || echo.seen().open.load(SeqCst) == 1).await;
    let shutdown = proxy.shutdown.clone();
    let mut ending = JoinSet::new();
    ending.spawn(proxy.ending());
    shutdown.drain.cancelled().await;
    shutdown.stop.cancel();
    shutdown.abort.cancel();
    let ended = timeout(Duration::from_secs(20), ending.join_next()).await.unwrap();
    assert_eq!(ended.unwrap().unwrap(), Ending::Cut(1));
}
