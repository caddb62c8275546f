//! Requests that never end: they hold nothing for long, and no more than a fair share of an
//! endpoint's streams.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use super::{
    HANG, RESOURCE_EXHAUSTED, SLOW, UNARY, begin, bids_come_back, call, code, ended, healthy,
    in_flight, one_worker, proxy,
};
use crate::fixture::{
    caller::{Caller, read},
    connect_from,
    echo::Echo,
    eventually,
    proxy::Proxy,
    victim::Victim,
    wire::{End, Wire, grpc_frame},
};

#[tokio::test]
async fn a_message_that_was_begun_and_does_not_come_ends_its_call() {
    let echo = Echo::start().await;
    let proxy = proxy(&[echo.address()], "limits: { message_timeout: 3s }").await;
    let mut client = Wire::connect(proxy.address("otlp")).await;
    let stuck: Vec<_> = (0..3).map(|_| client.open()).collect();
    let starts: [&[u8]; 3] = [&[0], &[0, 0, 0, 0, 100], &[0, 0, 0, 0, 100, 7, 7]];
    for (stream, start) in stuck.iter().zip(starts) {
        client.head(*stream, &call(HANG), false).await;
        client.data(*stream, start, false).await;
    }
    let [slow, quiet] = [client.open(), client.open()];
    client.head(slow, &call(UNARY), false).await;
    client.head(quiet, &call("/test.Echo/Stream"), false).await;
    client.data(quiet, &grpc_frame(b"first"), false).await;
    let message = grpc_frame(&[7; 7_000]);
    for part in message.chunks(1500) {
        client.data(slow, part, false).await;
        sleep(Duration::from_millis(900)).await;
    }
    client.data(slow, &[], true).await;
    client.data(quiet, &grpc_frame(b"second"), true).await;

    assert_eq!(code(&client.message(slow).await), Some(0), "enough of it came in time");
    assert_eq!(code(&client.message(quiet).await), Some(0), "it had begun no message");
    for stream in stuck {
        let end = client.message(stream).await;
        assert!(end.ended_by != End::Open && code(&end) != Some(0), "{end:?}");
    }
    assert_eq!(proxy.metric(&ended("message_timeout")).await, 3.0);
    eventually("the endpoint is free", async || echo.seen().open.load(SeqCst) == 0).await;
    eventually("nothing is left", async || in_flight(&proxy).await == 0.0).await;
    drop(client);
    proxy.stop().await;
}

/// Opens 128 requests from each of four clients, sends one byte on each, and then nothing. The
/// endpoint's four connections have 400 streams in all.
async fn are_felt_by_nobody(clients: [[u8; 4]; 4], told: impl Fn(f64)) {
    let echo = Echo::with_limit(100).await;
    let proxy = proxy(&[echo.address()], "").await;
    let address = proxy.address("otlp");
    let victim = Victim::start(address).await;
    let mut unfinished = Vec::new();
    for client in clients {
        let mut wire = Wire::greet(connect_from(client, address).await).await;
        for _ in 0..128 {
            let stream = wire.open();
            wire.head(stream, &call(UNARY), false).await;
            wire.data(stream, &[0], false).await;
        }
        unfinished.push(wire);
    }
    sleep(Duration::from_secs(4)).await;
    victim.ends_unhurt().await;
    let counted = proxy.metric(&ended("fair_share")).await;
    told(counted);
    for wire in &mut unfinished {
        let end = Instant::now() + Duration::from_millis(300);
        while timeout_at(end, wire.next()).await.is_ok_and(|frame| frame.is_some()) {}
    }
    let messages = unfinished.iter().flat_map(|wire| wire.arriving.values());
    let over: Vec<_> = messages.filter(|it| it.ended_by != End::Open).collect();
    assert!(over.len() >= counted as usize, "{} of {counted} were told", over.len());
    for end in over {
        assert!(code(end) == Some(RESOURCE_EXHAUSTED) && bids_come_back(end), "{end:?}");
    }
    drop(unfinished);
    _ = proxy.ending().await;
}

#[tokio::test]
async fn unfinished_requests_of_one_address_leave_the_others_an_endpoints_streams() {
    are_felt_by_nobody([[127, 0, 0, 2]; 4], |_| {}).await;
}

#[tokio::test]
async fn unfinished_requests_of_many_addresses_make_room_for_who_waits() {
    let clients = [2, 3, 4, 5].map(|last| [127, 0, 0, last]);
    are_felt_by_nobody(clients, |count| assert!(count >= 1.0, "none was ended")).await;
}

/// Has 60 calls of the first callers wait, then a few of the last one. Returns how many of the 60
/// were answered before the last of the few.
async fn before_the_few(proxy: &Proxy, echo: &Echo, mut callers: Vec<Caller>) -> usize {
    let mut calls = JoinSet::new();
    let holder = begin(&mut callers[0], HANG).await;
    eventually("it is there", async || echo.seen().open.load(SeqCst) == 1).await;
    let last = callers.len() - 1;
    let (mut waiting, many) = (1.0, 60 / last);
    for (number, caller) in callers.iter_mut().enumerate() {
        for _ in 0..if number < last { many } else { FEW } {
            let call = begin(caller, SLOW).await;
            calls.spawn(async move {
                (read(call.response.await.unwrap()).await.unwrap().code(), number)
            });
            waiting += 1.0;
        }
        eventually("they wait", async || in_flight(proxy).await == waiting).await;
    }
    drop(holder);
    let (mut before, mut few) = (0, 0);
    while few < FEW {
        let (code, number) = calls.join_next().await.unwrap().unwrap();
        assert_eq!(code, 0);
        if number == last { few += 1 } else { before += 1 }
    }
    before
}

const FEW: usize = 4;

/// Starts a proxy with one stream to its endpoint at a time.
async fn narrow(echo: &Echo) -> Proxy {
    let config = one_worker(&[echo.address()], "limits: { max_upstream_connections: 1 }")
        .replace("    probe:", "    connect_timeout: 60s\n    probe:");
    healthy(&config, 1).await
}

#[tokio::test]
async fn calls_that_wait_for_a_stream_are_taken_from_each_address_in_turn() {
    let echo = Echo::with_limit(1).await;
    let proxy = narrow(&echo).await;
    let address = proxy.address("otlp");
    let callers = vec![
        Caller::after(connect_from([127, 0, 0, 2], address).await).await,
        Caller::after(connect_from([127, 0, 0, 2], address).await).await,
        Caller::connect(address).await,
    ];
    let before = before_the_few(&proxy, &echo, callers).await;
    assert!(before <= 2 * FEW, "{before} of another address went first");
    _ = proxy.ending().await;
}

#[tokio::test]
async fn calls_that_wait_for_a_stream_are_taken_from_each_connection_in_turn() {
    let echo = Echo::with_limit(1).await;
    let proxy = narrow(&echo).await;
    let address = proxy.address("otlp");
    let callers = vec![Caller::connect(address).await, Caller::connect(address).await];
    let before = before_the_few(&proxy, &echo, callers).await;
    assert!(before <= 2 * FEW, "{before} of another connection went first");
    _ = proxy.ending().await;
}

#[tokio::test]
async fn calls_that_wait_for_room_are_taken_from_each_address_in_turn() {
    let echo = Echo::start().await;
    let admission = "admission: { max_in_flight_per_endpoint: 1, queue_timeout: 60s }";
    let config = one_worker(&[echo.address()], "")
        .replace("    probe:", &format!("    {admission}\n    probe:"));
    let proxy = healthy(&config, 1).await;
    let address = proxy.address("otlp");
    let callers = vec![
        Caller::after(connect_from([127, 0, 0, 2], address).await).await,
        Caller::after(connect_from([127, 0, 0, 2], address).await).await,
        Caller::connect(address).await,
    ];
    let before = before_the_few(&proxy, &echo, callers).await;
    assert!(before <= 2 * FEW, "{before} of another address went first");
    _ = proxy.ending().await;
}
