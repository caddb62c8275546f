//! One of two endpoints dies under load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::fixture::{
    caller::{Caller, read},
    echo::Echo,
    eventually,
    proxy::{Proxy, yaml},
    wire::Wire,
};

#[tokio::test]
async fn calls_in_flight_on_a_dying_endpoint_get_14_and_new_ones_go_to_the_other() {
    let (dying, living) = (Echo::start().await, Echo::start().await);
    // Probes too slow to help: what saves the new calls is the refused connection alone.
    let config = yaml(&[dying.address(), living.address()], "{ tcp: {} }", "")
        .replace("interval: 300ms, timeout: 290ms", "interval: 60s, timeout: 1s");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    eventually("both are healthy", async || proxy.status().await.upstreams[0].healthy == 2).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut hanging = Vec::new();
    for _ in 0..20 {
        hanging.push(caller.open("/test.Echo/Hang").await.unwrap());
    }
    let (a, b) = (dying.seen(), living.seen());
    eventually("all have arrived", async || a.open.load(SeqCst) + b.open.load(SeqCst) == 20).await;
    assert_eq!((a.open.load(SeqCst), b.open.load(SeqCst)), (10, 10), "spread evenly");

    drop(dying);
    let mut codes = Vec::new();
    let mut kept = hanging;
    while codes.len() < 10 {
        let mut open = Vec::new();
        for mut call in kept {
            match timeout(Duration::from_millis(20), &mut call.response).await {
                Ok(response) => codes.push(read(response.unwrap()).await.unwrap().code()),
                Err(_) => open.push(call),
            }
        }
        kept = open;
    }
    assert_eq!(codes, [14; 10], "those on the endpoint that died");
    assert_eq!(living.seen().open.load(SeqCst), 10, "and no other");
    // The loss is known, so every one of a hundred new calls goes well, from the first on.
    for _ in 0..100 {
        assert_eq!(caller.unary("/test.Echo/Unary", &[0; 5]).await.unwrap().code(), 0);
    }
    drop(kept);
    eventually("the rest is cancelled", async || living.seen().open.load(SeqCst) == 0).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_backend_that_takes_no_streams_is_passed_over() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shut = socket.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = socket.accept().await {
            let mut builder = h2::server::Builder::new();
            builder.max_concurrent_streams(0);
            connections.spawn(async move {
                // A probe by TCP says nothing.
                if let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await {
                    connection.accept().await;
                }
            });
        }
    });
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[shut, echo.address()]).await;
    eventually("both are healthy", async || proxy.status().await.upstreams[0].healthy == 2).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    for _ in 0..20 {
        let call =
            timeout(Duration::from_secs(20), caller.unary("/test.Echo/Unary", &[0; 5])).await;
        assert_eq!(call.expect("it waits").unwrap().code(), 0);
    }
    proxy.stop().await;

    let proxy = Proxy::in_front_of(&[shut]).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let call = timeout(Duration::from_secs(20), caller.unary("/test.Echo/Unary", &[0; 5])).await;
    let status = call.expect("it waits").unwrap().status().unwrap();
    assert_eq!(status.message, format!("{shut} takes no streams"));
    proxy.stop().await;
}

/// An endpoint that closes its connections, and is found unhealthy before the next attempt.
#[tokio::test]
async fn calls_do_not_wait_on_for_an_endpoint_that_is_found_unhealthy() {
    let closing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let probed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let echo = Echo::start().await;
    let addresses = [closing.local_addr().unwrap(), echo.address()];
    let check = format!("{{ tcp: {{ port: {} }} }}", probed.local_addr().unwrap().port());
    let config = yaml(&addresses, &check, "")
        .replace("interval: 300ms, timeout: 290ms", "interval: 20ms, timeout: 19ms")
        .replace("workers: 2", "workers: 1");
    let config = config.replace("probe: {", "probe: { unhealthy_threshold: 1,");
    let proxy = Proxy::start(&config).await;
    eventually("both are healthy", async || proxy.status().await.upstreams[0].healthy == 2).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    // One for each endpoint.
    let mut first = JoinSet::new();
    for _ in 0..2 {
        let mut caller = Caller::connect(proxy.address("otlp")).await;
        first.spawn(async move { caller.unary("/test.Echo/Unary", &[0; 5]).await });
    }
    for _ in 0..3 {
        drop(Wire::accept(&closing).await);
    }
    let open = format!(r#"{{upstream="otlp",endpoint="{}"}}"#, addresses[0]);
    let open = format!("upbeat_upstream_connections{open}");
    eventually("the last one is closed", async || proxy.metric(&open).await == 0.0).await;
    let mut calls = Vec::new();
    for _ in 0..20 {
        let mut call = caller.open("/test.Echo/Unary").await.unwrap();
        call.request.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        calls.push(call);
    }
    drop(probed);
    // The check is of both, so those that wait find no other; the rest is answered.
    for call in calls {
        let response = timeout(Duration::from_secs(20), call.response).await.expect("it waits");
        let status = read(response.unwrap()).await.unwrap().status().unwrap();
        assert!([0, 14].contains(&(status.code as u8)), "{status}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn the_board_says_so_within_the_thresholds_and_the_endpoint_comes_back() {
    let (dying, living) = (Echo::start().await, Echo::start().await);
    let address = dying.address();
    let both = "\nhealth: { services: { \"\": { all: [otlp] } } }";
    let config = yaml(&[address, living.address()], "{ tcp: {} }", both)
        .replace("    probe:", "    min_healthy: 2\n    probe:");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        let (stop, done, proxy) = (Arc::clone(&stop), Arc::clone(&done), proxy.address("otlp"));
        callers.spawn(async move {
            let mut caller = Caller::connect(proxy).await;
            let mut failed = 0;
            while !stop.load(SeqCst) {
                let reply = caller.unary("/test.Echo/Unary", &[0; 5]).await.unwrap();
                failed += usize::from(reply.code() != 0);
                done.fetch_add(1, SeqCst);
            }
            failed
        });
    }
    let target = 200;
    eventually("calls go on", async || done.load(SeqCst) >= target).await;
    drop(dying);
    let died = Instant::now();
    proxy.wait_not_serving().await;
    // Three failed probes, 100 ms apart and a tenth more, after the one that was under way; the
    // rest is for a busy machine.
    let took = died.elapsed();
    assert!(took < Duration::from_secs(4), "NOT_SERVING after {took:?}");
    let status = proxy.status().await;
    let reason = &status.services[0].reason;
    let expected = format!(
        "otlp: 1 of 2 endpoints healthy, 2 needed ({address}: tcp: cannot connect to {address}: connection refused)"
    );
    assert_eq!(reason, &expected);

    let again = Echo::start_at(address, None).await;
    proxy.wait_serving().await;
    let target = again.seen().streams.load(SeqCst) + 20;
    eventually("it gets calls again", async || again.seen().streams.load(SeqCst) >= target).await;
    stop.store(true, SeqCst);
    let mut failed = 0;
    while let Some(caller) = callers.join_next().await {
        failed += caller.unwrap();
    }
    // Only what was in flight on it when it died: at most one call of each caller.
    assert!(failed <= 4, "{failed} calls failed");
    proxy.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_restarts_is_used_again_long_before_the_interval_is_over() {
    let restarted = Echo::start().await;
    let address = restarted.address();
    let check = "{ grpc: { metadata: { x-scope-orgid: health } } }";
    let config = yaml(&[address], check, "")
        .replace("interval: 300ms, timeout: 290ms", "interval: 60s, timeout: 1s");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    drop(restarted);
    proxy.wait_not_serving().await;
    let _again = Echo::start_at(address, None).await;
    // Two passes, each soon: five seconds at most are waited for it.
    proxy.wait_serving().await;
    proxy.stop().await;
}

/// Its probes fail throughout, and so did the first connection.
#[tokio::test]
async fn below_the_panic_threshold_an_endpoint_that_returns_is_connected_to() {
    let address = Echo::start().await.address();
    let config = yaml(&[address], "{ http: { port: 1 } }", "")
        .replace("    probe:", "    panic_threshold: \"100%\"\n    probe:");
    let proxy = Proxy::start(&config).await;
    eventually("it is probed", async || {
        proxy.status().await.upstreams[0].endpoints[0].health == "unhealthy"
    })
    .await;
    let call = async || {
        let mut caller = Caller::connect(proxy.address("otlp")).await;
        caller.unary("/test.Echo/Unary", &[0; 5]).await.unwrap().code()
    };
    assert_eq!(call().await, 14);
    let _echo = Echo::start_at(address, None).await;
    eventually("it takes calls", async || call().await == 0).await;
    proxy.stop().await;
}

/// It was restarted, and then the other one is, before its ejection is over.
#[tokio::test]
async fn an_ejected_endpoint_takes_the_calls_that_could_not_reach_any_other() {
    let (first, second) = (Echo::start().await, Echo::start().await);
    let addresses = [first.address(), second.address()];
    let config = yaml(&addresses, "{ tcp: {} }", "")
        .replace("interval: 300ms, timeout: 290ms", "interval: 60s, timeout: 5s")
        .replace("workers: 2", "workers: 1");
    let proxy = Proxy::start(&config).await;
    let endpoints = async || proxy.status().await.upstreams.remove(0).endpoints;
    let call = async || {
        let mut caller = Caller::connect(proxy.address("otlp")).await;
        caller.unary("/test.Echo/Unary", &[0; 5]).await.unwrap().code()
    };
    eventually("both are healthy", async || proxy.status().await.upstreams[0].healthy == 2).await;
    drop(first);
    eventually("it is ejected", async || {
        _ = call().await;
        endpoints().await[0].ejected.is_some()
    })
    .await;
    let _first = Echo::start_at(addresses[0], None).await;
    drop(second);
    let labels = format!(r#"{{upstream="otlp",endpoint="{}"}}"#, addresses[1]);
    let open = format!("upbeat_upstream_connections{labels}");
    eventually("the other one is gone", async || proxy.metric(&open).await == 0.0).await;
    eventually("it takes calls", async || call().await == 0).await;
    for _ in 0..20 {
        assert_eq!(call().await, 0);
    }
    let now = endpoints().await;
    assert!(now[0].ejected.is_some() && now[1].ejected.is_none());
    proxy.stop().await;
}

#[tokio::test]
async fn a_restart_that_no_call_was_on_ejects_nobody_however_many_workers_see_it() {
    let (restarted, other) = (Echo::start().await, Echo::start().await);
    let address = restarted.address();
    // Probes see nothing of it.
    let config = yaml(&[address, other.address()], "{ tcp: {} }", "")
        .replace("interval: 300ms, timeout: 290ms", "interval: 60s, timeout: 1s")
        .replace("    probe:", "    ejection: { consecutive: 9 }\n    probe:")
        .replace("workers: 2", "workers: 8");
    let proxy = Proxy::start(&config).await;
    eventually("both are healthy", async || proxy.status().await.upstreams[0].healthy == 2).await;
    let mut callers = Vec::new();
    for _ in 0..8 {
        callers.push(Caller::connect(proxy.address("otlp")).await);
    }
    let call_all = async |callers: &mut Vec<Caller>| {
        for caller in callers {
            assert_eq!(caller.unary("/test.Echo/Unary", &[0; 5]).await.unwrap().code(), 0);
        }
    };
    let connections = || restarted.seen().connections.load(SeqCst);
    while connections() < 8 {
        call_all(&mut callers).await;
    }
    drop(restarted);
    let failures = format!(
        r#"upbeat_upstream_connect_failures_total{{upstream="otlp",endpoint="{address}"}}"#
    );
    while proxy.metric(&failures).await < 16.0 {
        call_all(&mut callers).await;
    }
    let restarted = Echo::start_at(address, None).await;
    let status = proxy.status().await;
    assert!(status.upstreams[0].endpoints.iter().all(|it| it.ejected.is_none()));
    while restarted.seen().streams.load(SeqCst) < 20 {
        call_all(&mut callers).await;
    }
    drop(callers);
    proxy.stop().await;
}
