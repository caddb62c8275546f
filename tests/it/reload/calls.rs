//! Calls that are under way while another configuration is taken over.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use bytes::Bytes;

use super::{ANY, Live, MESSAGE, UNARY, config};
use crate::fixture::{
    caller::{Caller, read},
    echo::Echo,
    eventually,
    proxy::CHECK,
    refusing,
};

#[tokio::test]
async fn a_call_that_waits_for_room_goes_by_the_new_configuration() {
    for name in ["otlp", "renamed"] {
        waits(name).await;
    }
}

/// The same upstream with another endpoint, or another upstream.
async fn waits(name: &str) {
    let (full, free) = (Echo::start().await, Echo::start().await);
    let text = |name: &str, endpoint: &Echo| {
        let admission = "admission: { max_in_flight_per_endpoint: 1, queue_timeout: 20s }, probe:";
        config(&[("otlp", ANY, name)], &[(name, &[endpoint.address()])], "")
            .replace("probe:", admission)
    };
    let live = Live::start(&format!("waits-{name}"), &text("otlp", &full)).await;
    // Of different workers.
    let (mut caller, mut other) = (live.caller().await, live.caller().await);
    let held = caller.open("/test.Echo/Hang").await.unwrap();
    eventually("it is there", async || full.seen().open.load(SeqCst) == 1).await;
    let mut calls = Vec::new();
    for number in 0..6 {
        let caller = if number % 2 == 0 { &mut caller } else { &mut other };
        let mut call = caller.open(UNARY).await.unwrap();
        call.request.send_data(Bytes::from_static(MESSAGE), true).unwrap();
        calls.push(call);
    }
    live.reload(&text(name, &free), "applied").await;
    for call in calls {
        assert_eq!(read(call.response.await.unwrap()).await.unwrap().code(), 0);
    }
    assert_eq!(free.seen().streams.load(SeqCst), 6);
    assert_eq!(full.seen().open.load(SeqCst), 1, "what was begun goes on");
    drop((held, caller, other));
    live.stop().await;
}

#[tokio::test]
async fn a_route_and_a_policy_are_those_of_now_for_the_next_call_of_an_open_connection() {
    let (a, b) = (Echo::start().await, Echo::start().await);
    let upstreams = [("a", &[a.address()][..]), ("b", &[b.address()])];
    let plain = config(&[("otlp", ANY, "a")], &upstreams, "");
    let live = Live::start("routes", &plain).await;
    let mut caller = live.caller().await;
    assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
    let routes = "upstream: a, timeouts: { response: 200ms }, \
                  routes: [{ match: { service: test.Echo }, upstream: b }] }";
    live.reload(&plain.replace("upstream: a }", routes), "applied").await;
    assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
    assert_eq!((a.seen().streams.load(SeqCst), b.seen().streams.load(SeqCst)), (1, 1));
    let mut late = caller.open("/test.Echo/Hang").await.unwrap();
    late.request.send_data(Bytes::from_static(MESSAGE), true).unwrap();
    let status = read(late.response.await.unwrap()).await.unwrap().status().unwrap();
    assert_eq!(&*status.message, "no response within 200ms");
    drop(caller);
    live.stop().await;
}

#[tokio::test]
async fn a_watch_on_a_listener_that_is_removed_ends() {
    let echo = Echo::start().await;
    let upstreams = [("otlp", &[echo.address()][..])];
    let both = config(&[("otlp", ANY, "otlp"), ("other", ANY, "otlp")], &upstreams, "");
    let live = Live::start("watch", &both).await;
    let mut caller = Caller::connect(live.proxy.address("other")).await;
    let mut watch = caller.open(&CHECK.replace("Check", "Watch")).await.unwrap();
    watch.request.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    let response = watch.response.await.unwrap();
    live.reload(&config(&[("otlp", ANY, "otlp")], &upstreams, ""), "applied").await;
    let reply = tokio::time::timeout(Duration::from_secs(20), read(response)).await;
    let reply = reply.expect("it ends").unwrap();
    assert_eq!(reply.code(), 14, "so that its client asks again, elsewhere");
    drop(caller);
    live.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_is_ejected_is_so_under_other_rules() {
    let (echo, dead) = (Echo::start().await, refusing());
    let ends = [dead, echo.address()];
    let check = format!("{{ tcp: {{ port: {} }} }}", echo.address().port());
    let text = config(&[("otlp", ANY, "otlp")], &[("otlp", &ends)], "")
        .replace("{ tcp: {} }", &check)
        .replace("probe:", "ejection: { consecutive: 1 }, probe:");
    let live = Live::start("ejected", &text).await;
    let ejected = async || {
        let endpoints = live.proxy.status().await.upstreams.remove(0).endpoints;
        let ejected = endpoints.into_iter().filter_map(|it| Some((it.endpoint, it.ejected?)));
        ejected.map(|(endpoint, it)| (endpoint, it.until)).collect::<Vec<_>>()
    };
    let mut caller = live.caller().await;
    while ejected().await.is_empty() {
        assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
    }
    let before = ejected().await;
    assert_eq!(before[0].0, dead.to_string());
    live.reload(&text.replace("consecutive: 1", "consecutive: 2"), "applied").await;
    assert_eq!(ejected().await, before);
    drop(caller);
    live.stop().await;
}
