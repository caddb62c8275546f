//! Calls that wait until an endpoint has room: in their order, for a while, and not too many.

use std::{net::SocketAddr, sync::atomic::Ordering::SeqCst, time::Duration};

use bytes::Bytes;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use upbeat::grpc::{Code, Status};

use crate::fixture::{
    caller::{Call, Caller, read},
    echo::Echo,
    eventually,
    proxy::{Proxy, yaml},
};

const HANG: &str = "/test.Echo/Hang";
const UNARY: &str = "/test.Echo/Unary";
const SLOW: &str = "/test.Echo/Slow";

async fn proxy(endpoints: &[SocketAddr], admission: &str, workers: usize) -> Proxy {
    let config = yaml(endpoints, "{ tcp: {} }", "")
        .replace("workers: 2", &format!("workers: {workers}"))
        .replace("    probe:", &format!("    admission: {{ {admission} }}\n    probe:"));
    let proxy = Proxy::start(&config).await;
    eventually("all are healthy", async || {
        proxy.status().await.upstreams[0].healthy == endpoints.len()
    })
    .await;
    proxy
}

async fn shed(proxy: &Proxy, reason: &str) -> f64 {
    proxy.metric(&format!(r#"upbeat_shed_total{{upstream="otlp",reason="{reason}"}}"#)).await
}

async fn hanging(caller: &mut Caller, echo: &Echo, count: usize) -> Vec<Call> {
    let mut calls = Vec::new();
    for _ in 0..count {
        calls.push(caller.open(HANG).await.unwrap());
    }
    eventually("they are there", async || echo.seen().open.load(SeqCst) == count).await;
    calls
}

async fn begin(caller: &mut Caller, path: &str) -> Call {
    let mut call = caller.open(path).await.unwrap();
    call.request.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    call
}

#[tokio::test]
async fn a_call_waits_for_room_and_takes_it_when_another_ends() {
    let echo = Echo::start().await;
    let keys = "max_in_flight_per_endpoint: 1, queue_timeout: 10s";
    let proxy = proxy(&[echo.address()], keys, 1).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let first = hanging(&mut caller, &echo, 1).await;
    let second = begin(&mut caller, UNARY).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(echo.seen().streams.load(SeqCst), 1, "it waits");
    assert_eq!(proxy.metric(r#"upbeat_queued{upstream="otlp"}"#).await, 1.0);
    drop(first);
    assert_eq!(read(second.response.await.unwrap()).await.unwrap().code(), 0);
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn room_that_another_workers_call_leaves_is_found() {
    let echo = Echo::start().await;
    let keys = "max_in_flight: 1, queue_timeout: 10s";
    let proxy = proxy(&[echo.address()], keys, 2).await;
    let mut one = Caller::connect(proxy.address("otlp")).await;
    let mut other = Caller::connect(proxy.address("otlp")).await;
    let first = hanging(&mut one, &echo, 1).await;
    let second = begin(&mut other, UNARY).await;
    drop(first);
    assert_eq!(read(second.response.await.unwrap()).await.unwrap().code(), 0);
    drop((one, other));
    proxy.stop().await;
}

#[tokio::test]
async fn a_call_that_waited_too_long_is_bidden_to_come_back() {
    let echo = Echo::start().await;
    let keys = "max_in_flight_per_endpoint: 1, queue_timeout: 300ms";
    let proxy = proxy(&[echo.address()], keys, 1).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let first = hanging(&mut caller, &echo, 1).await;
    let begun = Instant::now();
    let reply = caller.unary(UNARY, &[0; 5]).await.unwrap();
    let status = reply.status().unwrap();
    assert_eq!((status.code as u8, &*status.message), (14, "upstream otlp is full"));
    assert!(reply.head.headers().contains_key("grpc-status-details-bin"));
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(20), "{took:?}");
    assert_eq!(shed(&proxy, "timeout").await, 1.0);
    drop(first);
    assert_eq!(caller.unary(UNARY, &[0; 5]).await.unwrap().code(), 0);
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn no_more_than_the_bound_wait_and_the_others_are_turned_away_at_once() {
    let echo = Echo::start().await;
    let keys = "max_in_flight_per_endpoint: 1, max_queue: 3, queue_timeout: 10s";
    let proxy = proxy(&[echo.address()], keys, 2).await;
    let (mut one, mut other) = (
        Caller::connect(proxy.address("otlp")).await,
        Caller::connect(proxy.address("otlp")).await,
    );
    let first = hanging(&mut one, &echo, 1).await;
    let mut calls = JoinSet::new();
    for number in 0..8 {
        let caller = if number % 2 == 0 { &mut one } else { &mut other };
        let call = begin(caller, UNARY).await;
        calls.spawn(async move { read(call.response.await.unwrap()).await.unwrap().code() });
    }
    for _ in 0..5 {
        assert_eq!(calls.join_next().await.unwrap().unwrap(), 14);
    }
    assert_eq!(shed(&proxy, "full").await, 5.0);
    drop(first);
    for _ in 0..3 {
        assert_eq!(calls.join_next().await.unwrap().unwrap(), 0);
    }
    drop((one, other));
    proxy.stop().await;
}

#[tokio::test]
async fn those_that_wait_are_served_in_their_order() {
    let echo = Echo::start().await;
    let keys = "max_in_flight_per_endpoint: 1, queue_timeout: 10s";
    let proxy = proxy(&[echo.address()], keys, 1).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut calls = JoinSet::new();
    for number in 0..12 {
        let call = begin(&mut caller, SLOW).await;
        calls.spawn(async move {
            assert_eq!(read(call.response.await.unwrap()).await.unwrap().code(), 0);
            number
        });
    }
    let mut order = Vec::new();
    while let Some(number) = calls.join_next().await {
        order.push(number.unwrap());
    }
    assert!(order.is_sorted(), "{order:?}");
    drop(caller);
    proxy.stop().await;
}

/// Begins a call that waits, as the last one of so many.
async fn line_up(proxy: &Proxy, caller: &mut Caller, path: &str, place: usize) -> Call {
    let call = begin(caller, path).await;
    eventually("it waits", async || {
        proxy.metric(r#"upbeat_queued{upstream="otlp"}"#).await == place as f64
    })
    .await;
    call
}

#[tokio::test]
async fn a_busy_connection_leaves_room_to_one_of_another_worker() {
    let echo = Echo::start().await;
    let keys = "max_in_flight_per_endpoint: 4, queue_timeout: 5s";
    let proxy = proxy(&[echo.address()], keys, 2).await;
    let mut busy = Caller::connect(proxy.address("otlp")).await;
    let mut modest = Caller::connect(proxy.address("otlp")).await;
    let crowd = async {
        let mut calls = JoinSet::new();
        for _ in 0..20 {
            let call = begin(&mut busy, SLOW).await;
            calls.spawn(async move { read(call.response.await.unwrap()).await.unwrap().code() });
        }
        // As one ends the next begins, so that some always wait.
        while let Some(code) = calls.join_next().await {
            assert_eq!(code.unwrap(), 0);
            let call = begin(&mut busy, SLOW).await;
            calls.spawn(async move { read(call.response.await.unwrap()).await.unwrap().code() });
        }
    };
    let one = async {
        eventually("some wait", async || {
            proxy.metric(r#"upbeat_queued{upstream="otlp"}"#).await > 0.0
        })
        .await;
        for _ in 0..5 {
            assert_eq!(modest.unary(UNARY, &[0; 5]).await.unwrap().code(), 0);
        }
    };
    tokio::select! {
        () = crowd => unreachable!("it goes on"),
        () = one => {}
    }
    assert_eq!(shed(&proxy, "timeout").await, 0.0);
    drop((busy, modest));
    proxy.stop().await;
}

#[tokio::test]
async fn clients_that_wait_in_different_workers_are_served_in_turn() {
    let echo = Echo::start().await;
    let keys = "max_in_flight_per_endpoint: 1, queue_timeout: 30s";
    let proxy = proxy(&[echo.address()], keys, 2).await;
    let mut one = Caller::connect(proxy.address("otlp")).await;
    let mut other = Caller::connect(proxy.address("otlp")).await;
    let first = hanging(&mut one, &echo, 1).await;
    let mut calls = JoinSet::new();
    for (number, is_one) in [true, false, false, true, false, true, true, false].iter().enumerate()
    {
        let caller = if *is_one { &mut one } else { &mut other };
        let call = line_up(&proxy, caller, SLOW, number + 1).await;
        calls.spawn(async move {
            assert_eq!(read(call.response.await.unwrap()).await.unwrap().code(), 0);
            number
        });
    }
    drop(first);
    let mut order = Vec::new();
    while let Some(number) = calls.join_next().await {
        order.push(number.unwrap());
    }
    // Of each client the oldest call first.
    assert_eq!(order, [0, 1, 3, 2, 5, 4, 6, 7]);
    drop((one, other));
    proxy.stop().await;
}

#[tokio::test]
async fn a_call_that_cannot_use_what_room_there_is_holds_nobody_up() {
    let (free, full) = (Echo::start().await, Echo::start().await);
    let admission = "admission: { max_in_flight_per_endpoint: 1, queue_timeout: 30s }";
    let config = yaml(&[free.address(), full.address()], "{ tcp: {} }", "")
        .replace("    probe:", &format!("    {admission}\n    probe:"))
        .replace("upstream: otlp,", "upstream: otlp, retry: { statuses: [UNAVAILABLE] },");
    let proxy = Proxy::start(&config).await;
    eventually("all are healthy", async || proxy.status().await.upstreams[0].healthy == 2).await;
    let mut one = Caller::connect(proxy.address("otlp")).await;
    let mut other = Caller::connect(proxy.address("otlp")).await;
    let open = |echo: &Echo| echo.seen().open.load(SeqCst);
    let mut hanging = one.open(HANG).await.unwrap();
    eventually("it is there", async || open(&free) + open(&full) == 1).await;
    if open(&free) == 1 {
        hanging = {
            let second = one.open(HANG).await.unwrap();
            eventually("it is there", async || open(&full) == 1).await;
            drop(hanging);
            second
        };
        eventually("the first is gone", async || open(&free) == 0).await;
    }
    // It is given back by the one, and so waits for the other one.
    free.say(Status::new(Code::Unavailable, "not now"));
    let waits = line_up(&proxy, &mut one, UNARY, 1).await;
    free.say_what_paths_say();
    for caller in [&mut other, &mut one] {
        let reply = timeout(Duration::from_secs(15), caller.unary(UNARY, &[0; 5])).await;
        assert_eq!(reply.expect("it is not held up").unwrap().code(), 0);
    }
    assert_eq!(proxy.metric(r#"upbeat_queued{upstream="otlp"}"#).await, 1.0);
    drop(hanging);
    assert_eq!(read(waits.response.await.unwrap()).await.unwrap().code(), 0);
    drop((one, other));
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_may_give_up_while_it_waits() {
    let echo = Echo::start().await;
    let keys = "max_in_flight_per_endpoint: 1, max_queue: 1, queue_timeout: 10s";
    let proxy = proxy(&[echo.address()], keys, 1).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let first = hanging(&mut caller, &echo, 1).await;
    drop(begin(&mut caller, UNARY).await);
    let gauge = r#"upbeat_streams{listener="otlp",upstream="otlp"}"#;
    eventually("it is gone", async || proxy.metric(gauge).await == 1.0).await;
    let third = begin(&mut caller, UNARY).await;
    drop(first);
    assert_eq!(read(third.response.await.unwrap()).await.unwrap().code(), 0, "its place is free");
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn a_call_that_waits_for_a_connection_without_room_goes_elsewhere_after_a_while() {
    let (full, free) = (Echo::with_limit(1).await, Echo::start().await);
    let config = yaml(&[full.address(), free.address()], "{ tcp: {} }", "")
        .replace("workers: 2", "workers: 1\nlimits: { max_upstream_connections: 1 }")
        .replace(
            "    probe:",
            "    load_balancing: round_robin\n    connect_timeout: 300ms\n    probe:",
        );
    let proxy = Proxy::start(&config).await;
    eventually("all are healthy", async || proxy.status().await.upstreams[0].healthy == 2).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut hanging = Vec::new();
    while full.seen().open.load(SeqCst) == 0 {
        hanging.push(caller.open(HANG).await.unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let begun = Instant::now();
    for _ in 0..2 {
        assert_eq!(caller.unary(UNARY, &[0; 5]).await.unwrap().code(), 0);
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(20), "{took:?}");
    assert_eq!(full.seen().streams.load(SeqCst), 1);
    drop((hanging, caller));
    proxy.stop().await;
}
