//! Flow control from end to end: a slow reader holds its own sender up, and nothing else.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::fixture::{
    caller::Caller,
    echo::{Echo, send},
    proxy::{Proxy, yaml},
    wire::{ACK, End, Frame, Message, PING, SETTINGS, Wire, grpc_frame},
};

/// What one stream may have under way: the windows of both sides, what waits in the proxy, and
/// what the two kernels hold for two sockets.
const BOUND: usize = 8 << 20;

/// Waits until a count stands still.
async fn settled(count: impl Fn() -> usize) -> usize {
    loop {
        let before = count();
        sleep(Duration::from_millis(200)).await;
        if count() == before {
            return before;
        }
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_the_backend_up() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let call = caller.open("/test.Echo/Flood").await.unwrap();
    let mut response = call.response.await.unwrap();
    let sent = settled(|| echo.seen().bytes.load(SeqCst)).await;
    assert!(sent < BOUND, "the backend sent {sent} bytes to a client that reads none");

    // Another stream of the same connections is not held up.
    let other = caller.unary("/test.Echo/Unary", &[0, 0, 0, 0, 0]);
    assert_eq!(timeout(Duration::from_secs(20), other).await.unwrap().unwrap().code(), 0);

    // And what is read is made good for.
    let mut read = 0;
    while read < 4 * BOUND {
        let chunk = response.body_mut().data().await.unwrap().unwrap();
        response.body_mut().flow_control().release_capacity(chunk.len()).unwrap();
        read += chunk.len();
    }
    drop((response, call.request));
    proxy.stop().await;
}

#[tokio::test]
async fn clients_that_read_nothing_hold_up_nobody_else() {
    let echo = Echo::start().await;
    let config = yaml(&[echo.address()], "{ tcp: {} }", "").replace("workers: 2", "workers: 1");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    let mut slow = Caller::connect(proxy.address("otlp")).await;
    let mut unread = Vec::new();
    for _ in 0..60 {
        let call = slow.open("/test.Echo/Flood").await.unwrap();
        unread.push((call.request, call.response.await.unwrap()));
    }
    settled(|| echo.seen().bytes.load(SeqCst)).await;
    assert_eq!(echo.seen().connections.load(SeqCst), 1, "all on one connection");

    let mut other = Caller::connect(proxy.address("otlp")).await;
    for _ in 0..20 {
        let call = other.unary("/test.Echo/Unary", &[0, 0, 0, 0, 0]);
        assert_eq!(timeout(Duration::from_secs(20), call).await.unwrap().unwrap().code(), 0);
    }
    drop((unread, slow));
    proxy.stop().await;
}

#[tokio::test]
async fn a_backend_that_reads_nothing_holds_the_client_up() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = caller.open("/test.Echo/Sink").await.unwrap();
    let mut sent = 0;
    let chunk = Bytes::from([&[0, 0, 0, 64, 0][..], &[7; 16 << 10]].concat());
    while timeout(Duration::from_millis(300), send(&mut call.request, chunk.clone())).await.is_ok()
    {
        sent += chunk.len();
        assert!(sent < BOUND, "the client sent {sent} bytes to a backend that credits none");
    }
    let other = caller.unary("/test.Echo/Unary", &[0, 0, 0, 0, 0]);
    assert_eq!(timeout(Duration::from_secs(20), other).await.unwrap().unwrap().code(), 0);
    drop(call);
    proxy.stop().await;
}

/// RFC 9113, 8.1: what has come is not discarded for an endpoint that wants no more of a request.
#[tokio::test]
async fn a_whole_response_reaches_a_slow_client_whatever_follows_it() {
    for lost in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = yaml(&[address], "{ tcp: {} }", "").replace("workers: 2", "workers: 1");
        let proxy = Proxy::start(&config).await;
        proxy.wait_serving().await;
        let mut client = Wire::connect(proxy.address("otlp")).await;
        let stream = client.open();
        let head = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/a.B/C"),
            (":authority", "a"),
            ("content-type", "application/grpc"),
        ];
        client.head(stream, &head, false).await;
        client.data(stream, &grpc_frame(b"a"), false).await;

        let mut backend = Wire::accept(&listener).await;
        backend.begun(1).await;
        // More than the client's window, which it opens when it reads.
        let body = grpc_frame(&[7; 150_000]);
        let response = Message::new(&[(":status", "200"), ("content-type", "application/grpc")])
            .body(body.clone())
            .trailers(&[("grpc-status", "0")]);
        backend.play(1, &response, 16_384).await;
        if !lost {
            backend.reset(1, 0).await;
        }
        backend.send(Frame::new(PING, 0, 0, *b"have you")).await;
        while !backend.next().await.is_some_and(|it| it.kind == PING && it.has(ACK)) {}
        if lost {
            drop(backend);
            backend = Wire::accept(&listener).await;
        }

        // What the client still sends is passed over, and given back.
        client.data(stream, &[0; 15_000], false).await;
        let got = client.message(stream).await;
        assert_eq!((got.ended_by, got.body.len()), (End::Trailers, body.len()), "lost: {lost}");
        assert_eq!(got.value("grpc-status"), Some(&b"0"[..]));
        drop((client, backend));
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_before_it_has_read_is_cut_alone() {
    let echo = Echo::start().await;
    let config = yaml(&[echo.address()], "{ tcp: {} }", "").replace("workers: 2", "workers: 1");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    let mut client = Wire::connect(proxy.address("otlp")).await;
    client.credits = false;
    let stream = client.open();
    let head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/test.Echo/Flood"),
        (":authority", "a"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    client.head(stream, &head, false).await;
    while client.arriving.get(&stream).is_none_or(|got| got.body.len() < 65_535) {
        client.next().await.unwrap();
    }
    // A frame that is too large, while the rest of the response waits for the window.
    client.data(stream, &[0; 20_000], false).await;
    while client.next().await.is_some() {}
    assert_eq!(proxy.check().await, 1, "its worker goes on");
    proxy.stop().await;
}

/// An endpoint that takes everything, answers nothing, and sends a PING as often as it can.
async fn talk(stream: TcpStream) {
    let (mut from, mut to) = stream.into_split();
    let settings = [0, 0, 0, SETTINGS, 0, 0, 0, 0, 0];
    let acknowledged = [0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0];
    let mut sink = vec![0; 1 << 16];
    let talks = async {
        to.write_all(&[settings, acknowledged].concat()).await?;
        loop {
            to.write_all(&[[0, 0, 8, PING, 0, 0, 0, 0, 0].as_slice(), &[7; 8]].concat()).await?;
            sleep(Duration::from_micros(100)).await;
        }
    };
    tokio::select! {
        ended = talks => drop::<std::io::Result<()>>(ended),
        () = async { while from.read(&mut sink).await.is_ok_and(|read| read > 0) {} } => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_others_have_filled_leaves_the_worker_its_turns() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = socket.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = socket.accept().await {
            connections.spawn(talk(stream));
        }
    });
    let config = yaml(&[endpoint], "{ tcp: {} }", "").replace("workers: 2", "workers: 1");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    let value = "v".repeat(12_000);
    let head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "upbeat"),
        (":path", "/test.Talk/Hang"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("x-large", &value),
    ];
    for _ in 0..5 {
        let mut clients = Vec::new();
        for _ in 0..40 {
            clients.push(Wire::connect(proxy.address("otlp")).await);
        }
        let mut heads = JoinSet::new();
        for mut client in clients {
            let message = Message::new(&head).body(grpc_frame(b"a"));
            heads.spawn(async move {
                for _ in 0..20 {
                    let stream = client.open();
                    client.play(stream, &message, 16_384).await;
                }
                client
            });
        }
        let clients = heads.join_all().await;
        // Answered by the worker that has all of these.
        timeout(Duration::from_secs(20), proxy.wait_serving()).await.unwrap();
        drop(clients);
    }
    drop(tasks);
    proxy.ending().await;
}
