//! Endpoints that are hostile, in some of the ways that `tests/it` tries one by one.

#[expect(dead_code, reason = "tests/it needs the rest")]
#[path = "../it/hostile/peer.rs"]
mod peer;
#[expect(dead_code, reason = "tests/it needs the rest")]
#[path = "../it/hostile/way.rs"]
mod way;

use std::time::Duration;

use tokio::time::Instant;

use self::{
    peer::Hostile,
    way::Way::{
        ByteWindow, GoAwayFlood, InterimFlood, NoStreams, ResetAfterData, ResetAfterHead,
        ResetFlood, Shrinking, Silent, SlowFrames, Swallows,
    },
};
use crate::{
    crowd,
    raw::request,
    scene::{Aside, Scene},
};

/// Eleven endpoints, each hostile in a way of its own, and calls with a deadline of two seconds.
pub(crate) async fn endpoints(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let ways = [
        GoAwayFlood,
        ResetAfterHead,
        ResetAfterData,
        ResetFlood,
        NoStreams,
        Shrinking,
        InterimFlood,
        SlowFrames,
        Silent,
        Swallows,
        ByteWindow,
    ];
    let mut hostile = Vec::new();
    for way in ways {
        hostile.push(scene.behind.spawn(Hostile::start(way)).await?);
    }
    let addresses: Vec<_> = hostile.iter().map(|endpoint| endpoint.address).collect();
    let aside = Aside::to(&addresses, "    load_balancing: round_robin");
    let address = scene.begin(aside.setup()).await?;
    let head = [request("/test.Hostile/Call"), vec![("grpc-timeout", "2S")]].concat();
    let (mut calls, mut hung) = (0, 0.0);
    let end = Instant::now() + scene.scaled(Duration::from_secs(40));
    while Instant::now() < end {
        let mut clients = crowd::open(address, 4, &[]).await?;
        for client in &mut clients {
            (0..11).for_each(|_| _ = client.unary(&head, 1000));
        }
        crowd::until(&mut clients, Duration::from_secs(4), |heard| heard.over() == 11).await;
        calls += 44;
        hung += 44.0 - crowd::sum(&clients, |heard| heard.over());
    }
    scene.at_most("past their deadline", hung, 0.0, &format!(" of {calls}"));
    scene.memory(64.0);
    scene.keep(hostile);
    Ok(())
}
