//! Clients that begin and do not go on.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use tokio::time::Instant;
use upbeat::http2::frame::DATA;

use crate::{
    crowd,
    raw::{Raw, request},
    scene::{Scene, Setup},
};

/// 4 connections with 128 requests each of a head and one byte, where the endpoint takes 100
/// streams on a connection.
pub(crate) async fn unfinished_requests(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let endpoint = scene.echo(Some(100)).await?;
    let address =
        scene.begin(Setup { endpoints: &[endpoint.address()], ..Setup::default() }).await?;
    let mut clients = crowd::open(address, 4, &[]).await?;
    for client in &mut clients {
        for _ in 0..128 {
            let stream = client.open(&request("/test.Echo/Unary"), false);
            client.put(DATA, 0, stream, &[0]);
        }
    }
    crowd::listen(&mut clients, scene.scaled(Duration::from_secs(40))).await;
    // Those that brought nothing are ended in time, where it is waited for.
    let answered = crowd::sum(&clients, |heard| heard.over());
    scene.note("attacker's ended", answered);
    Ok(())
}

/// 100 requests on a connection, whose bodies come at a byte a second.
pub(crate) async fn slow_bodies(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let (limits, bound) =
        if scene.options.slow { ("", 30.0) } else { ("message_timeout: 2s", 2.0) };
    let address = scene.begin(Setup { limits, ..Setup::default() }).await?;
    let mut client = Raw::connect(address, &[]).await?;
    let head = request("/test.Echo/Stream");
    let streams: Vec<_> = (0..100)
        .map(|_| {
            let stream = client.open(&head, false);
            client.put(DATA, 0, stream, &[0, 0, 0, 4, 0]);
            stream
        })
        .collect();
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < bound + 5.0 && client.heard.over() < 100 {
        client.until(Duration::from_secs(1), |heard| heard.over() == 100).await;
        for stream in &streams {
            if !client.heard.is_over(*stream) {
                client.put(DATA, 0, *stream, &[0]);
            }
        }
    }
    scene.at_least("ended", client.heard.over() as f64, 100.0, "");
    // Resets are paced; and some of the victim's are there too.
    let (open, end) = (&scene.endpoint.seen().open, Instant::now() + Duration::from_secs(10));
    while open.load(SeqCst) > 20 && Instant::now() < end {
        client.listen(Duration::from_millis(100)).await;
    }
    let open = open.load(SeqCst);
    scene.at_most("open at the endpoint", open as f64, 20.0, "");
    Ok(())
}
