//! Calls that wait for an endpoint: they fill no memory, and many cost no more each than few.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    HANG, RESOURCE_EXHAUSTED, UNARY, begin, bids_come_back, call, code, ended, one_worker,
};
use crate::fixture::{
    caller::Caller,
    echo::Echo,
    eventually,
    process::Process,
    wire::{ACK, END_STREAM, Frame, HEADERS, Message, PING, Wire, grpc_frame},
};

/// Configures two listeners of one worker; the endpoint of `full` takes one call at a time.
fn full_and_free(full: &Echo, free: &Echo) -> String {
    let probe = "probe: { interval: 300ms, timeout: 290ms, checks: [{ tcp: {} }] }";
    let admission = "admission: { max_in_flight_per_endpoint: 1, queue_timeout: 60s }";
    format!(
        r#"
listeners:
  - {{ name: full, address: "127.0.0.1:0", upstream: full }}
  - {{ name: free, address: "127.0.0.1:0", upstream: free }}
upstreams:
  full: {{ endpoints: ["{}"], {admission}, {probe} }}
  free: {{ endpoints: ["{}"], {probe} }}
admin: {{ address: "127.0.0.1:0" }}
drain: {{ delay: 0s, timeout: 2s }}
limits: {{ max_worker_buffer: 16MiB }}
workers: 1
"#,
        full.address(),
        free.address()
    )
}

#[tokio::test]
async fn bodies_that_wait_for_room_are_bounded_in_a_worker() {
    let (full, free) = (Echo::start().await, Echo::start().await);
    let proxy = Process::start(&full_and_free(&full, &free)).await;
    let mut holder = Caller::connect(proxy.address("full")).await;
    let held = begin(&mut holder, HANG).await;
    eventually("it is there", async || full.seen().open.load(SeqCst) == 1).await;
    let before = proxy.resident();

    let mut clients = JoinSet::new();
    for _ in 0..12 {
        let address = proxy.address("full");
        clients.spawn(async move {
            let mut wire = Wire::connect(address).await;
            let body = grpc_frame(&[7; 250_000]);
            let upload = async {
                for _ in 0..28 {
                    let stream = wire.open();
                    wire.play(stream, &Message::new(&call(UNARY)).body(body.clone()), 16_384).await;
                }
            };
            // One that is given no more credit for a while stands still.
            _ = timeout(Duration::from_secs(3), upload).await;
            wire
        });
    }
    let (mut other, mut most) = (Caller::connect(proxy.address("free")).await, 0);
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        most = most.max(proxy.resident());
        let small = timeout(Duration::from_secs(8), other.unary(UNARY, &[0; 5])).await;
        assert_eq!(small.expect("it is not held up").unwrap().code(), 0);
        sleep(Duration::from_millis(50)).await;
    }
    assert!(most < before + (32 << 20), "{most} bytes are resident, {before} before");
    let mut turned_away = 0;
    for mut wire in clients.join_all().await {
        let end = Instant::now() + Duration::from_millis(300);
        while timeout_at(end, wire.next()).await.is_ok_and(|frame| frame.is_some()) {}
        for over in wire.arriving.values().filter(|it| !it.head.is_empty()) {
            assert!(code(over) == Some(RESOURCE_EXHAUSTED) && bids_come_back(over), "{over:?}");
            turned_away += 1;
        }
    }
    assert!(turned_away > 0, "those that hold most are turned away");
    let counted = proxy.metric(&ended("worker_buffer").replace("otlp", "full")).await;
    assert!(counted >= f64::from(turned_away), "{counted} of {turned_away}");
    drop((held, other));
}

#[tokio::test]
async fn heads_that_wait_for_a_stream_are_bounded_in_a_connection() {
    let echo = Echo::with_limit(1).await;
    let limits = "limits: { max_connection_buffer: 1MiB, max_header_list_size: 64KiB, \
                  max_upstream_connections: 1 }";
    let proxy = super::proxy(&[echo.address()], limits).await;
    let mut holder = Caller::connect(proxy.address("otlp")).await;
    let held = begin(&mut holder, HANG).await;
    eventually("it is there", async || echo.seen().open.load(SeqCst) == 1).await;

    let mut wire = Wire::connect(proxy.address("otlp")).await;
    let values: Vec<_> = (0..7).map(|number| format!("{number}").repeat(4000)).collect();
    let large = values.iter().map(|value| ("x-large", &**value));
    let head: Vec<_> = call(UNARY).into_iter().chain(large).collect();
    for _ in 0..100 {
        let stream = wire.open();
        wire.head(stream, &head, true).await;
    }
    let many = |wire: &Wire| wire.arriving.values().filter(|it| !it.head.is_empty()).count();
    let begun = Instant::now();
    while many(&wire) < 60 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} were turned away", many(&wire));
        _ = timeout(Duration::from_millis(100), wire.next()).await;
    }
    for over in wire.arriving.values().filter(|it| !it.head.is_empty()) {
        assert!(code(over) == Some(RESOURCE_EXHAUSTED) && bids_come_back(over), "{over:?}");
    }
    assert!(proxy.metric(&ended("connection_buffer")).await >= 60.0);
    drop((held, holder, wire));
}

/// Has so many calls wait, then lets them through. Returns the proxy's time on the CPU meanwhile,
/// and the median time to the answer of a PING.
async fn cost(proxy: &Process, echo: &Echo, waiting: usize) -> (Duration, Duration) {
    let mut holder = Caller::connect(proxy.address("otlp")).await;
    echo.seen().held.store(false, SeqCst);
    let mut held = Vec::new();
    for _ in 0..STREAMS {
        held.push(begin(&mut holder, "/test.Echo/Hold").await);
    }
    eventually("they are there", async || echo.seen().open.load(SeqCst) == STREAMS).await;
    let mut wires = Vec::new();
    for first in (0..waiting).step_by(1000) {
        let mut wire = Wire::connect(proxy.address("otlp")).await;
        let count = 1000.min(waiting - first);
        for _ in 0..count {
            let stream = wire.open();
            wire.head(stream, &call(UNARY), true).await;
        }
        wires.push((wire, count));
    }
    let open = r#"upbeat_streams{listener="otlp",upstream="otlp"}"#;
    eventually("they wait", async || proxy.metric(open).await == (waiting + STREAMS) as f64).await;
    let mut asking = Wire::connect(proxy.address("otlp")).await;

    let before = proxy.cpu();
    echo.seen().held.store(true, SeqCst);
    let mut readers = JoinSet::new();
    for (mut wire, count) in wires {
        readers.spawn(async move {
            wire.patience = Duration::from_secs(60);
            let mut done = 0;
            while done < count {
                let frame = wire.next().await.expect("its connection stays");
                done += usize::from(frame.kind <= HEADERS && frame.has(END_STREAM));
            }
            wire.arriving.values().filter(|it| code(it) == Some(0)).count()
        });
    }
    let mut answers = Vec::new();
    let mut good = 0;
    while !readers.is_empty() {
        let begun = Instant::now();
        asking.send(Frame::new(PING, 0, 0, *b"are you?")).await;
        while !asking.next().await.is_some_and(|it| it.kind == PING && it.has(ACK)) {}
        answers.push(begun.elapsed());
        if let Ok(Some(reader)) = timeout(Duration::from_millis(150), readers.join_next()).await {
            good += reader.unwrap();
        }
    }
    assert_eq!(good, waiting, "all were served");
    for call in held {
        call.response.await.unwrap();
    }
    answers.sort();
    (proxy.cpu() - before, answers[answers.len() / 2])
}

/// Streams that the endpoint takes at a time.
const STREAMS: usize = 64;

#[tokio::test]
async fn ten_thousand_calls_that_wait_cost_no_more_each_than_a_few() {
    let echo = Echo::with_limit(STREAMS as u32).await;
    let limits = "limits: { max_upstream_connections: 1, max_concurrent_streams: 1000 }";
    let config = one_worker(&[echo.address()], limits)
        .replace("    probe:", "    connect_timeout: 60s\n    probe:");
    let proxy = Process::start(&config).await;
    let mut few = Duration::ZERO;
    for _ in 0..8 {
        few += cost(&proxy, &echo, 256).await.0;
    }
    let (many, ping) = cost(&proxy, &echo, 10_240).await;
    let per_call = |cpu: Duration, waiting| cpu / (waiting + STREAMS as u32);
    let (few, many) = (per_call(few / 8, 256), per_call(many, 10_240));
    assert!(many <= 3 * few, "{many:?} for each of 10 240, {few:?} for each of 256");
    assert!(ping <= Duration::from_millis(100), "{ping:?} for a PING");
}
