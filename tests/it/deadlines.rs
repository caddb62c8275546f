//! Deadlines: the client's, which is 4 and nothing else is, and the timeouts of routes, which are
//! 14 and bid it come back.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use bytes::Bytes;
use http::Request;
use tokio::{net::TcpListener, task::JoinSet, time::Instant};

use crate::fixture::{
    caller::{Call, Caller, Reply, read},
    echo::Echo,
    eventually,
    proxy::{Proxy, yaml},
    wire::Wire,
};

const HANG: &str = "/test.Echo/Hang";
const UNARY: &str = "/test.Echo/Unary";

/// A proxy whose listener has `more` keys.
async fn proxy(endpoint: std::net::SocketAddr, more: &str) -> Proxy {
    let config = yaml(&[endpoint], "{ tcp: {} }", "")
        .replace("upstream: otlp,", &format!("upstream: otlp, {more}"));
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    proxy
}

async fn open(caller: &mut Caller, path: &str, timeout: &str) -> Call {
    let request = Request::post(format!("http://h{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout);
    caller.send(request.body(()).unwrap(), false).await.unwrap()
}

async fn call(caller: &mut Caller, path: &str, timeout: &str) -> Reply {
    let mut call = open(caller, path, timeout).await;
    call.request.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    read(call.response.await.unwrap()).await.unwrap()
}

async fn timed_out(proxy: &Proxy, reason: &str) -> f64 {
    let labels = format!(r#"{{listener="otlp",upstream="otlp",reason="{reason}"}}"#);
    proxy.metric(&format!("upbeat_timeouts_total{labels}")).await
}

fn words(reply: &Reply) -> (u8, String) {
    let status = reply.status().unwrap();
    (status.code as u8, status.message.into_owned())
}

#[tokio::test]
async fn a_clients_deadline_ends_its_call_by_4_and_frees_the_endpoint() {
    let echo = Echo::start().await;
    let proxy = proxy(echo.address(), "").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let begun = Instant::now();
    let reply = call(&mut caller, HANG, "300m").await;
    let took = begun.elapsed();
    assert_eq!(words(&reply), (4, "deadline exceeded".to_owned()));
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(20), "{took:?}");
    eventually("the endpoint is free", async || echo.seen().open.load(SeqCst) == 0).await;
    assert_eq!(timed_out(&proxy, "deadline").await, 1.0);
    assert_eq!(call(&mut caller, UNARY, "5S").await.code(), 0);
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn a_deadline_in_the_middle_of_a_response_is_in_its_trailers() {
    let echo = Echo::start().await;
    let proxy = proxy(echo.address(), "").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = open(&mut caller, "/test.Echo/Stream", "300m").await;
    call.request.send_data(Bytes::from_static(&[0, 0, 0, 0, 1, 7]), false).unwrap();
    let reply = read(call.response.await.unwrap()).await.unwrap();
    assert_eq!((reply.body.as_slice(), reply.trailers.len()), (&[0, 0, 0, 0, 1, 7][..], 2));
    assert_eq!(words(&reply).0, 4);
    eventually("the endpoint is free", async || echo.seen().open.load(SeqCst) == 0).await;
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn a_deadline_that_has_passed_never_reaches_an_endpoint() {
    let echo = Echo::start().await;
    let proxy = proxy(echo.address(), "").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    assert_eq!(words(&call(&mut caller, UNARY, "0n").await).0, 4);
    assert_eq!(echo.seen().streams.load(SeqCst), 0);
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn what_is_no_timeout_is_refused_and_reaches_no_endpoint() {
    let echo = Echo::start().await;
    let proxy = proxy(echo.address(), "").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    for timeout in ["5", "5s", "-5S", "123456789S", ""] {
        let reply = call(&mut caller, UNARY, timeout).await;
        let expected = (3, "grpc-timeout is not up to eight digits and a unit".to_owned());
        assert_eq!(words(&reply), expected, "{timeout:?}");
    }
    assert_eq!(echo.seen().streams.load(SeqCst), 0);
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn a_timeout_is_passed_on_as_what_is_left_of_it() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = proxy(socket.local_addr().unwrap(), "").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = open(&mut caller, UNARY, "30S").await;
    call.request.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    // It waits for a connection whose SETTINGS take their time.
    let (stream, _) = loop {
        let (stream, from) = socket.accept().await.unwrap();
        let mut first = [0];
        if matches!(stream.peek(&mut first).await, Ok(1)) {
            break (stream, from);
        }
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut wire = Wire::serve(stream).await.unwrap();
    let request = wire.message(1).await;
    let left = String::from_utf8(request.value("grpc-timeout").unwrap().to_vec()).unwrap();
    let left: u64 = left.strip_suffix('m').unwrap().parse().unwrap();
    assert!((20_000..=29_800).contains(&left), "{left}");
    drop((wire, call, caller));
    proxy.stop().await;
}

#[tokio::test]
async fn a_timeout_passes_unchanged_where_nothing_was_waited_for() {
    let echo = Echo::start().await;
    let proxy = proxy(echo.address(), "").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    // With a connection there; a turn that is held up may take a millisecond all the same.
    assert_eq!(call(&mut caller, UNARY, "10S").await.code(), 0);
    let mut same = 0;
    for _ in 0..20 {
        assert_eq!(call(&mut caller, UNARY, "7654321u").await.code(), 0);
        same += usize::from(echo.seen().timeout.lock().unwrap().as_deref() == Some("7654321u"));
    }
    assert!(same > 10, "{same} of 20");
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn a_routes_timeouts_are_14_with_their_words_and_a_delay() {
    let echo = Echo::start().await;
    for (timeouts, path, label, expected) in [
        ("response: 200ms", HANG, "response", "no response within 200ms"),
        ("call: 200ms", HANG, "call", "not over within 200ms"),
        ("idle: 200ms", HANG, "idle", "nothing passed within 200ms"),
    ] {
        let proxy = proxy(echo.address(), &format!("timeouts: {{ {timeouts} }},")).await;
        let mut caller = Caller::connect(proxy.address("otlp")).await;
        let reply = call(&mut caller, path, "10S").await;
        assert_eq!(words(&reply), (14, expected.to_owned()), "{timeouts}");
        let details = reply.head.headers().get("grpc-status-details-bin").unwrap();
        assert!(upbeat::grpc::retry_delay(details.as_bytes()).is_some());
        assert_eq!(timed_out(&proxy, label).await, 1.0);
        assert_eq!(call(&mut caller, UNARY, "10S").await.code(), 0, "{timeouts}");
        drop(caller);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn the_response_timeout_begins_with_the_requests_end_and_ends_with_the_head() {
    let echo = Echo::start().await;
    let proxy = proxy(echo.address(), "timeouts: { response: 200ms },").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut slow = open(&mut caller, UNARY, "10S").await;
    let mut streaming = open(&mut caller, "/test.Echo/Stream", "10S").await;
    for _ in 0..4 {
        slow.request.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
        streaming.request.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    for mut call in [slow, streaming] {
        call.request.send_data(Bytes::new(), true).unwrap();
        let reply = read(call.response.await.unwrap()).await.unwrap();
        assert_eq!((reply.code(), reply.body.len()), (0, 20));
    }
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn a_stream_on_which_something_moves_is_not_idle() {
    let echo = Echo::start().await;
    let proxy = proxy(echo.address(), "timeouts: { idle: 2s },").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = open(&mut caller, "/test.Echo/Stream", "20S").await;
    for _ in 0..8 {
        call.request.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let begun = Instant::now();
    let reply = read(call.response.await.unwrap()).await.unwrap();
    assert_eq!((words(&reply).0, reply.body.len()), (14, 40));
    assert!(begun.elapsed() < Duration::from_secs(10));
    drop(caller);
    proxy.stop().await;
}

/// An endpoint whose connections are never ready: it takes them, and says nothing.
async fn silent() -> (std::net::SocketAddr, JoinSet<()>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let taking = async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = socket.accept().await {
            held.push(stream);
        }
    };
    (address, JoinSet::from_iter([taking]))
}

/// What connections may take by the upstream's word, which says nothing here.
const PATIENT: &str = "upstreams:\n  otlp:\n    connect_timeout: 30s\n";

#[tokio::test]
async fn a_call_waits_for_a_connection_as_long_as_its_route_says_and_is_answered_elsewhere() {
    let ((silent, _held), echo) = (silent().await, Echo::start().await);
    let routes = "timeouts: { connect: 30s }, \
        routes: [{ match: { service: test.Echo }, upstream: otlp, timeouts: { connect: 200ms } }],";
    let config = yaml(&[silent, echo.address()], "{ tcp: {} }", "")
        .replace("upstream: otlp,", &format!("upstream: otlp, {routes}"))
        .replace("upstreams:\n  otlp:\n", PATIENT);
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    eventually("both are healthy", async || proxy.status().await.upstreams[0].healthy == 2).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let begun = Instant::now();
    for _ in 0..8 {
        assert_eq!(call(&mut caller, UNARY, "20S").await.code(), 0);
    }
    let waited = timed_out(&proxy, "connect").await;
    assert!(waited >= 1.0, "none was given the silent one");
    let took = begun.elapsed().as_secs_f64();
    assert!(took >= 0.2 * waited && took < 10.0, "{waited} calls waited, {took} s");
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn a_call_that_finds_no_connection_anywhere_in_time_ends_by_14_which_says_so() {
    let (address, _held) = silent().await;
    let config = yaml(&[address], "{ tcp: {} }", "")
        .replace("upstream: otlp,", "upstream: otlp, timeouts: { connect: 200ms },")
        .replace("upstreams:\n  otlp:\n", PATIENT);
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let begun = Instant::now();
    let reply = call(&mut caller, UNARY, "20S").await;
    assert_eq!(words(&reply), (14, format!("no connection to {address} within 200ms")));
    assert!(reply.head.headers().contains_key("grpc-status-details-bin"), "{:?}", reply.head);
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(10), "{took:?}");
    assert_eq!(timed_out(&proxy, "connect").await, 1.0);
    drop(caller);
    proxy.stop().await;
}
