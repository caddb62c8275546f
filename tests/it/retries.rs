//! Calls that no backend has processed: they are placed again, unseen by their client, and no
//! others are.

mod unsent;

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use tokio::{net::TcpListener, task::JoinSet, time::timeout};

use crate::fixture::{
    caller::{Call, Caller, read},
    echo::{Echo, send},
    eventually,
    proxy::{Proxy, yaml},
    wire::{END_STREAM, End, Frame, GOAWAY, Message, Wire, grpc_frame},
};

const REFUSED_STREAM: u32 = 7;
const UNARY: &str = "/test.Echo/Unary";

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// One worker, so that a test knows the connections.
async fn alone(endpoints: &[SocketAddr], more: &str) -> Proxy {
    let config = yaml(endpoints, "{ tcp: {} }", more).replace("workers: 2", "workers: 1");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    eventually("all are healthy", async || {
        proxy.status().await.upstreams[0].healthy == endpoints.len()
    })
    .await;
    proxy
}

async fn retries(proxy: &Proxy, reason: &str) -> f64 {
    let labels = format!(r#"{{listener="otlp",upstream="otlp",reason="{reason}"}}"#);
    proxy.metric(&format!("upbeat_retries_total{labels}")).await
}

fn goaway(last: u32) -> Frame {
    Frame::new(GOAWAY, 0, 0, [last.to_be_bytes(), [0; 4]].concat())
}

/// The answer that sends a request's body back.
fn echo(body: Vec<u8>) -> Message {
    Message::new(&[(":status", "200"), ("content-type", "application/grpc")])
        .body(body)
        .trailers(&[("grpc-status", "0")])
}

/// An endpoint that resets each stream by REFUSED_STREAM once something has come on it.
fn refuse_all(listener: TcpListener) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let mut wire = Wire::accept(&listener).await;
            wire.patience = Duration::from_secs(60);
            connections.spawn(async move {
                while let Some(frame) = wire.next().await {
                    if frame.kind <= 1 && wire.arriving.remove(&frame.stream).is_some() {
                        wire.reset(frame.stream, REFUSED_STREAM).await;
                    }
                }
            });
        }
    });
    tasks
}

/// An endpoint that echoes some calls of each connection, leaves the next ones, says GOAWAY with
/// the last one that it took, and ends the connection when these are answered.
fn roll(listener: TcpListener) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let mut wire = Wire::accept(&listener).await;
            wire.patience = Duration::from_secs(60);
            connections.spawn(async move {
                let (mut answered, mut last, mut told) = (0, 0, false);
                while let Some(frame) = wire.next().await {
                    if frame.kind > 1 || !frame.has(END_STREAM) {
                        continue;
                    }
                    if frame.stream <= last || answered < 20 {
                        let request = wire.message(frame.stream).await;
                        wire.play(frame.stream, &echo(request.body), 16_384).await;
                        (answered, last) = (answered + 1, last.max(frame.stream));
                    } else if !told {
                        told = wire.send(goaway(last)).await;
                    }
                }
            });
        }
    });
    tasks
}

#[tokio::test]
async fn goaway_with_a_lower_last_stream_loses_no_call_under_load() {
    let (listener, address) = listener().await;
    let _endpoint = roll(listener);
    let proxy = Proxy::in_front_of(&[address]).await;
    let mut callers = JoinSet::new();
    for number in 0..16_u8 {
        let address = proxy.address("otlp");
        callers.spawn(async move {
            let mut caller = Caller::connect(address).await;
            for round in 0..100 {
                let body = grpc_frame(&[number, round]);
                let reply = caller.unary(UNARY, &body).await.unwrap();
                assert_eq!((reply.code(), reply.body), (0, body));
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    assert!(retries(&proxy, "goaway").await > 20.0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_does_not_see_that_one_of_two_endpoints_refuses_everything() {
    let (listener, address) = listener().await;
    let _endpoint = refuse_all(listener);
    let other = Echo::start().await;
    let proxy = alone(&[address, other.address()], "").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    for round in 0..100 {
        let body = grpc_frame(&vec![round; 10 * usize::from(round)]);
        let reply = caller.unary(UNARY, &body).await.unwrap();
        assert_eq!((reply.code(), reply.body), (0, body));
    }
    assert!(retries(&proxy, "refused").await > 10.0);
    assert_eq!(proxy.status().await.upstreams[0].endpoints[0].in_flight, 0);
    proxy.stop().await;
}

#[tokio::test]
async fn what_every_placement_refuses_is_refused() {
    let (listener, address) = listener().await;
    let _endpoint = refuse_all(listener);
    let proxy = alone(&[address], "").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let error = caller.unary(UNARY, &[0; 5]).await.unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::REFUSED_STREAM));
    assert_eq!(retries(&proxy, "refused").await, 2.0);
    proxy.stop().await;
}

#[tokio::test]
async fn what_every_connection_gives_back_is_unavailable() {
    let (listener, address) = listener().await;
    let proxy = alone(&[address], "").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let endpoint = async {
        for _ in 0..3 {
            let mut wire = Wire::accept(&listener).await;
            wire.begun(1).await;
            wire.send(goaway(0)).await;
            while wire.next().await.is_some() {}
        }
    };
    let (reply, ()) = tokio::join!(caller.unary(UNARY, &[0; 5]), endpoint);
    let status = reply.unwrap().status().unwrap();
    assert_eq!(
        (status.code as u8, &*status.message),
        (14, "upstream connection lost: GOAWAY NO_ERROR did not take the call up")
    );
    drop(caller);
    proxy.stop().await;
}

/// A call of which some frames have reached the endpoint, which is given back, goes on, and is
/// seen whole on the next stream.
#[tokio::test]
async fn a_request_of_many_frames_is_sent_again_byte_for_byte() {
    for refused in [true, false] {
        let (listener, address) = listener().await;
        let proxy = alone(&[address], "").await;
        let mut caller = Caller::connect(proxy.address("otlp")).await;
        let parts: Vec<Vec<u8>> =
            (0..8).map(|part| grpc_frame(&vec![part; 1000 * usize::from(part)])).collect();
        let mut call = caller.open(UNARY).await.unwrap();
        for part in &parts[..6] {
            send(&mut call.request, part.clone().into()).await.unwrap();
        }
        let mut wire = Wire::accept(&listener).await;
        let before = parts[..6].concat();
        while wire.arriving.get(&1).is_none_or(|got| got.body.len() < before.len()) {
            wire.next().await.unwrap();
        }
        let stream = if refused {
            wire.reset(1, REFUSED_STREAM).await;
            // Late frames on the old stream are nobody's.
            wire.head(1, &[(":status", "200")], false).await;
            wire.data(1, b"late", true).await;
            3
        } else {
            wire.send(goaway(0)).await;
            wire.head(1, &[(":status", "200")], true).await;
            wire = Wire::accept(&listener).await;
            1
        };
        while wire.arriving.get(&stream).is_none_or(|got| got.body.len() < before.len()) {
            wire.next().await.unwrap();
        }
        for part in &parts[6..] {
            send(&mut call.request, part.clone().into()).await.unwrap();
        }
        call.request.send_data(Bytes::new(), true).unwrap();
        let request = wire.message(stream).await;
        assert_eq!((&request.body, request.ended_by), (&parts.concat(), End::Data));
        assert_eq!(request.value(":path"), Some(UNARY.as_bytes()));
        let answer = echo(request.body);
        let (reply, ()) = tokio::join!(
            async { read(call.response.await.unwrap()).await.unwrap() },
            wire.play(stream, &answer, 16_384)
        );
        assert_eq!((reply.code(), reply.body), (0, parts.concat()));
        assert_eq!(retries(&proxy, if refused { "refused" } else { "goaway" }).await, 1.0);
        drop((wire, caller));
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_client_keeps_its_windows_however_often_its_calls_are_sent_again() {
    let (listener, address) = listener().await;
    let _endpoint = refuse_all(listener);
    let other = Echo::start().await;
    let proxy = alone(&[address, other.address()], "").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    // Many times what the client's connection may have under way.
    let body = grpc_frame(&[7; 40_000]);
    for _ in 0..400 {
        let mut call = caller.open(UNARY).await.unwrap();
        send(&mut call.request, body.clone().into()).await.unwrap();
        call.request.send_data(Bytes::new(), true).unwrap();
        let reply = timeout(Duration::from_secs(20), call.response).await.expect("it moves");
        let reply = read(reply.unwrap()).await.unwrap();
        assert_eq!((reply.code(), reply.body.len()), (0, body.len()));
    }
    proxy.stop().await;
}

/// Opens a call and sends `body`, up to where the endpoint has seen it.
async fn arrived(caller: &mut Caller, listener: &TcpListener, body: &[u8]) -> (Call, Wire) {
    let mut call = caller.open(UNARY).await.unwrap();
    call.request.send_data(Bytes::copy_from_slice(body), true).unwrap();
    let mut wire = Wire::accept(listener).await;
    while wire.arriving.get(&1).is_none_or(|got| got.ended_by == End::Open) {
        wire.next().await.unwrap();
    }
    (call, wire)
}

#[tokio::test]
async fn what_is_over_the_bound_is_not_kept() {
    let (listener, address) = listener().await;
    let proxy = alone(&[address], "limits: { max_replay_size: 1KiB }").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let (call, mut wire) = arrived(&mut caller, &listener, &grpc_frame(&[7; 1020])).await;
    wire.send(goaway(0)).await;
    let reply = read(call.response.await.unwrap()).await.unwrap();
    assert_eq!(reply.code(), 14);
    assert_eq!(retries(&proxy, "goaway").await, 0.0);
    drop((wire, caller));
    proxy.stop().await;
}

#[tokio::test]
async fn what_a_backend_may_have_processed_is_not_sent_again() {
    let (listener, address) = listener().await;
    let proxy = alone(&[address], "").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;

    let (call, wire) = arrived(&mut caller, &listener, &[0; 5]).await;
    drop(wire);
    let reply = read(call.response.await.unwrap()).await.unwrap();
    assert_eq!(reply.code(), 14, "its connection broke");

    let head = [(":status", "200"), ("content-type", "application/grpc")];
    let (call, mut wire) = arrived(&mut caller, &listener, &[0; 5]).await;
    wire.head(1, &head, false).await;
    let response = call.response.await.unwrap();
    wire.send(goaway(0)).await;
    assert_eq!(read(response).await.unwrap().code(), 14, "it was answered");

    let (call, mut wire) = arrived(&mut caller, &listener, &[0; 5]).await;
    wire.head(1, &head, false).await;
    let response = call.response.await.unwrap();
    wire.reset(1, REFUSED_STREAM).await;
    let error = read(response).await.unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::REFUSED_STREAM), "it was answered");

    for reason in ["refused", "goaway", "unsent"] {
        assert_eq!(retries(&proxy, reason).await, 0.0);
    }
    drop((wire, caller));
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_may_give_up_a_call_that_waits_to_be_sent_again() {
    let (listener, address) = listener().await;
    let proxy = alone(&[address], "").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let (call, mut wire) = arrived(&mut caller, &listener, &[0; 5]).await;
    wire.send(goaway(0)).await;
    eventually("it is placed again", async || retries(&proxy, "goaway").await == 1.0).await;
    drop(call);
    eventually("it is over", async || {
        proxy.metric(r#"upbeat_streams{listener="otlp",upstream="otlp"}"#).await == 0.0
            && proxy.status().await.upstreams[0].endpoints[0].in_flight == 0
    })
    .await;
    let (call, mut wire) = arrived(&mut caller, &listener, &[0, 0, 0, 0, 1, 9]).await;
    let request = wire.message(1).await;
    assert_eq!(request.body, [0, 0, 0, 0, 1, 9], "of the next call");
    wire.play(1, &echo(request.body), 16_384).await;
    assert_eq!(read(call.response.await.unwrap()).await.unwrap().code(), 0);
    drop((wire, caller));
    proxy.stop().await;
}
