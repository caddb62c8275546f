//! Clients and endpoints that do not take what they are sent.

use std::time::Duration;

use tokio::time::Instant;
use upbeat::http2::frame::{DATA, INITIAL_WINDOW_SIZE};

use crate::{
    crowd,
    raw::request,
    scene::{Scene, Setup},
};

const ANSWER: &str = "/test.Echo/Answer";

/// 6 connections with 128 calls each whose answers of 300 KiB they leave no window for.
pub(crate) async fn unread_answers(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let (limits, stalled) = if scene.options.slow { ("", 30) } else { ("send_timeout: 2s", 2) };
    // The calls so fill each connection that there may be to it.
    let endpoint = scene.echo(Some(200)).await?.address();
    let address = scene.begin(Setup { limits, endpoints: &[endpoint], ..Setup::default() }).await?;
    let mut clients = crowd::open(address, 6, &[(INITIAL_WINDOW_SIZE, 0)]).await?;
    let head = [request(ANSWER), vec![("x-bytes", "307200")]].concat();
    for client in &mut clients {
        for _ in 0..128 {
            client.unary(&head, 0);
        }
    }
    crowd::until(&mut clients, Duration::from_secs(stalled + 5), |heard| heard.over() == 128).await;
    let over = clients.iter().filter(|it| it.heard.closed.is_some()).count() * 128;
    let over = crowd::sum(&clients, |heard| if heard.closed.is_some() { 0 } else { heard.over() })
        + over as f64;
    scene.at_least("ended", over, 768.0, "");
    let peak = scene.subject().peak() as f64 / 1024.0;
    scene.at_most("resident", peak, 64.0, " MiB");
    Ok(())
}

/// 128 answers of 100 kB, whole at the proxy, that have no window; each limit is two seconds.
pub(crate) async fn unread_whole_answers(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene
        .begin(Setup {
            listener: "timeouts: { call: 2s, idle: 2s, response: 2s }, max_connection_age: 4s",
            ..Setup::default()
        })
        .await?;
    let mut clients = crowd::open(address, 1, &[(INITIAL_WINDOW_SIZE, 0)]).await?;
    let head = [request(ANSWER), vec![("x-bytes", "100000"), ("grpc-timeout", "1S")]].concat();
    for _ in 0..128 {
        clients[0].unary(&head, 0);
    }
    let started = Instant::now();
    crowd::until(&mut clients, Duration::from_secs(9), |heard| heard.over() == 128).await;
    scene.at_least("ended", clients[0].heard.over() as f64, 128.0, "");
    scene.at_most("after", started.elapsed().as_secs_f64(), 4.0, " s");
    let closed = clients[0].closed(started, Duration::from_secs(9)).await;
    scene.at_most("closed", closed, 14.0, " s");
    scene.part_with_victim();
    let left = scene.subject().metric("upbeat_streams", "").await;
    scene.equal("in flight", left, 0.0);
    let code = scene.subject_mut().terminate(Duration::from_secs(10)).await;
    scene.equal("exit", code, Some(0));
    drop(clients);
    Ok(())
}

/// 12 connections with 7 MiB of bodies each, for an endpoint that has no room.
pub(crate) async fn waiting_bodies(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let full = scene.echo(Some(1)).await?;
    let upstream = format!(
        r#"  full:
    endpoints: ["{}"]
    probe: {{ interval: 1s, timeout: 900ms, checks: [{{ tcp: {{}} }}] }}
    admission: {{ queue_timeout: 60s }}
"#,
        full.address()
    );
    let address = scene
        .begin(Setup {
            listener: "routes: [{ match: { prefix: /test.Echo/Unary }, upstream: otlp }, \
                       { upstream: full }]",
            upstream: &upstream,
            ..Setup::default()
        })
        .await?;
    // Its four connections take a stream each.
    let mut holder = crowd::open(address, 1, &[]).await?;
    for _ in 0..4 {
        holder[0].unary(&request("/test.Echo/Hang"), 0);
    }
    crowd::listen(&mut holder, Duration::from_secs(1)).await;
    let mut clients = crowd::open(address, 12, &[]).await?;
    for client in &mut clients {
        for _ in 0..28 {
            let stream = client.open(&request("/test.Echo/Hang"), false);
            let mut body = vec![0; 256 << 10];
            body[1..5].copy_from_slice(&(1_u32 << 20).to_be_bytes());
            body.chunks(16_384).for_each(|piece| client.put(DATA, 0, stream, piece));
        }
    }
    crowd::listen(&mut clients, scene.scaled(Duration::from_secs(20))).await;
    scene.memory(64.0);
    Ok(())
}
