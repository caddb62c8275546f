//! Clients that begin and do not go on.

use std::time::Duration;

use upbeat::http2::frame::DATA;

use crate::{
    crowd,
    raw::request,
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
    let answered = crowd::sum(&clients, |heard| heard.over());
    scene.note("attacker's ended", answered);
    Ok(())
}
