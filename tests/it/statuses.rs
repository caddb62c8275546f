//! Retries of what an endpoint answered or lost, where a route says so.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use bytes::Bytes;
use tokio::{net::TcpListener, task::JoinSet, time::Instant};
use upbeat::grpc::{Code, Status};

use crate::fixture::{
    caller::{Caller, read},
    echo::Echo,
    proxy::{Proxy, yaml},
    wire::{Wire, grpc_frame},
};

const UNARY: &str = "/test.Echo/Unary";
const LATER: Option<Duration> = Some(Duration::from_secs(2));

/// Two endpoints, the first of which answers with `status` alone, behind a listener that retries
/// so.
async fn world(retry: &str, status: Status) -> (Proxy, Echo, Echo) {
    let (first, second) = (Echo::start().await, Echo::start().await);
    first.say(status);
    let proxy = proxy(&[first.address(), second.address()], retry).await;
    (proxy, first, second)
}

async fn proxy(endpoints: &[std::net::SocketAddr], retry: &str) -> Proxy {
    let config = yaml(endpoints, "{ tcp: {} }", "")
        .replace("upstream: otlp,", &format!("upstream: otlp, retry: {{ {retry} }},"))
        .replace("workers: 2", "workers: 1");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    crate::fixture::eventually("all are healthy", async || {
        proxy.status().await.upstreams[0].healthy == endpoints.len()
    })
    .await;
    proxy
}

fn unavailable() -> Status {
    Status::new(Code::Unavailable, "rolling")
}

fn full(delay: Option<Duration>) -> Status {
    Status { retry_delay: delay, ..Status::new(Code::ResourceExhausted, "full") }
}

/// How many of some calls end by each code.
async fn codes(proxy: &Proxy, calls: usize) -> Vec<(u8, usize)> {
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut codes = std::collections::BTreeMap::new();
    for number in 0..calls {
        let body = grpc_frame(&[number as u8]);
        let reply = caller.unary(UNARY, &body).await.unwrap();
        if reply.code() == 0 {
            assert_eq!(reply.body, body);
        }
        *codes.entry(reply.code()).or_default() += 1;
    }
    codes.into_iter().collect()
}

async fn retries(proxy: &Proxy, reason: &str) -> f64 {
    let labels = format!(r#"{{listener="otlp",upstream="otlp",reason="{reason}"}}"#);
    proxy.metric(&format!("upbeat_retries_total{labels}")).await
}

#[tokio::test]
async fn a_status_that_the_route_names_is_tried_elsewhere() {
    let (proxy, first, _second) = world("statuses: [UNAVAILABLE]", unavailable()).await;
    assert_eq!(codes(&proxy, 100).await, [(0, 100)]);
    let tried = first.seen().streams.load(SeqCst);
    assert!(tried > 20, "{tried}");
    assert_eq!(retries(&proxy, "status").await, tried as f64);
    proxy.stop().await;
}

#[tokio::test]
async fn without_a_word_of_the_route_a_status_is_passed_on() {
    for (retry, status, code) in [
        ("", unavailable(), 14),
        ("statuses: [RESOURCE_EXHAUSTED]", unavailable(), 14),
        ("statuses: [UNAVAILABLE]", Status::new(Code::InvalidArgument, ""), 3),
        // OTLP: without a RetryInfo it is for good.
        ("statuses: [RESOURCE_EXHAUSTED]", full(None), 8),
        // It says later than the route waits.
        ("statuses: [RESOURCE_EXHAUSTED], max_delay: 1s", full(LATER), 8),
        // It says later than the call may last.
        ("statuses: [RESOURCE_EXHAUSTED] }, timeouts: { call: 1s", full(LATER), 8),
        ("statuses: [RESOURCE_EXHAUSTED] }, timeouts: { idle: 1s", full(LATER), 8),
        ("statuses: [UNAVAILABLE], attempts: 1", unavailable(), 14),
    ] {
        let (proxy, first, second) = world(retry, status).await;
        let codes = codes(&proxy, 20).await;
        let tried = |echo: &Echo| echo.seen().streams.load(SeqCst);
        assert_eq!(tried(&first) + tried(&second), 20, "{retry}");
        assert!(codes.contains(&(code, tried(&first))), "{retry}: {codes:?}");
        assert_eq!(retries(&proxy, "status").await, 0.0);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_retry_info_is_waited_for() {
    let delay = Duration::from_millis(300);
    let retry = "statuses: [RESOURCE_EXHAUSTED]";
    let (proxy, first, _second) = world(retry, full(Some(delay))).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut waited = 0;
    for _ in 0..10 {
        let (begun, before) = (Instant::now(), first.seen().streams.load(SeqCst));
        assert_eq!(caller.unary(UNARY, &[0; 5]).await.unwrap().code(), 0);
        if first.seen().streams.load(SeqCst) > before {
            waited += 1;
            assert!(begun.elapsed() >= delay);
        }
    }
    assert!(waited > 0);
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn a_retry_info_beyond_the_clients_deadline_is_passed_on() {
    let status = full(Some(Duration::from_secs(2)));
    let (proxy, first, second) = world("statuses: [RESOURCE_EXHAUSTED]", status.clone()).await;
    second.say(status);
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let request = http::Request::post(format!("http://h{UNARY}"))
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "1S")
        .body(())
        .unwrap();
    let call = caller.send(request, true).await.unwrap();
    assert_eq!(read(call.response.await.unwrap()).await.unwrap().code(), 8);
    let seen = first.seen().streams.load(SeqCst) + second.seen().streams.load(SeqCst);
    assert_eq!(seen, 1);
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn attempts_are_bounded_and_the_last_status_is_the_clients() {
    let retry = "statuses: [UNAVAILABLE], attempts: 4";
    let (proxy, first, second) = world(retry, unavailable()).await;
    second.say(unavailable());
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let status = caller.unary(UNARY, &[0; 5]).await.unwrap().status().unwrap();
    assert_eq!((status.code, &*status.message), (Code::Unavailable, "rolling"));
    let seen = first.seen().streams.load(SeqCst) + second.seen().streams.load(SeqCst);
    assert_eq!(seen, 4);
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn retries_keep_to_their_share_of_the_calls() {
    let retry = "statuses: [UNAVAILABLE], attempts: 2, budget: \"10%\"";
    let status = Status { retry_delay: Some(Duration::from_millis(300)), ..unavailable() };
    let (proxy, first, second) = world(retry, status.clone()).await;
    second.say(status);
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let mut call = caller.open(UNARY).await.unwrap();
        call.request.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        calls.spawn(async move { read(call.response.await.unwrap()).await.unwrap().code() });
    }
    while let Some(code) = calls.join_next().await {
        assert_eq!(code.unwrap(), 14);
    }
    let seen = first.seen().streams.load(SeqCst) + second.seen().streams.load(SeqCst);
    // Three always may, and a tenth of fifty is five.
    assert!((53..=55).contains(&seen), "{seen}");
    assert_eq!(retries(&proxy, "status").await, (seen - 50) as f64);
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn a_response_that_has_begun_is_never_tried_again() {
    // An Export that was partly rejected is a message with status 0: seen by the client as it is.
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let retry = "statuses: [UNAVAILABLE], idempotent: true";
    let proxy = proxy(&[socket.local_addr().unwrap()], retry).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let endpoint = async {
        let mut wire = Wire::accept(&socket).await;
        wire.message(1).await;
        wire.head(1, &[(":status", "200"), ("content-type", "application/grpc")], false).await;
        wire.data(1, &grpc_frame(&[10, 0]), false).await;
        wire.head(1, &[("grpc-status", "14")], true).await;
        wire
    };
    let (reply, wire) = tokio::join!(caller.unary(UNARY, &[0; 5]), endpoint);
    let reply = reply.unwrap();
    assert_eq!((reply.code(), reply.body), (14, grpc_frame(&[10, 0])));
    assert_eq!(retries(&proxy, "status").await, 0.0);
    drop((wire, caller));
    proxy.stop().await;
}

/// Loses each call in one of three ways after it has seen it whole.
fn lose_all(socket: TcpListener, how: &'static str) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let mut wire = Wire::accept(&socket).await;
            wire.patience = Duration::from_secs(60);
            connections.spawn(async move {
                while let Some(frame) = wire.next().await {
                    if frame.kind > 1 || !frame.has(crate::fixture::wire::END_STREAM) {
                        continue;
                    }
                    match how {
                        "lost" => return,
                        "reset" => wire.reset(frame.stream, 2).await,
                        _ => {}
                    }
                }
            });
        }
    });
    tasks
}

#[tokio::test]
async fn what_was_lost_on_the_way_is_tried_again_where_calls_may_be_processed_twice() {
    for how in ["lost", "reset", "timeout"] {
        for idempotent in [true, false] {
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = socket.local_addr().unwrap();
            let _losing = lose_all(socket, how);
            let echo = Echo::start().await;
            let retry = format!(
                "statuses: [UNAVAILABLE], idempotent: {idempotent} }}, timeouts: {{ response: 200ms"
            );
            let proxy = proxy(&[address, echo.address()], &retry).await;
            let mut caller = Caller::connect(proxy.address("otlp")).await;
            let (mut lost, mut again) = (0, 0.0);
            // By chance the other endpoint may have the first ten.
            for number in 0..100 {
                if number >= 10 && (lost > 0 || again > 0.0) {
                    break;
                }
                let reply = caller.unary(UNARY, &[0; 5]).await;
                lost += usize::from(!reply.is_ok_and(|reply| reply.code() == 0));
                again = retries(&proxy, how).await;
            }
            assert_eq!((lost == 0, again > 0.0), (idempotent, idempotent), "{how} {lost}");
            drop(caller);
            proxy.stop().await;
        }
    }
}
