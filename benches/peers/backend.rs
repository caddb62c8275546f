//! The backend behind every proxy: answers exports as a distributor does, or sends every message
//! of a stream back. Its own process, on the load's core.

mod server;

use std::net::Ipv4Addr;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinSet, LocalSet};

use crate::{
    part,
    pipe::{self, Scratch},
};
use server::Server;

/// Where a backend listens.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Ports {
    /// Answers each request with an empty success.
    pub(crate) unary: u16,
    /// Sends everything back.
    pub(crate) echo: u16,
}

/// Serves until standard input ends, which it does with the parent; prints its ports first.
pub(crate) fn serve() -> anyhow::Result<()> {
    let runtime = part::runtime()?;
    LocalSet::new().block_on(&runtime, async {
        // On each address of the loopback a proxy sees another endpoint.
        let every = Ipv4Addr::UNSPECIFIED;
        let [unary, echo] = [part::listen(every, 0)?, part::listen(Ipv4Addr::LOCALHOST, 0)?];
        let ports = Ports { unary: unary.local_addr()?.port(), echo: echo.local_addr()?.port() };
        part::report(&ports)?;
        part::end_with_parent();
        let scratch = Scratch::default();
        let mut tasks = JoinSet::new();
        loop {
            let (accepted, echoes) = tokio::select! {
                accepted = unary.accept() => (accepted, false),
                accepted = echo.accept() => (accepted, true),
                Some(_) = tasks.join_next() => continue,
            };
            let (socket, _) = accepted.context("accept")?;
            let scratch = scratch.clone();
            tasks.spawn_local(async move {
                // A client that goes away is no news: the proxies are stopped all the time.
                let _ = socket.set_nodelay(true);
                let _ = pipe::run(socket, &mut Server::new(echoes), &scratch).await;
            });
        }
    })
}
