//! Calls for an endpoint that reads nothing: they wait, or their heads do.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use h2::{SendStream, client::ResponseFuture};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{UNARY, alone, echo, listener, retries};
use crate::fixture::{
    caller::{Call, Caller, read},
    echo::send,
    eventually, kernel,
    proxy::Proxy,
    wire::{Frame, WINDOW_UPDATE, Wire, grpc_frame},
};

/// The endpoint's side of the proxy's connection, and where that comes from.
async fn accept(listener: &TcpListener) -> (Wire, SocketAddr) {
    loop {
        let (socket, from) = listener.accept().await.unwrap();
        if let Some(wire) = Wire::serve(socket).await {
            return (wire, from);
        }
    }
}

async fn upload(mut request: SendStream<Bytes>) {
    let chunk = Bytes::from(grpc_frame(&[7; 64 << 10]));
    while send(&mut request, chunk.clone()).await.is_ok() {}
}

/// Takes more of an upload, a step at a time, until so much less than a step reaches the kernel that
/// the rest waits in the proxy.
async fn fill(wire: &mut Wire, (address, from): (SocketAddr, SocketAddr), step: u32) {
    let waiting = || kernel::waiting(address, from) + kernel::waiting(from, address);
    let most = step as usize / 2;
    loop {
        let before = waiting();
        for stream in [0, 1] {
            wire.send(Frame::new(WINDOW_UPDATE, 0, stream, step.to_be_bytes())).await;
        }
        let mut steady = 0;
        while steady < 5 && waiting().saturating_sub(before) < most {
            steady += 1;
            sleep(Duration::from_millis(100)).await;
        }
        if steady == 5 {
            return;
        }
    }
}

/// An upload that fills the way to its endpoint.
struct Upload {
    caller: Caller,
    response: ResponseFuture,
    tasks: JoinSet<()>,
}

impl Upload {
    /// Begins one, and fills the way by steps of so many bytes; with the endpoint's connection.
    async fn begin(proxy: &Proxy, listener: &TcpListener, step: u32) -> (Wire, Self) {
        let mut caller = Caller::connect(proxy.address("otlp")).await;
        let call = caller.open("/test.Echo/Sink").await.unwrap();
        let (mut wire, from) = accept(listener).await;
        wire.begun(1).await;
        let mut tasks = JoinSet::new();
        tasks.spawn(upload(call.request));
        fill(&mut wire, (listener.local_addr().unwrap(), from), step).await;
        (wire, Self { caller, response: call.response, tasks })
    }
}

async fn asked(proxy: &Proxy, caller: &mut Caller) -> Call {
    let mut call = caller.open(UNARY).await.unwrap();
    call.request.send_data(Bytes::from_static(&[0, 0, 0, 0, 1, 7]), true).unwrap();
    eventually("both are in flight", async || {
        proxy.status().await.upstreams[0].endpoints[0].in_flight == 2
    })
    .await;
    call
}

/// Serves a call on the next connection.
async fn serve(listener: &TcpListener, call: Call) {
    let (mut wire, _) = accept(listener).await;
    let request = wire.message(1).await;
    assert_eq!(request.value(":path"), Some(UNARY.as_bytes()));
    wire.play(1, &echo(request.body), 16_384).await;
    let reply = read(call.response.await.unwrap()).await.unwrap();
    assert_eq!((reply.code(), reply.body), (0, vec![0, 0, 0, 0, 1, 7]));
}

#[tokio::test]
async fn calls_that_wait_for_a_socket_go_on_as_it_takes_more() {
    let (listener, address) = listener().await;
    let proxy = alone(&[address], "limits: { max_upstream_connections: 1 }").await;
    let (mut wire, mut first) = Upload::begin(&proxy, &listener, 1 << 20).await;

    let large = "v".repeat(12_000);
    let head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "upbeat"),
        (":path", UNARY),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("x-large", &large),
    ];
    let mut client = Wire::connect(proxy.address("otlp")).await;
    for _ in 0..100 {
        let stream = client.open();
        client.head(stream, &head, true).await;
    }
    let open = r#"upbeat_streams{listener="otlp",upstream="otlp"}"#;
    eventually("they wait", async || proxy.metric(open).await == 101.0).await;
    first.tasks.shutdown().await;
    drop(first);
    // None is answered: no stream ends that could wake another.
    let heads = async {
        while wire.arriving.values().filter(|it| it.value("x-large").is_some()).count() < 100 {
            wire.next().await.unwrap();
        }
    };
    timeout(Duration::from_secs(20), heads).await.expect("all of them come");
    drop((wire, client));
    proxy.stop().await;
}

/// Has a call come while an upload fills the way to its endpoint by steps of so many bytes; then the
/// endpoint goes. Returns how many calls were placed again for an unsent head.
async fn placed_again(step: u32) -> f64 {
    let (listener, address) = listener().await;
    let proxy = alone(&[address], "limits: { max_upstream_connections: 1 }").await;
    let (wire, first) = Upload::begin(&proxy, &listener, step).await;
    let mut other = Caller::connect(proxy.address("otlp")).await;
    let second = asked(&proxy, &mut other).await;
    drop(wire);

    serve(&listener, second).await;
    let lost = read(first.response.await.unwrap()).await.unwrap();
    assert_eq!(lost.code(), 14, "it was written");
    let unsent = retries(&proxy, "unsent").await;
    drop((first.caller, other, first.tasks));
    proxy.stop().await;
    unsent
}

#[tokio::test]
async fn a_call_whose_head_was_not_written_goes_to_the_next_connection() {
    assert_eq!(placed_again(64 << 10).await, 1.0);
}

#[tokio::test]
async fn a_call_waits_while_much_waits_for_its_endpoints_socket() {
    assert_eq!(placed_again(1 << 20).await, 0.0);
}
