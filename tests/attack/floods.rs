//! Frames that cost their sender nothing.

use std::{net::SocketAddr, sync::atomic::Ordering::SeqCst, time::Duration};

use tokio::time::Instant;
use upbeat::http2::frame::{
    DATA, END_HEADERS, HEADERS, INITIAL_WINDOW_SIZE, PING, PRIORITY, SETTINGS,
};

use crate::{
    raw::{Raw, request},
    scene::{Scene, Setup},
};

const LONG: Duration = Duration::from_secs(20);
/// What resident memory moves by itself, beside 200 calls a second, in MiB.
pub(crate) const NOISE: f64 = if cfg!(debug_assertions) { 1.0 } else { 0.25 };

/// Floods one connection; notes when it was closed.
async fn flood(
    scene: &mut Scene<'_>,
    what: &str,
    mut raw: Raw,
    (times, within): (usize, f64),
    put: impl FnMut(&mut Raw),
) {
    let started = Instant::now();
    let sent = raw.flood(times, LONG, put).await;
    let closed = raw.closed(started, Duration::from_secs(2)).await;
    scene.note(&format!("{what}: sent"), sent);
    scene.at_most("closed", closed, scene.patient(within), " s");
}

/// 100 000 PINGs, once by a client that reads the answers, once by one that does not.
pub(crate) async fn pings(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    for (what, reads) in [("read", true), ("unread", false)] {
        let mut raw = Raw::connect(address, &[]).await?;
        raw.reads = reads;
        let put = |raw: &mut Raw| raw.put(PING, 0, 0, &[1; 8]);
        flood(scene, what, raw, (100_000, 1.0), put).await;
    }
    scene.memory(0.0625 + NOISE);
    Ok(())
}

/// 100 000 SETTINGS beside 100 open streams.
pub(crate) async fn settings(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let raw = hanging(address, 100).await?;
    let mut window = 0_u32;
    let put = |raw: &mut Raw| {
        window = (window + 1) % 1000;
        let setting = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &window.to_be_bytes()].concat();
        raw.put(SETTINGS, 0, 0, &setting);
    };
    flood(scene, "SETTINGS", raw, (100_000, 1.0), put).await;
    scene.memory(0.0625 + NOISE);
    Ok(())
}

/// A connection with so many calls that are not answered.
async fn hanging(address: SocketAddr, calls: usize) -> anyhow::Result<Raw> {
    let mut raw = Raw::connect(address, &[]).await?;
    for _ in 0..calls {
        raw.unary(&request("/test.Echo/Hang"), 0);
    }
    raw.listen(Duration::from_millis(300)).await;
    Ok(raw)
}

/// A million PRIORITY frames, and a million of an unknown type.
pub(crate) async fn unheeded(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let raw = Raw::connect(address, &[]).await?;
    let put = |raw: &mut Raw| raw.put(PRIORITY, 0, 1, &[0, 0, 0, 0, 7]);
    flood(scene, "PRIORITY", raw, (1_000_000, 2.0), put).await;
    let raw = Raw::connect(address, &[]).await?;
    let put = |raw: &mut Raw| raw.put(0xfa, 0, 0, &[]);
    flood(scene, "unknown", raw, (1_000_000, 2.0), put).await;
    Ok(())
}

/// A million WINDOW_UPDATE of 1.
pub(crate) async fn window_updates(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let raw = Raw::connect(address, &[]).await?;
    flood(scene, "connection", raw, (1_000_000, 1.0), |raw| raw.credit(0, 1)).await;
    Ok(())
}

/// Empty DATA on one stream, and HEADERS of no fields on many.
pub(crate) async fn empty(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let mut raw = Raw::connect(address, &[]).await?;
    let stream = raw.open(&request("/test.Echo/Stream"), false);
    let frames = raw.in_step(1000, 20, |raw| raw.put(DATA, 0, stream, &[])).await;
    scene.at_most("DATA", frames, 120.0, "");
    let mut raw = Raw::connect(address, &[]).await?;
    let frames = raw.in_step(1000, 20, |raw| {
        let stream = raw.stream();
        raw.put(HEADERS, END_HEADERS, stream, &[]);
    });
    scene.at_most("HEADERS", frames.await, 120.0, "");
    Ok(())
}

/// One connection with as many DATA frames of a byte as it can write, on 64 streams.
pub(crate) async fn small_frames(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let mut raw = Raw::connect(address, &[]).await?;
    let head = request("/test.Echo/Stream");
    let streams: Vec<_> = (0..64).map(|_| raw.open(&head, false)).collect();
    let mut turn = 0;
    let span = scene.scaled(Duration::from_secs(20));
    let frames = if scene.options.slow { 4_000_000 } else { 400_000 };
    let sent = raw.flood(frames, span, |raw| {
        turn += 1;
        raw.put(DATA, 0, streams[turn % 64], &[0]);
    });
    let sent = sent.await;
    scene.note("sent", sent);
    let ended = scene.endpoint.seen().ended.load(SeqCst);
    scene.at_most("connections ended by the endpoint", ended as f64, 0.0, "");
    Ok(())
}
