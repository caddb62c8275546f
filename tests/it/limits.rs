//! The limits that no proxy goes without.

use std::{process::Stdio, sync::atomic::Ordering::SeqCst, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, timeout},
};

use crate::fixture::{
    caller::{Caller, get},
    echo::Echo,
    eventually,
    proxy::{Proxy, yaml},
    wire::{End, Frame, GOAWAY, Message, RST_STREAM, SETTINGS, Wire},
};

async fn proxy(echo: &Echo, limits: &str) -> Proxy {
    let config = yaml(&[echo.address()], "{ tcp: {} }", &format!("limits: {limits}"));
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    proxy
}

const HEAD: [(&str, &str); 6] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "upbeat"),
    (":path", "/test.Echo/Hang"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
];

/// How long the proxy keeps a connection on which `bytes` were sent.
async fn kept(proxy: &Proxy, bytes: &[u8]) -> Duration {
    let mut stream = TcpStream::connect(proxy.address("otlp")).await.unwrap();
    let started = Instant::now();
    stream.write_all(bytes).await.unwrap();
    let mut rest = Vec::new();
    // A reset ends it as well as a close.
    let end = timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "still open after 5 s");
    started.elapsed()
}

#[tokio::test]
async fn silent_and_half_spoken_connections_are_closed_in_time() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "{ handshake_timeout: 200ms }").await;
    for bytes in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM", "GET / HTT", "GET / HTTP/1.1\r\nhost: a\r\n"]
    {
        let kept = kept(&proxy, bytes.as_bytes()).await;
        let expected = Duration::from_millis(150)..Duration::from_millis(1500);
        assert!(expected.contains(&kept), "{bytes:?}: {kept:?}");
    }
    assert_eq!(proxy.check().await, 1);
    proxy.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go_and_closed_but_not_a_busy_one() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "{ idle_timeout: 200ms, handshake_timeout: 300ms }").await;
    let mut busy = Caller::connect(proxy.address("otlp")).await;
    let call = busy.open("/test.Echo/Hang").await.unwrap();
    eventually("the call has arrived", async || echo.seen().open.load(SeqCst) == 1).await;

    let mut idle = Wire::connect(proxy.address("otlp")).await;
    let started = Instant::now();
    let mut kinds = Vec::new();
    while let Some(frame) = idle.next().await {
        kinds.push(frame.kind);
    }
    let kept = started.elapsed();
    assert!(kinds.contains(&GOAWAY), "{kinds:?}");
    assert!(kept >= Duration::from_millis(150) && kept < Duration::from_secs(10), "{kept:?}");

    assert_eq!(busy.unary("/test.Echo/Unary", &[0; 5]).await.unwrap().code(), 0);
    assert_eq!(echo.seen().open.load(SeqCst), 1, "the open call outlived the idle timeout");
    drop(call);
    proxy.stop().await;
}

#[tokio::test]
async fn an_old_connection_is_told_to_go_and_its_calls_end() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "{ max_connection_age: 300ms }").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut calls = 0;
    let refused = loop {
        match caller.unary("/test.Echo/Slow", &[0; 5]).await {
            Ok(reply) => assert_eq!(reply.code(), 0),
            Err(error) => break error,
        }
        calls += 1;
    };
    assert!(refused.is_go_away() && refused.reason() == Some(h2::Reason::NO_ERROR), "{refused}");
    assert!(calls >= 3, "{calls} calls in 300 ms, one every 50 ms");
    proxy.stop().await;
}

#[tokio::test]
async fn an_old_connection_ends_whatever_its_client_makes_of_what_it_is_told() {
    let echo = Echo::start().await;
    let limits = "{ max_connection_age: 200ms, handshake_timeout: 400ms }";
    let proxy = proxy(&echo, limits).await;
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    wire.answers = false;
    let begun = Instant::now();
    let mut head = HEAD;
    head[3].1 = "/test.Echo/Slow";
    let (mut open, mut calls) = (true, 0);
    while open {
        let stream = wire.open();
        wire.play(stream, &Message::new(&head).body([0; 5]), 5).await;
        let ended = |wire: &Wire| {
            let message = wire.arriving.get(&stream);
            message.is_some_and(|message| message.ended_by != End::Open)
        };
        while open && !ended(&wire) {
            open = wire.next().await.is_some();
        }
        calls += u32::from(open);
        assert!(begun.elapsed() < Duration::from_secs(20), "{calls} calls, and no end");
    }
    assert!(calls >= 3, "{calls} calls in 200 ms, one every 50 ms");
    proxy.stop().await;
}

#[tokio::test]
async fn streams_over_the_limit_are_refused_and_the_connection_lives() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "{ max_concurrent_streams: 4 }").await;
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    let mut streams = Vec::new();
    for _ in 0..6 {
        let stream = wire.open();
        wire.head(stream, &HEAD, false).await;
        streams.push(stream);
    }
    for stream in &streams[4..] {
        assert_eq!(wire.message(*stream).await.ended_by, End::Reset(7), "REFUSED_STREAM");
    }
    eventually("the others have arrived", async || echo.seen().open.load(SeqCst) == 4).await;
    wire.reset(streams[0], 8).await;
    eventually("one was freed", async || echo.seen().open.load(SeqCst) == 3).await;
    let stream = wire.open();
    let request =
        Message::new(&[&HEAD[..3], &[(":path", "/test.Echo/Unary")], &HEAD[4..]].concat());
    wire.play(stream, &request.body([0; 5]), 16_384).await;
    assert_eq!(wire.message(stream).await.value("grpc-status"), Some(&b"0"[..]));
    drop(wire);
    proxy.stop().await;
}

#[tokio::test]
async fn a_header_list_over_the_limit_reaches_no_backend() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "{ max_header_list_size: 4KiB }").await;
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    let long = "v".repeat(5000);
    let stream = wire.open();
    wire.head(stream, &[&HEAD[..], &[("x-long", long.as_str())]].concat(), true).await;
    let refusal = wire.message(stream).await;
    assert!(
        refusal.value("grpc-status") == Some(b"8") || matches!(refusal.ended_by, End::Reset(_)),
        "{refusal:?}"
    );
    assert_eq!(echo.seen().streams.load(SeqCst), 0);
    // The limit was announced (SETTINGS_MAX_HEADER_LIST_SIZE is 6).
    let mut fresh = TcpStream::connect(proxy.address("otlp")).await.unwrap();
    fresh.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    fresh.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await.unwrap();
    let mut seen = [0; 128];
    let read = fresh.read(&mut seen).await.unwrap();
    let announced = [0, 6, 0, 0, 0x10, 0];
    assert!(seen[..read].windows(6).any(|setting| setting == announced), "{:?}", &seen[..read]);
    drop((wire, fresh));
    proxy.stop().await;
}

#[tokio::test]
async fn requests_that_are_no_grpc_calls_break_nothing() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "{}").await;
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    let connect: &[_] = &[(":method", "CONNECT"), (":authority", "upbeat")];
    let no_path: &[_] = &[(":method", "POST"), (":scheme", "http"), (":authority", "upbeat")];
    let star: &[_] = &[(":method", "OPTIONS"), (":scheme", "http"), (":path", "*")];
    for head in [connect, no_path, star] {
        let stream = wire.open();
        wire.head(stream, head, true).await;
        let refusal = wire.message(stream).await;
        let refused = matches!(refusal.ended_by, End::Reset(_))
            || refusal.value(":status").is_some_and(|status| status.starts_with(b"4"));
        assert!(refused, "{head:?}: {refusal:?}");
    }
    // A frame on a stream that was never opened is the connection's error, and only this one's.
    wire.send(Frame::new(RST_STREAM, 0, 99, [0, 0, 0, 8])).await;
    let (status, _) = get(proxy.address("otlp"), "/").await;
    assert_eq!(status.as_u16(), 200);
    assert_eq!(echo.seen().streams.load(SeqCst), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_flood_of_resets_ends_its_connection_and_leaves_nothing_behind() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "{}").await;
    for _ in 0..3 {
        let mut wire = Wire::connect(proxy.address("otlp")).await;
        let mut pairs = 0;
        loop {
            let stream = wire.open();
            wire.head(stream, &HEAD, false).await;
            if !wire.send(Frame::new(RST_STREAM, 0, stream, [0, 0, 0, 8])).await {
                break;
            }
            pairs += 1;
            assert!(pairs < 100_000, "{pairs} pairs were taken");
            if pairs % 16 == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
    eventually("nothing is left", async || {
        proxy.metric(r#"upbeat_streams{listener="otlp",upstream="otlp"}"#).await == 0.0
            && proxy.status().await.upstreams[0].endpoints[0].in_flight == 0
            && echo.seen().open.load(SeqCst) == 0
    })
    .await;
    // Each pair in one burst: none of them is worth a stream of the backend's.
    let opened = echo.seen().streams.load(SeqCst);
    assert!(opened <= 600, "{opened} streams were opened for 3 connections of 200 resets");
    proxy.stop().await;
}

/// A process of its own, since it is short of descriptors.
#[tokio::test]
async fn running_out_of_descriptors_ends_no_listener_and_burns_no_cpu() {
    let echo = Echo::start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let health = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let beside = format!("{{ name: health, address: \"{health}\" }}");
    let config = yaml(&[echo.address()], "{ tcp: {} }", "")
        .replacen("127.0.0.1:0", &free.to_string(), 1)
        .replacen("listeners: [", &format!("listeners: [{beside}, "), 1)
        .replace("interval: 300ms, timeout: 290ms", "interval: 10s, timeout: 1s");
    let path = std::env::temp_dir().join(format!("upbeat-{}.yaml", free.port()));
    std::fs::write(&path, config).unwrap();
    let mut process = Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$0\" run --config \"$1\""])
        .args([env!("CARGO_BIN_EXE_upbeat").as_ref(), path.as_os_str()])
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let answers = async |address| {
        let Ok(Ok(mut stream)) = timeout(SHORT, TcpStream::connect(address)).await else {
            return false;
        };
        let ask = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let mut reply = Vec::new();
        stream.write_all(ask).await.is_ok()
            && timeout(SHORT, stream.read_to_end(&mut reply)).await.is_ok_and(|read| read.is_ok())
            && reply.starts_with(b"HTTP/1.1 200")
    };
    let serving = async || answers(free).await;
    eventually("it serves", serving).await;

    let mut flood = Vec::new();
    for _ in 0..200 {
        // Accepted by the kernel; the process has no descriptor for most of them.
        flood.push(timeout(SHORT, TcpStream::connect(free)).await);
    }
    let ticks = |process: &Child| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id().unwrap()));
        let stat = stat.unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks(&process);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = ticks(&process) - before;
    assert!(spent <= 20, "{spent} hundredths of a core's second");
    // The idle ones of the flood make room, also those that come later.
    for _ in 0..3 {
        eventually("health is answered beside the flood", async || {
            answers(health).await && answers(free).await
        })
        .await;
    }
    drop(flood);
    eventually("it serves again", serving).await;
    process.start_kill().unwrap();
    process.wait().await.unwrap();
    std::fs::remove_file(path).unwrap();
}

const SHORT: Duration = Duration::from_millis(500);
