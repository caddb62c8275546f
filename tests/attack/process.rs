//! What is done to the process itself, and what other programs measure.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    fixture::{
        caller::{Caller, read},
        echo::Echo,
    },
    scene::{Scene, Setup},
    victim::UNARY,
};

/// SIGTERM while 32 clients call one after the other.
pub(crate) async fn terminated(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let drain = Some("delay: 500ms, timeout: 2s");
    let address = scene.begin_alone(Setup { drain, ..Setup::default() }).await?;
    let mut calls = JoinSet::new();
    for _ in 0..32 {
        let mut caller = Caller::connect(address).await;
        calls.spawn(async move {
            let (mut done, mut lost) = (0, 0);
            // Until the connection takes no more: a call that it took must be answered.
            while let Ok(mut call) = caller.open(UNARY).await {
                _ = call.request.send_data(vec![0; 1029].into(), true);
                let reply = async { read(call.response.await?).await };
                match reply.await {
                    Ok(reply) if reply.code() == 0 => done += 1,
                    // Begun after GOAWAY, and said to be untouched.
                    Err(error) if error.reason() == Some(h2::Reason::REFUSED_STREAM) => break,
                    Err(error) if error.is_go_away() && error.is_remote() => break,
                    _ => lost += 1,
                }
            }
            (done, lost)
        });
    }
    sleep(Duration::from_secs(1)).await;
    let started = Instant::now();
    let code = scene.subject_mut().terminate(Duration::from_secs(20)).await;
    scene.at_most("ended", started.elapsed().as_secs_f64(), scene.patient(2.5), " s");
    scene.equal("exit", code, Some(0));
    let (mut all, mut failed) = (0, 0);
    while let Some(client) = calls.join_next().await {
        let (done, lost) = client?;
        (all, failed) = (all + done, failed + lost);
    }
    scene.at_most("lost", f64::from(failed), 0.0, &format!(" of {}", all + failed));
    Ok(())
}

/// Endpoints that are stopped and started in turn, a small soak.
pub(crate) async fn soak(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let others: [_; 2] = [scene.echo(None).await?.address(), scene.endpoint.address()];
    let third = scene.behind.spawn(Echo::start()).await?;
    let address = third.address();
    let endpoints = [others[0], others[1], address];
    let listener = "retry: { idempotent: true }";
    scene.begin(Setup { endpoints: &endpoints, listener, ..Setup::default() }).await?;
    sleep(Duration::from_secs(1)).await;
    let before = descriptors(scene.subject().pid);
    let slot = Arc::new(Mutex::new(Some(third)));
    let end = Instant::now() + scene.scaled(Duration::from_secs(60));
    while Instant::now() < end {
        // All its sockets close.
        drop(slot.lock().await.take());
        sleep(Duration::from_millis(700)).await;
        let start = Echo::start_at(address, None);
        *slot.lock().await = Some(scene.behind.spawn(start).await?);
        sleep(Duration::from_millis(1300)).await;
    }
    let grown = descriptors(scene.subject().pid) as f64 - before as f64;
    scene.at_most("descriptors +", grown, 8.0, "");
    scene.memory(4.0);
    Ok(())
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}
