//! Endpoints that take no payload any more, of all calls or of some: these alone are held up.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{HANG, UNARY, call, healthy, one_worker, proxy};
use crate::fixture::{
    caller::{Call, Caller, read},
    echo::{Echo, send},
    eventually,
    proxy::Proxy,
    wire::{DATA, Frame, INITIAL_WINDOW_SIZE, SETTINGS, WINDOW_UPDATE, Wire, grpc_frame},
};

/// Reads all that comes on a connection, and gives none of its window back.
async fn gives_no_credit(socket: TcpStream) {
    if let Some(mut wire) = Wire::serve(socket).await {
        wire.credits = false;
        wire.patience = Duration::from_secs(60);
        while wire.next().await.is_some() {}
    }
}

/// Gives a large window, and reads nothing after the client's first bytes.
async fn reads_nothing(mut socket: TcpStream) {
    let large = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &(1_u32 << 30).to_be_bytes()].concat();
    for frame in [
        Frame::new(SETTINGS, 0, 0, large),
        Frame::new(WINDOW_UPDATE, 0, 0, (1_u32 << 30).to_be_bytes()),
        Frame::new(SETTINGS, 1, 0, []),
    ] {
        let mut bytes = (frame.payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([frame.kind, frame.flags]);
        bytes.extend(frame.stream.to_be_bytes());
        bytes.extend(frame.payload);
        // A probe of TCP leaves at once.
        _ = socket.write_all(&bytes).await;
    }
    _ = socket.read(&mut [0; 64]).await;
    sleep(Duration::from_secs(60)).await;
}

/// Uploads on one connection to a good endpoint and to one that `serve` runs, by turns. Neither the
/// uploads to the good one nor small calls to it may wait for the other.
async fn holds_up_its_own_calls_alone<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) {
    let good = Echo::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stuck = listener.local_addr().unwrap();
    let _stuck = JoinSet::from_iter([async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            connections.spawn(serve(socket));
        }
    }]);
    let config = one_worker(&[good.address(), stuck], "")
        .replace("    probe:", "    load_balancing: round_robin\n    probe:");
    let proxy = healthy(&config, 2).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let body = Bytes::from(grpc_frame(&[7; 400_000]));
    let (begun, mut uploads) = (Instant::now(), JoinSet::new());
    for _ in 0..100 {
        let mut call = caller.open(UNARY).await.unwrap();
        let body = body.clone();
        uploads.spawn(async move {
            _ = send(&mut call.request, body).await;
            _ = call.request.send_data(Bytes::new(), true);
            read(call.response.await?).await.map(|reply| reply.code())
        });
    }
    sleep(Duration::from_millis(500)).await;
    let mut small = JoinSet::new();
    for _ in 0..20 {
        let mut call = caller.open(UNARY).await.unwrap();
        call.request.send_data(Bytes::from_static(&[0, 0, 0, 0, 1, 7]), true).unwrap();
        small.spawn(timeout(Duration::from_secs(3), async {
            read(call.response.await?).await.map(|reply| reply.code())
        }));
    }
    let small = small.join_all().await.into_iter().filter(|end| matches!(end, Ok(Ok(0)))).count();
    assert!(small >= 8, "{small} of about 10 small calls to the good endpoint were answered");
    let mut done = 0;
    while done < 45 {
        let end =
            timeout(Duration::from_secs(7).saturating_sub(begun.elapsed()), uploads.join_next());
        let end = end.await.unwrap_or_else(|_| panic!("{done} of about 50 uploads are done"));
        let end = end.expect("there are more").unwrap();
        assert!(matches!(end, Ok(0)), "{end:?}");
        done += 1;
    }
    drop((uploads, caller));
    _ = proxy.ending().await;
}

#[tokio::test]
async fn an_endpoint_that_gives_no_credit_holds_up_its_own_calls_alone() {
    holds_up_its_own_calls_alone(gives_no_credit).await;
}

#[tokio::test]
async fn an_endpoint_that_reads_nothing_holds_up_its_own_calls_alone() {
    holds_up_its_own_calls_alone(reads_nothing).await;
}

#[tokio::test]
async fn calls_go_around_a_connection_whose_window_is_held_by_streams_that_nobody_reads() {
    let echo = Echo::start().await;
    let proxy = proxy(&[echo.address()], "").await;
    let mut holder = Wire::connect(proxy.address("otlp")).await;
    // More than the 4 MiB that the endpoint takes on a connection.
    for _ in 0..66 {
        let stream = holder.open();
        holder.head(stream, &call(HANG), false).await;
        holder.body(stream, &[0; 65_535], 16_384, false).await;
    }
    eventually("all are there", async || echo.seen().open.load(SeqCst) == 66).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    for _ in 0..20 {
        let small = timeout(Duration::from_secs(5), caller.unary(UNARY, &[0; 5])).await;
        assert_eq!(small.expect("it is held up").unwrap().code(), 0);
    }
    assert_eq!(echo.seen().connections.load(SeqCst), 2);
    drop((holder, caller));
    _ = proxy.ending().await;
}

/// Exhausts the window of the only connection, and has a call wait for another one; with the
/// endpoint's side of the first.
async fn waits_beside(listener: &TcpListener) -> (Proxy, Wire, Caller, Call) {
    let address = listener.local_addr().unwrap();
    let config =
        one_worker(&[address], "").replace("    probe:", "    connect_timeout: 60s\n    probe:");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut first = caller.open("/test.Echo/Sink").await.unwrap();
    first.request.send_data(vec![0; 70_000].into(), false).unwrap();
    let mut wire = loop {
        let (socket, _) = listener.accept().await.unwrap();
        // A probe of TCP leaves at once.
        if let Some(wire) = Wire::serve(socket).await {
            break wire;
        }
    };
    wire.credits = false;
    let mut taken = 0;
    while taken < 65_535 {
        let frame = wire.next().await.unwrap();
        taken += if frame.kind == DATA { frame.payload.len() } else { 0 };
    }
    (proxy, wire, caller, first)
}

async fn asked(caller: &mut Caller) -> Call {
    let mut call = caller.open(UNARY).await.unwrap();
    call.request.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    call
}

async fn second_comes(wire: &mut Wire) {
    timeout(Duration::from_secs(10), wire.begun(3)).await.expect("the second call comes");
}

#[tokio::test]
async fn a_call_has_a_connection_without_window_where_no_other_can_be_made() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (proxy, mut wire, mut caller, first) = waits_beside(&listener).await;
    drop(listener);
    let second = asked(&mut caller).await;
    second_comes(&mut wire).await;
    drop((first, second, caller, wire));
    _ = proxy.ending().await;
}

#[tokio::test]
async fn a_call_that_waits_for_another_connection_has_the_first_again_when_its_window_is_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (proxy, mut wire, mut caller, first) = waits_beside(&listener).await;
    let second = asked(&mut caller).await;
    // The next connection is never answered.
    let silent = loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        if socket.read(&mut [0; 24]).await.unwrap_or_default() == 24 {
            break socket;
        }
    };
    wire.send(Frame::new(WINDOW_UPDATE, 0, 0, 65_535_u32.to_be_bytes())).await;
    second_comes(&mut wire).await;
    drop((first, second, caller, wire, silent));
    _ = proxy.ending().await;
}
