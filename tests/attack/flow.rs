//! Clients and endpoints that do not take what they are sent.

use std::time::Duration;

use tokio::time::Instant;
use upbeat::http2::frame::{DATA, INITIAL_WINDOW_SIZE};

use crate::{
    crowd,
    raw::{Raw, request},
    scene::{Aside, Scene, Setup},
};

const ANSWER: &str = "/test.Echo/Answer";

/// 6 connections with 128 calls each whose answers of 300 KiB they leave no window for.
pub(crate) async fn unread_answers(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let (limits, stalled) = stalled(scene);
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
    let limit = Duration::from_secs_f64(stalled + 5.0);
    crowd::until(&mut clients, limit, |heard| heard.over() == 128).await;
    let over = crowd::sum(&clients, |it| if it.closed.is_some() { 128 } else { it.over() });
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
    scene.at_most("after", started.elapsed().as_secs_f64(), scene.patient(4.0).min(8.5), " s");
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

/// How long a stream may stand still, beside the whole of what says so: the default, or less where
/// nobody waits for it.
fn stalled(scene: &Scene<'_>) -> (&'static str, f64) {
    if scene.options.slow { ("", 30.0) } else { ("send_timeout: 2s", 2.0) }
}

/// 100 calls whose answers of 64 KiB have no window.
pub(crate) async fn closed_window(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let (limits, stalled) = stalled(scene);
    let address = scene.begin(Setup { limits, ..Setup::default() }).await?;
    let mut client = Raw::connect(address, &[(INITIAL_WINDOW_SIZE, 0)]).await?;
    answers(&mut client, 100, "65536");
    reset_in_time(scene, &mut client, 100, stalled).await;
    scene.memory(100.0 * 0.125);
    Ok(())
}

/// 20 calls whose answers are given a window of one byte a second.
pub(crate) async fn slow_reader(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let (limits, stalled) = stalled(scene);
    let address = scene.begin(Setup { limits, ..Setup::default() }).await?;
    let mut client = Raw::connect(address, &[(INITIAL_WINDOW_SIZE, 1)]).await?;
    client.credits = false;
    answers(&mut client, 20, "65536");
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < stalled + 5.0
        && client.heard.over() < 20
        && client.heard.closed.is_none()
    {
        client.listen(Duration::from_secs(1)).await;
        for stream in (1..40).step_by(2) {
            if !client.heard.resets.contains_key(&stream) {
                client.credit(stream, 1);
            }
        }
    }
    reset_in_time(scene, &mut client, 20, 0.0).await;
    Ok(())
}

/// Queues calls with answers of so many bytes.
fn answers(client: &mut Raw, calls: usize, bytes: &str) {
    let head = [request(ANSWER), vec![("x-bytes", bytes)]].concat();
    for _ in 0..calls {
        client.unary(&head, 0);
    }
}

/// Notes how many streams were ended five seconds after they had stood still for too long.
async fn reset_in_time(scene: &mut Scene<'_>, client: &mut Raw, calls: usize, stalled: f64) {
    let limit = Duration::from_secs_f64(stalled + 5.0);
    client.until(limit, |heard| heard.over() == calls).await;
    let closed = client.heard.closed.is_some();
    let over = if closed { calls } else { client.heard.over() };
    scene.at_least("ended", over as f64, calls as f64, "");
}

/// DATA frames of a byte on 64 streams, for an endpoint that takes little of it.
pub(crate) async fn small_writes(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let sink = scene.echo(None).await?;
    let aside = Aside::to(&[sink.address()], "");
    let address = scene.begin(aside.setup()).await?;
    let mut client = Raw::connect(address, &[]).await?;
    let head = request("/test.Echo/Sink");
    let streams: Vec<_> = (0..64).map(|_| client.open(&head, false)).collect();
    // A connection's window, of a byte each.
    let (frames, mut turn) = (if scene.options.slow { 8 << 20 } else { 1 << 17 }, 0);
    let sent = client.flood(frames, Duration::from_secs(60), |client| {
        turn += 1;
        client.put(DATA, 0, streams[turn % 64], &[0]);
    });
    let sent = sent.await;
    scene.note("sent", sent);
    client.listen(Duration::from_secs(1)).await;
    scene.memory(9.0);
    Ok(())
}

/// 1000 answers of five bytes at once, of eight clients that read late.
pub(crate) async fn small_answers(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let mut clients = crowd::open(address, 8, &[]).await?;
    for client in &mut clients {
        client.reads = false;
        answers(client, 125, "0");
    }
    crowd::listen(&mut clients, Duration::from_millis(500)).await;
    clients.iter_mut().for_each(|client| client.reads = true);
    crowd::until(&mut clients, Duration::from_secs(10), |heard| heard.over() == 125).await;
    let answered = crowd::sum(&clients, |heard| heard.with(0));
    scene.at_least("answered", answered, 1000.0, "");
    Ok(())
}

/// 12 connections with 7 MiB of bodies each, for an endpoint that has no room.
pub(crate) async fn waiting_bodies(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let full = scene.echo(Some(1)).await?;
    let aside = Aside::to(&[full.address()], "    admission: { queue_timeout: 60s }");
    let limits = "max_worker_buffer: 32MiB";
    let address = scene.begin(Setup { limits, ..aside.setup() }).await?;
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
    scene.memory(48.0);
    Ok(())
}
