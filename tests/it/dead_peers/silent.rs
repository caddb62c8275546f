//! Connections and endpoints that swallow what they are sent: they are found out and left.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use bytes::Bytes;
use http::Request;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::bids_come_back;
use crate::{
    fixture::{
        caller::{Caller, Reply, read},
        echo::Echo,
        eventually,
        proxy::{Proxy, yaml},
        tunnel::Tunnel,
    },
    probe::http,
};

const HANG: &str = "/test.Echo/Hang";
const UNARY: &str = "/test.Echo/Unary";

async fn one_worker(config: &str) -> Proxy {
    let proxy = Proxy::start(&config.replace("workers: 2", "workers: 1")).await;
    proxy.wait_serving().await;
    proxy
}

#[tokio::test]
async fn a_connection_that_swallows_all_gets_no_more_calls_than_it_takes_to_be_found_out() {
    let echo = Echo::start().await;
    let tunnel = Tunnel::to(echo.address()).await;
    let proxy = one_worker(&yaml(&[tunnel.address()], "{ tcp: {} }", "")).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    assert_eq!(caller.unary(UNARY, &[0; 5]).await.unwrap().code(), 0);

    tunnel.swallow_open();
    let begun = Instant::now();
    let mut calls = JoinSet::new();
    for number in 0..14 {
        let at = Duration::from_millis(500) * number;
        sleep_until(begun + at).await;
        let request = Request::post(format!("http://h{UNARY}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            // Somewhat less than three calls' time, so that a busy machine adds none to them.
            .header("grpc-timeout", "1300m");
        let mut call = caller.send(request.body(()).unwrap(), false).await.unwrap();
        call.request.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        calls.spawn(async move { (at, read(call.response.await.unwrap()).await.unwrap().code()) });
    }
    let ends = calls.join_all().await;
    let lost: Vec<_> = ends.iter().filter(|(_, code)| *code != 0).collect();
    assert!(lost.len() <= 3, "{lost:?}");
    assert!(lost.iter().all(|(at, _)| *at <= Duration::from_secs(3)), "{lost:?}");
    drop(caller);
    proxy.stop().await;
}

/// Opens calls without a deadline that their endpoints do not answer.
async fn hanging(caller: &mut Caller, count: usize) -> JoinSet<Result<Reply, h2::Error>> {
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let mut call = caller.open(HANG).await.unwrap();
        call.request.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        calls.spawn(async { read(call.response.await?).await });
    }
    calls
}

#[tokio::test]
async fn calls_on_an_endpoint_that_went_silent_end_soon_after_it_is_unhealthy() {
    let (silent, well) = (Echo::start().await, Echo::start().await);
    let tunnel = Tunnel::to(silent.address()).await;
    let check = "{ grpc: { metadata: { x-scope-orgid: a } } }";
    let config = yaml(&[tunnel.address(), well.address()], check, "")
        .replace("    probe:", "    load_balancing: round_robin\n    probe:");
    let proxy = one_worker(&config).await;
    let healthy = async || proxy.status().await.upstreams[0].healthy;
    eventually("both are healthy", async || healthy().await == 2).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut calls = hanging(&mut caller, 8).await;
    let on = |echo: &Echo| echo.seen().open.load(SeqCst);
    eventually("they are there", async || on(&silent) >= 4 && on(&well) >= 4).await;

    tunnel.swallow_all();
    eventually("it is unhealthy", async || healthy().await == 1).await;
    for _ in 0..4 {
        let end = timeout(Duration::from_secs(12), calls.join_next()).await;
        let reply = end.expect("it ends").unwrap().unwrap().unwrap();
        assert_eq!(reply.code(), 14);
        assert!(bids_come_back(&reply), "{reply:?}");
    }
    sleep(Duration::from_millis(500)).await;
    assert!(calls.try_join_next().is_none(), "the others go on");
    assert_eq!(calls.len(), 4);
    drop((calls, caller));
    proxy.stop().await;
}

#[tokio::test]
async fn calls_on_an_endpoint_that_only_its_check_finds_unhealthy_go_on() {
    let echo = Echo::start().await;
    let page = http("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let check = format!("{{ http: {{ path: /ready, port: {} }} }}", page.address.port());
    let limits = "limits: { upstream_suspect_timeout: 500ms }";
    let proxy = one_worker(&yaml(&[echo.address()], &check, limits)).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = caller.open("/test.Echo/Stream").await.unwrap();
    call.request.send_data(Bytes::from_static(&[0, 0, 0, 0, 1, 7]), false).unwrap();
    let response = call.response.await.unwrap();

    drop(page);
    proxy.wait_not_serving().await;
    sleep(Duration::from_secs(3)).await;
    call.request.send_data(Bytes::from_static(&[0, 0, 0, 0, 1, 8]), true).unwrap();
    let reply = timeout(Duration::from_secs(20), read(response)).await.unwrap().unwrap();
    assert_eq!((reply.code(), reply.body.len()), (0, 12));
    drop(caller);
    proxy.stop().await;
}
