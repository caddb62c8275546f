//! Connections that ask for nothing, too many of them, and those that would not end.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use tokio::{
    net::TcpStream,
    time::{Instant, interval, sleep, timeout},
};
use upbeat::http2::frame::{DATA, INITIAL_WINDOW_SIZE};

use crate::{
    crowd,
    fixture::{
        caller::{Caller, get},
        certs::Authority,
        frame::PREFACE,
    },
    raw::{Raw, request},
    scene::{Scene, Setup},
    victim::UNARY,
};

/// A listener of TLS beside the plain one, and who has issued its certificate.
fn tls(row: &str) -> (Authority, String) {
    let authority = Authority::new(&format!("attack-{row}"), "authority");
    let pair = authority.pair("localhost");
    let listener = format!(
        "  - {{ name: tls, address: \"127.0.0.1:0\", upstream: otlp, \
         tls: {{ cert_file: '{}', key_file: '{}' }} }}\n---\n",
        pair.cert.display(),
        pair.key.display()
    );
    (authority, listener)
}

/// 1000 sockets that say nothing, half a preface, or nothing of TLS.
pub(crate) async fn silent(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let (limits, bound) = match scene.options.slow {
        true => ("", 6.0),
        false => ("handshake_timeout: 1s", 2.0),
    };
    let (_, more) = tls("17");
    let address = scene.begin(Setup { limits, more: &more, ..Setup::default() }).await?;
    let encrypted = scene.subject().listener("tls");
    let started = Instant::now();
    let mut sockets = Vec::new();
    for number in 0..1000 {
        let mut raw = Raw::silent(if number % 3 == 2 { encrypted } else { address }).await?;
        if number % 3 == 1 {
            raw.bytes(&PREFACE[..10]);
        }
        sockets.push(raw);
    }
    let accepted = timeout(Duration::from_secs(5), serves(address)).await == Ok(true);
    let limit = Duration::from_secs_f64(scene.patient(bound));
    let closed = join_all(sockets.iter_mut().map(|raw| raw.closed(started, limit))).await;
    let open = closed.iter().filter(|after| after.is_infinite()).count();
    scene.at_most("left open", open as f64, 0.0, "");
    let last = closed.into_iter().filter(|after| after.is_finite()).fold(0.0, f64::max);
    scene.at_most("the last closed", last, scene.patient(bound), " s");
    scene.equal("another is served", accepted, true);
    Ok(())
}

/// 10 000 connections that are idle after a call, and 2000 of TLS.
pub(crate) async fn idle(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let (authority, more) = tls("18");
    let address = scene.begin(Setup { more: &more, ..Setup::default() }).await?;
    let (plain, encrypted) = if scene.options.slow { (9_000, 2000) } else { (600, 100) };
    let before = scene.subject().resident();
    let mut clients = crowd::open(address, plain, &[]).await?;
    for some in clients.chunks_mut(100) {
        some.iter_mut().for_each(|client| _ = client.unary(&request(UNARY), 5));
        crowd::until(some, Duration::from_secs(10), |heard| heard.over() == 1).await;
    }
    sleep(Duration::from_secs(1)).await;
    let each = scene.subject().resident().saturating_sub(before) as f64 / plain as f64;
    scene.at_most("plain", each, if scene.options.slow { 8.0 } else { 12.0 }, " KiB each");
    let (before, client) = (scene.subject().resident(), authority.client(None));
    let address = scene.subject().listener("tls");
    let mut callers = Vec::new();
    for _ in 0..encrypted {
        let mut caller = Caller::over(client.connect(address).await?, address).await?;
        caller.unary(UNARY, &[0; 5]).await?;
        callers.push(caller);
    }
    sleep(Duration::from_secs(1)).await;
    let each = scene.subject().resident().saturating_sub(before) as f64 / encrypted as f64;
    scene.at_most("TLS", each, if scene.options.slow { 17.0 } else { 24.0 }, " KiB each");
    Ok(())
}

/// 200 connections where 50 are allowed, again and again.
pub(crate) async fn over_the_cap(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.begin(Setup { listener: "max_connections: 50", ..Setup::default() }).await?;
    let address = scene.subject().listener("otlp");
    let (cpu, started) = (scene.subject().cpu(), Instant::now());
    let span = scene.scaled(Duration::from_secs(20));
    let mut sockets = Vec::new();
    while started.elapsed() < span {
        sockets.push(TcpStream::connect(address).await?);
        if sockets.len() > 200 {
            sockets.remove(0);
        }
        sleep(Duration::from_millis(2)).await;
    }
    let used = (scene.subject().cpu() - cpu).as_secs_f64() / started.elapsed().as_secs_f64();
    scene.at_most("of a core", 100.0 * used, scene.patient(20.0), " %");
    Ok(())
}

/// 400 connections for a process that has 256 descriptors.
pub(crate) async fn out_of_descriptors(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup { descriptors: Some(256), ..Setup::default() }).await?;
    let mut sockets = Vec::new();
    for _ in 0..400 {
        // Those that are not accepted wait in the kernel.
        sockets.push(TcpStream::connect(address).await?);
    }
    sleep(Duration::from_secs(1)).await;
    let (cpu, span) = (scene.subject().cpu(), Duration::from_secs(3));
    sleep(span).await;
    let used = (scene.subject().cpu() - cpu).as_secs_f64() / span.as_secs_f64();
    // The victim's calls are in it.
    scene.at_most("of a core", 100.0 * used, scene.patient(10.0), " %");
    drop(sockets);
    let started = Instant::now();
    while timeout(Duration::from_secs(5), serves(address)).await != Ok(true) {
        sleep(Duration::from_millis(20)).await;
    }
    scene.at_most("well again", started.elapsed().as_secs_f64(), scene.patient(2.0), " s");
    Ok(())
}

async fn serves(address: SocketAddr) -> bool {
    let Ok(stream) = TcpStream::connect(address).await else { return false };
    let Ok(mut caller) = Caller::over(stream, address).await else { return false };
    caller.unary(UNARY, &[0; 5]).await.is_ok()
}

/// 500 TLS handshakes a second.
pub(crate) async fn handshakes(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let (authority, more) = tls("21");
    scene.begin(Setup { more: &more, ..Setup::default() }).await?;
    let address = scene.subject().listener("tls");
    let (client, span) = (authority.client(None), scene.scaled(Duration::from_secs(20)));
    let (started, mut made) = (Instant::now(), 0);
    let mut pace = interval(Duration::from_millis(20));
    while started.elapsed() < span {
        pace.tick().await;
        let ten = (0..10).map(|_| client.connect(address));
        made += join_all(ten).await.iter().filter(|made| made.is_ok()).count();
    }
    scene.note("handshakes", format!("{:.0}/s", made as f64 / started.elapsed().as_secs_f64()));
    Ok(())
}

/// 50 clients that say SETTINGS and no more, where 50 are allowed; then `GET /healthz`.
pub(crate) async fn full_of_greeters(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address =
        scene.begin_alone(Setup { listener: "max_connections: 50", ..Setup::default() }).await?;
    let mut clients = crowd::open(address, 50, &[]).await?;
    crowd::listen(&mut clients, Duration::from_millis(500)).await;
    let started = Instant::now();
    let answer = timeout(Duration::from_secs(15), get(address, "/healthz")).await;
    scene.equal("answer", answer.map(|it| it.0.as_u16()).unwrap_or_default(), 200);
    scene.at_most("after", started.elapsed().as_secs_f64(), scene.patient(1.0), " s");
    Ok(())
}

/// Connections of an age of two seconds with a Watch, an answer without a window, and a body that
/// does not end.
pub(crate) async fn too_old(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene
        .begin(Setup {
            listener: "max_connection_age: 2s",
            limits: "max_connection_age_grace: 2s",
            ..Setup::default()
        })
        .await?;
    let started = Instant::now();
    let mut clients = crowd::open(address, 3, &[(INITIAL_WINDOW_SIZE, 0)]).await?;
    clients[0].unary(&request("/grpc.health.v1.Health/Watch"), 0);
    clients[1].unary(&[request("/test.Echo/Answer"), vec![("x-bytes", "60000")]].concat(), 0);
    let stream = clients[2].open(&request(UNARY), false);
    clients[2].put(DATA, 0, stream, &[0; 3]);
    let limit = Duration::from_secs(15);
    let closed = join_all(clients.iter_mut().map(|client| client.closed(started, limit))).await;
    for (what, closed) in ["Watch", "no window", "open body"].into_iter().zip(closed) {
        scene.at_most(&format!("{what} closed"), closed, scene.patient(6.0), " s");
    }
    Ok(())
}

/// How long 8000 connections that are idle keep the worker from others.
pub(crate) async fn idle_tick(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let clients = crowd::open(address, 8000, &[]).await?;
    let (cpu, span) = (scene.subject().cpu(), Duration::from_secs(5));
    sleep(span).await;
    let used = (scene.subject().cpu() - cpu).as_secs_f64() / span.as_secs_f64();
    // The victim's calls are in it.
    scene.at_most("of a core", 100.0 * used, scene.patient(5.0), " %");
    drop(clients);
    Ok(())
}
