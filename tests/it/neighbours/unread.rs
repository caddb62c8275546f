//! Clients that do not take what they are sent: each has its own bounds in bytes and in time.

use std::time::Duration;

use tokio::{
    net::TcpListener,
    time::{Instant, sleep, timeout},
};

use super::{
    CANCEL, ENHANCE_YOUR_CALM, RESOURCE_EXHAUSTED, UNARY, asks_for, bids_come_back, call, code,
    ended, in_flight, is_whole, one_worker, proxy, takes,
};
use crate::fixture::{
    caller::Caller,
    echo::Echo,
    eventually,
    process::Process,
    proxy::{Proxy, yaml},
    victim::Victim,
    wire::{End, Frame, Message, WINDOW_UPDATE, Wire, grpc_frame},
};

/// Bytes that the process may have in memory while 230 MB wait at the endpoint for nobody.
const RESIDENT: usize = 64_000_000;

#[tokio::test]
async fn clients_that_take_nothing_hold_nobody_up_and_fill_no_memory() {
    let echo = Echo::start().await;
    let proxy = Process::start(&one_worker(&[echo.address()], "")).await;
    let victim = Victim::start(proxy.address("otlp")).await;
    let mut unread = Vec::new();
    for _ in 0..6 {
        let mut wire = takes(proxy.address("otlp"), 0).await;
        for _ in 0..128 {
            let stream = wire.open();
            wire.head(stream, &asks_for("300000"), true).await;
        }
        unread.push(wire);
    }
    let mut most = 0;
    for _ in 0..40 {
        sleep(Duration::from_millis(100)).await;
        most = most.max(proxy.resident());
    }
    victim.ends_unhurt().await;
    assert!(most <= RESIDENT, "{most} bytes are resident");
    drop(unread);
}

fn more(stream: u32, bytes: u32) -> Frame {
    Frame::new(WINDOW_UPDATE, 0, stream, bytes.to_be_bytes())
}

/// Reads for a while.
async fn listen(wire: &mut Wire, time: Duration) {
    let end = Instant::now() + time;
    while tokio::time::timeout_at(end, wire.next()).await.is_ok_and(|frame| frame.is_some()) {}
}

#[tokio::test]
async fn a_stream_of_which_too_little_is_taken_is_reset_on_both_sides() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = proxy(&[listener.local_addr().unwrap()], "limits: { send_timeout: 2s }").await;
    let body = grpc_frame(&[7; 200_000]);
    let mut client = takes(proxy.address("otlp"), 65_535).await;
    client.send(more(0, 1 << 20)).await;
    let [stuck, slow] = [client.open(), client.open()];
    for stream in [stuck, slow] {
        client.head(stream, &call(UNARY), true).await;
    }
    let endpoint = async {
        let mut wire = Wire::accept(&listener).await;
        let head = [(":status", "200"), ("content-type", "application/grpc")];
        let open = Message::new(&head).body(body.clone());
        for (stream, reply) in
            [(1, open.clone().ended_by(End::Open)), (3, open.trailers(&[("grpc-status", "0")]))]
        {
            wire.begun(stream).await;
            wire.play(stream, &reply, 16_384).await;
        }
        while !matches!(wire.arriving[&1].ended_by, End::Reset(_)) {
            wire.next().await.expect("its connection stays");
        }
        (wire.arriving[&1].ended_by, wire)
    };
    let reader = async {
        let begun = Instant::now();
        while client.arriving.get(&slow).is_none_or(|it| it.ended_by == End::Open) {
            client.send(more(slow, 24 << 10)).await;
            listen(&mut client, Duration::from_millis(500)).await;
            assert!(begun.elapsed() < Duration::from_secs(20), "it comes to an end");
        }
        (client.message(stuck).await, client.message(slow).await, begun.elapsed())
    };
    let ((told, wire), (stuck, slow, took)) = tokio::join!(endpoint, reader);
    assert_eq!((slow.ended_by, slow.body.len()), (End::Trailers, body.len()));
    assert!(matches!(stuck.ended_by, End::Reset(_)), "{:?}: a message is cut", stuck.ended_by);
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert_eq!(told, End::Reset(CANCEL));
    assert_eq!(proxy.metric(&ended("send_timeout")).await, 1.0);
    drop((client, wire));
    proxy.stop().await;
}

#[tokio::test]
async fn a_stream_of_which_nothing_is_taken_ends_in_its_time() {
    let echo = Echo::start().await;
    let proxy = proxy(&[echo.address()], "limits: { send_timeout: 1s }").await;
    let mut client = takes(proxy.address("otlp"), 0).await;
    // The one waits here as a whole, the other does not fit.
    let streams = ["20000", "300000"].map(|bytes| (client.open(), bytes));
    for (stream, bytes) in streams {
        client.head(stream, &asks_for(bytes), true).await;
    }
    for (stream, _) in streams {
        let end = client.message(stream).await;
        assert!(is_whole(&end) || matches!(end.ended_by, End::Reset(_)), "{:?}", end.ended_by);
        assert_ne!(code(&end), Some(0));
    }
    assert_eq!(proxy.metric(&ended("send_timeout")).await, 2.0);
    eventually("nothing is left", async || in_flight(&proxy).await == 0.0).await;
    drop(client);
    proxy.stop().await;
}

/// Has a client ask for so much on a stream of its own.
async fn ask(wire: &mut Wire, bytes: &str) -> u32 {
    let stream = wire.open();
    wire.head(stream, &asks_for(bytes), true).await;
    stream
}

/// Opens a stream's window, and reads it to its end.
async fn take(wire: &mut Wire, stream: u32) -> Message {
    wire.send(more(stream, 1 << 20)).await;
    wire.message(stream).await
}

#[tokio::test]
async fn a_client_connection_with_too_much_waiting_loses_its_largest_calls() {
    let echo = Echo::start().await;
    let proxy = proxy(&[echo.address()], "limits: { max_connection_buffer: 1MiB }").await;
    let mut other = takes(proxy.address("otlp"), 0).await;
    let kept = ask(&mut other, "25000").await;
    for window in [0, 1000] {
        let mut client = takes(proxy.address("otlp"), window).await;
        let largest = ask(&mut client, "30000").await;
        client.begun(largest).await;
        listen(&mut client, Duration::from_millis(300)).await;
        let mut rest = Vec::new();
        for _ in 0..80 {
            rest.push(ask(&mut client, "20000").await);
        }
        let largest = client.message(largest).await;
        // A message that is cut ends by a reset.
        if window == 0 {
            assert_eq!(code(&largest), Some(RESOURCE_EXHAUSTED), "{largest:?}");
            assert!(bids_come_back(&largest), "{largest:?}");
        } else {
            assert_eq!(largest.ended_by, End::Reset(ENHANCE_YOUR_CALM));
        }
        // Until all have come, and what is too much has ended.
        listen(&mut client, Duration::from_secs(1)).await;
        client.send(more(0, 16 << 20)).await;
        let mut whole = 0;
        for stream in rest {
            let end = take(&mut client, stream).await;
            whole += usize::from(code(&end) == Some(0) && end.body.len() == 20_005);
        }
        assert!((40..=55).contains(&whole), "{whole} of 20 kB are whole, of what is 1 MiB");
    }
    assert!(proxy.metric(&ended("connection_buffer")).await >= 40.0);
    let kept = take(&mut other, kept).await;
    assert_eq!((code(&kept), kept.body.len()), (Some(0), 25_005), "it was another's fault");
    drop(other);
    proxy.stop().await;
}

#[tokio::test]
async fn a_worker_with_too_much_waiting_ends_calls_of_those_that_hold_most() {
    let echo = Echo::start().await;
    let proxy = proxy(&[echo.address()], "limits: { max_worker_buffer: 4MiB }").await;
    let mut modest = takes(proxy.address("otlp"), 0).await;
    let mut kept = Vec::new();
    for _ in 0..4 {
        kept.push(ask(&mut modest, "30000").await);
    }
    let mut greedy = Vec::new();
    for _ in 0..2 {
        let mut wire = takes(proxy.address("otlp"), 0).await;
        for _ in 0..128 {
            ask(&mut wire, "30000").await;
        }
        greedy.push(wire);
    }
    let over = |wire: &Wire| wire.arriving.values().filter(|it| is_whole(it)).count();
    let (begun, mut count) = (Instant::now(), 0);
    while count < 100 {
        for wire in &mut greedy {
            listen(wire, Duration::from_millis(100)).await;
        }
        count = greedy.iter().map(over).sum::<usize>();
        assert!(begun.elapsed() < Duration::from_secs(20), "{count} have ended");
    }
    for end in greedy.iter().flat_map(|it| it.arriving.values()).filter(|it| is_whole(it)) {
        assert!(code(end) == Some(RESOURCE_EXHAUSTED) && bids_come_back(end), "{end:?}");
    }
    assert!(proxy.metric(&ended("worker_buffer")).await >= 100.0);
    modest.send(more(0, 1 << 20)).await;
    for stream in kept {
        let end = take(&mut modest, stream).await;
        assert_eq!((code(&end), end.body.len()), (Some(0), 30_005));
    }
    let mut next = Caller::connect(proxy.address("otlp")).await;
    assert_eq!(next.unary(UNARY, &[0; 5]).await.unwrap().code(), 0, "there is room for more");
    drop((greedy, modest, next));
    _ = proxy.ending().await;
}

/// Waits for a deadline, or for a timeout of the listener's, with answers unread: small ones, which
/// the proxy has as a whole, and large ones.
async fn ends_unread(keys: &str, deadline: &[(&str, &str)]) {
    let echo = Echo::start().await;
    let config = yaml(&[echo.address()], "{ tcp: {} }", "")
        .replace("upstream: otlp,", &format!("upstream: otlp, {keys}"));
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    let mut client = takes(proxy.address("otlp"), 0).await;
    let begun = Instant::now();
    let streams: Vec<_> = (0..8).map(|_| client.open()).collect();
    for (stream, bytes) in streams.iter().zip(["20000", "100000"].iter().cycle()) {
        client.head(*stream, &[asks_for(bytes), deadline.to_vec()].concat(), true).await;
    }
    for stream in streams {
        let end = client.message(stream).await;
        assert!(is_whole(&end) || matches!(end.ended_by, End::Reset(_)), "{:?}", end.ended_by);
        if !deadline.is_empty() && is_whole(&end) {
            assert_eq!(code(&end), Some(4));
        }
    }
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    eventually("nothing is in flight", async || {
        in_flight(&proxy).await == 0.0
            && proxy.status().await.upstreams[0].endpoints[0].in_flight == 0
    })
    .await;
    // With the client still there.
    proxy.stop().await;
    drop(client);
}

#[tokio::test]
async fn a_deadline_holds_until_the_last_byte_of_an_answer_was_taken() {
    ends_unread("", &[("grpc-timeout", "1S")]).await;
}

#[tokio::test]
async fn the_timeout_of_a_call_holds_until_the_last_byte_of_its_answer_was_taken() {
    ends_unread("timeouts: { call: 1s },", &[]).await;
}

#[tokio::test]
async fn the_idle_timeout_holds_until_the_last_byte_of_an_answer_was_taken() {
    ends_unread("timeouts: { idle: 1s },", &[]).await;
}

#[tokio::test]
async fn a_drain_waits_for_unread_answers_no_longer_than_for_their_deadline() {
    let echo = Echo::start().await;
    let config = one_worker(&[echo.address()], "").replace("timeout: 2s }", "timeout: 15s }");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    let mut client = takes(proxy.address("otlp"), 0).await;
    for _ in 0..8 {
        let stream = client.open();
        let deadline = vec![("grpc-timeout", "1500m")];
        client.head(stream, &[asks_for("20000"), deadline].concat(), true).await;
        client.begun(stream).await;
    }
    let reader = async { while client.next().await.is_some() {} };
    let (ending, _) = tokio::join!(proxy.ending(), timeout(Duration::from_secs(30), reader));
    assert_eq!(ending, upbeat::app::Ending::Clean);
}
