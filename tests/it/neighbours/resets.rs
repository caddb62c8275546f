//! Calls that clients break off: an endpoint hears of them at a steady rate, or not at all.

use std::time::Duration;

use tokio::{
    net::TcpListener,
    time::{Instant, sleep, timeout_at},
};

use super::{UNARY, call, in_flight, proxy};
use crate::fixture::{
    connect_from,
    echo::Echo,
    eventually,
    victim::Victim,
    wire::{ACK, DATA, Frame, Message, PING, RST_STREAM, Wire},
};

/// Connects a client and opens so many calls that it does not finish.
async fn unfinished(client: [u8; 4], address: std::net::SocketAddr, calls: usize) -> Wire {
    let mut wire = Wire::greet(connect_from(client, address).await).await;
    for _ in 0..calls {
        let stream = wire.open();
        wire.head(stream, &call(UNARY), false).await;
        wire.data(stream, &[0, 0, 0, 0, 100], false).await;
    }
    wire
}

#[tokio::test]
async fn clients_that_come_and_leave_with_open_calls_cost_the_others_none() {
    let echo = Echo::start().await;
    let proxy = proxy(&[echo.address()], "").await;
    let address = proxy.address("otlp");
    let victim = Victim::start(address).await;
    for _ in 0..12 {
        // About 380 calls a second.
        drop(unfinished([127, 0, 0, 2], address, 128).await);
        sleep(Duration::from_millis(330)).await;
    }
    victim.ends_unhurt().await;
    _ = proxy.ending().await;
}

#[tokio::test]
async fn resets_reach_an_endpoint_no_faster_than_they_may() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = "limits: { upstream_resets: { burst: 4, rate: 20 } }";
    let proxy = proxy(&[listener.local_addr().unwrap()], limits).await;
    let client = unfinished([127, 0, 0, 1], proxy.address("otlp"), 50).await;
    let mut endpoint = Wire::accept(&listener).await;
    while endpoint.arriving.len() < 50 || endpoint.arriving.values().any(|it| it.body.len() < 5) {
        endpoint.next().await.unwrap();
    }
    let begun = Instant::now();
    drop(client);
    for count in 1..=50_u32 {
        while endpoint.next().await.unwrap().kind != RST_STREAM {}
        // Two more for what is rounded.
        let earned = Duration::from_secs(1) * count.saturating_sub(4 + 2) / 20;
        let took = begun.elapsed();
        assert!(took >= earned, "{count} resets after {took:?}");
    }
    eventually("nothing is left", async || in_flight(&proxy).await == 0.0).await;
    drop(endpoint);
    proxy.stop().await;
}

#[tokio::test]
async fn an_endpoint_with_its_answer_at_hand_is_not_told_that_nobody_wants_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = proxy(&[listener.local_addr().unwrap()], "").await;
    let answer = Message::new(&[(":status", "200"), ("content-type", "application/grpc")])
        .body([0; 5])
        .trailers(&[("grpc-status", "0")]);
    let mut client = Wire::connect(proxy.address("otlp")).await;
    let mut endpoint = None;
    for round in 0.. {
        let stream = client.open();
        client.play(stream, &Message::new(&call(UNARY)).body([0; 5]), 16_384).await;
        let mut wire = match endpoint.take() {
            Some(wire) => wire,
            None => Wire::accept(&listener).await,
        };
        wire.arriving.clear();
        while wire.next().await.unwrap().kind != DATA {}
        let taken = *wire.arriving.keys().next().unwrap();
        let begun = Instant::now();
        client.reset(stream, 8).await;
        eventually("it is known", async || in_flight(&proxy).await == 0.0).await;
        wire.play(taken, &answer, 16_384).await;
        let in_time = begun.elapsed() < Duration::from_millis(80);
        wire.send(Frame::new(PING, 0, 0, *b"all read")).await;
        let mut resets = 0;
        loop {
            let frame = wire.next().await.unwrap();
            resets += usize::from(frame.kind == RST_STREAM);
            if frame.kind == PING && frame.has(ACK) {
                break;
            }
        }
        // Nor later.
        let end = Instant::now() + Duration::from_millis(300);
        while let Ok(Some(frame)) = timeout_at(end, wire.next()).await {
            resets += usize::from(frame.kind == RST_STREAM);
        }
        endpoint = Some(wire);
        if in_time {
            assert_eq!(resets, 0);
            break;
        }
        assert!(round < 50, "the machine is too busy to answer in time");
    }
    drop((client, endpoint));
    proxy.stop().await;
}
