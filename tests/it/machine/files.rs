//! A process that may open few files.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, prlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{config, process::Process, told_by_all};
use crate::{
    fixture::{
        caller::{Call, Caller},
        echo::Echo,
        eventually,
    },
    truth::Dialects,
};

/// Opens a connection, and keeps it busy with a call that has no end; none where it is not taken.
async fn busy(address: SocketAddr) -> Option<(Caller, Call)> {
    let opened = async {
        let stream = TcpStream::connect(address).await.ok()?;
        let mut caller = Caller::over(stream, address).await.ok()?;
        let mut call = caller.open("/test.Echo/Stream").await.ok()?;
        call.request.send_data(vec![0; 5].into(), false).ok()?;
        Some((caller, call))
    };
    timeout(Duration::from_secs(1), opened).await.ok()?
}

/// Whether a new connection is taken, and told SERVING.
async fn serves(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    let mut reply = Vec::new();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.is_ok()
        && stream.read_to_end(&mut reply).await.is_ok()
        && reply.starts_with(b"HTTP/1.1 200")
}

/// Comes again and again, for so long.
async fn flood(address: SocketAddr, time: Duration) -> Vec<Option<(Caller, Call)>> {
    let end = Instant::now() + time;
    let mut open = Vec::new();
    while Instant::now() < end && open.len() < 60 {
        open.push(busy(address).await);
        sleep(Duration::from_millis(20)).await;
    }
    sleep(end.saturating_duration_since(Instant::now())).await;
    open
}

#[tokio::test]
async fn a_flood_of_busy_connections_leaves_descriptors_to_health() {
    let echo = Echo::start().await;
    for most in [64, 256] {
        let name = format!("files_{most}");
        let process = Process::start(&name, &config(echo.address(), "")).await;
        told_by_all(&process, true).await;
        let address = process.address("otlp");
        let mut kept = Dialects::at(address).await;
        assert!(kept.check().await);
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        prlimit(Some(process.pid()), Resource::Nofile, limit).unwrap();

        let mut floods = JoinSet::new();
        (0..6).for_each(|_| _ = floods.spawn(flood(address, Duration::from_secs(5))));
        // For longer than what was probed before holds.
        let end = Instant::now() + Duration::from_secs(4);
        while Instant::now() < end {
            assert!(kept.check().await, "{most} files");
            assert!(process.is_ready().await, "{most} files");
            sleep(Duration::from_millis(50)).await;
        }
        let held: Vec<_> = floods.join_all().await.into_iter().flatten().flatten().collect();
        assert!(held.len() as u64 > most / 8, "{} held of {most}", held.len());
        drop(held);

        let begun = Instant::now();
        eventually("well again", async || {
            join_all((0..20).map(|_| serves(address))).await.iter().all(|serves| *serves)
        })
        .await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        process.stop().await;
    }
}
