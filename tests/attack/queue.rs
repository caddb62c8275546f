//! Calls that wait for room.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use upbeat::http2::frame::PING;

use crate::{
    crowd,
    raw::{Raw, request},
    scene::{Scene, Setup},
};

/// 240 and 10 240 calls at all times, all but a hundred of which wait, for an endpoint that ends 2000 a
/// second.
pub(crate) async fn ten_thousand_waiting(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let endpoint = scene.echo(Some(25)).await?;
    let address = scene
        .begin_alone(Setup {
            endpoints: &[endpoint.address()],
            upstream: "    admission: { max_queue: 20000, queue_timeout: 60s }",
            ..Setup::default()
        })
        .await?;
    let span = scene.scaled(Duration::from_secs(12));
    // On as many connections: that each of few brings more at once is no matter of what waits.
    let few = waiting(scene, address, 3, span).await?;
    let many = waiting(scene, address, 128, span).await?;
    scene.note("CPU of a call, 240 open", format!("{:.0} µs", few.cpu));
    scene.note("10 240 open", format!("{:.0} µs", many.cpu));
    let growth = if scene.options.is_strict() { 1.5 } else { 3.0 };
    scene.at_most("growth", many.cpu / few.cpu, growth, " ×");
    // A debug build, and another program that has the core, take their time too.
    let late: f64 = if scene.options.is_strict() { 20.0 } else { 2000.0 };
    scene.at_most("PING", many.ping, late.max(2.0 * few.ping), " ms");
    Ok(())
}

struct Waiting {
    /// CPU time of the proxy for each call that ended, in µs.
    cpu: f64,
    /// The slowest answer to a PING, in ms.
    ping: f64,
}

async fn waiting(
    scene: &Scene<'_>,
    address: std::net::SocketAddr,
    each: usize,
    span: Duration,
) -> anyhow::Result<Waiting> {
    let mut clients = crowd::open(address, CONNECTIONS, &[]).await?;
    let warm = Instant::now() + Duration::from_secs(1);
    join_all(clients.iter_mut().map(|client| refill(client, each, warm))).await;
    let before = (scene.subject().cpu(), crowd::sum(&clients, |heard| heard.over()));
    let end = Instant::now() + span;
    let mut asker = Raw::connect(address, &[]).await?;
    let load = join_all(clients.iter_mut().map(|client| refill(client, each, end)));
    let (_, ping) = tokio::join!(load, slowest_ping(&mut asker, end));
    let calls = crowd::sum(&clients, |heard| heard.over()) - before.1;
    let cpu = scene.subject().cpu().saturating_sub(before.0).as_secs_f64() * 1e6 / calls;
    Ok(Waiting { cpu, ping })
}

/// Keeps `each` calls under way.
async fn refill(client: &mut Raw, each: usize, end: Instant) {
    while Instant::now() < end && client.heard.closed.is_none() {
        let over = client.heard.over();
        while client.opened() < over + each {
            client.unary(&request("/test.Echo/Slow"), 0);
        }
        let left = end.saturating_duration_since(Instant::now());
        client.until(left, |heard| heard.over() > over).await;
    }
}

async fn slowest_ping(client: &mut Raw, end: Instant) -> f64 {
    let mut slowest: f64 = 0.0;
    while Instant::now() < end {
        sleep(Duration::from_millis(200)).await;
        let (started, pongs) = (Instant::now(), client.heard.pongs);
        client.put(PING, 0, 0, &[7; 8]);
        client.until(Duration::from_secs(10), |heard| heard.pongs > pongs).await;
        slowest = slowest.max(started.elapsed().as_secs_f64() * 1e3);
    }
    slowest
}

/// Clients of a run.
const CONNECTIONS: usize = 80;
