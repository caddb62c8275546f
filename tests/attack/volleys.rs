//! Resets, and connections that end with many streams open.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use tokio::time::{Instant, sleep};
use upbeat::http2::frame::{DATA, PRIORITY};

use crate::{
    crowd,
    raw::{Heard, Raw, request},
    scene::{Scene, Setup},
};

const HANG: &str = "/test.Echo/Hang";

/// 200 000 pairs of HEADERS and RST_STREAM.
pub(crate) async fn rapid_reset(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let mut raw = Raw::connect(address, &[]).await?;
    let started = Instant::now();
    raw.flood(200_000, Duration::from_secs(20), |raw| {
        let stream = raw.open(&request(HANG), false);
        raw.reset(stream, 8);
    })
    .await;
    let closed = raw.closed(started, Duration::from_secs(2)).await;
    scene.at_most("closed", closed, scene.patient(1.0), " s");
    let mut raw = Raw::connect(address, &[]).await?;
    let pairs = raw.in_step(1000, 20, |raw| {
        let stream = raw.open(&request(HANG), false);
        raw.reset(stream, 8);
    });
    scene.at_most("pairs taken", pairs.await, 300.0, "");
    let opened = scene.opened(HANG);
    // A pair that is cut in two by a delay of the machine is opened.
    scene.at_most("opened upstream", opened as f64, 2.0, "");
    scene.memory(8.0);
    Ok(())
}

/// 40 calls a second, each reset after 10 ms.
pub(crate) async fn patient_reset(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let mut raw = Raw::connect(address, &[]).await?;
    let (started, span) = (Instant::now(), scene.scaled(Duration::from_secs(20)));
    while started.elapsed() < span && raw.heard.closed.is_none() {
        let stream = raw.unary(&request(HANG), 0);
        raw.listen(Duration::from_millis(10)).await;
        raw.reset(stream, 8);
        raw.listen(Duration::from_millis(15)).await;
    }
    let resets = scene.endpoint.seen().resets.load(SeqCst) as f64;
    scene.note("closed", raw.heard.closed.is_some());
    scene.at_most("resets upstream", resets / span.as_secs_f64(), 40.0, "/s");
    Ok(())
}

/// What is done to a stream.
type Form = fn(&mut Raw, u32);

/// What makes the proxy reset streams: WINDOW_UPDATE of 0 and over 2^31, DATA over the window, a
/// stream that depends on itself.
pub(crate) async fn made_you_reset(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let forms: [(&str, Form); 4] = [
        ("WINDOW_UPDATE 0", |raw, stream| raw.credit(stream, 0)),
        ("over 2^31", |raw, stream| raw.credit(stream, (1 << 31) - 1)),
        ("over the window", |raw, stream| {
            (0..17).for_each(|_| raw.put(DATA, 0, stream, &[0; 16_384]));
        }),
        ("self-dependency", |raw, stream| {
            raw.put(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[7]].concat());
        }),
    ];
    for (what, form) in forms {
        let mut raw = Raw::connect(address, &[]).await?;
        for _ in 0..1000 {
            let stream = raw.open(&request(HANG), false);
            form(&mut raw, stream);
            let over = |heard: &Heard| heard.goaway.is_some() || heard.resets.contains_key(&stream);
            if !raw.until(Duration::from_secs(5), over).await || raw.heard.goaway.is_some() {
                break;
            }
        }
        let ended = raw.heard.closed.is_some() || raw.heard.goaway.is_some();
        let resets = if ended { raw.heard.resets.len() as f64 } else { f64::INFINITY };
        scene.at_most(&format!("{what}: resets"), resets, 200.0, "");
    }
    Ok(())
}

/// Connections that open 128 calls of five bytes and close, three a second.
pub(crate) async fn open_and_leave(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let end = Instant::now() + scene.scaled(Duration::from_secs(12));
    let mut calls = 0;
    for round in 0.. {
        if Instant::now() > end {
            break;
        }
        let mut clients = crowd::open(address, 1, &[]).await?;
        for _ in 0..128 {
            let stream = clients[0].open(&request(HANG), false);
            clients[0].put(DATA, 0, stream, &[0; 5]);
            calls += 1;
        }
        clients[0].flush(Duration::from_secs(1)).await;
        // The proxy opens them upstream, and is left at different moments after that.
        crowd::listen(&mut clients, Duration::from_micros(round % 8 * 500)).await;
        drop(clients);
        sleep(Duration::from_millis(310)).await;
    }
    scene.note("calls", calls);
    let ended = scene.endpoint.seen().ended.load(SeqCst);
    scene.at_most("connections ended by the endpoint", ended as f64, 0.0, "");
    Ok(())
}
