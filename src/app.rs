//! The only wiring: sockets are bound, workers and tasks started, a changed configuration is taken
//! over, and in the end all is drained.

mod capacity;
mod certificates;
mod handover;
mod keys;
mod listening;
mod probed;
mod reload;
mod running;

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    path::PathBuf,
    pin::pin,
    sync::Arc,
};

use anyhow::{Context, bail};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{info, warn};

pub use self::certificates::Certificates;
pub use self::handover::Inherited;
use self::{
    reload::Reloader,
    running::{Drained, Running},
};
use crate::{
    admin::Admin,
    config::{self, Config},
    metrics::Metrics,
    net::handover::Taken,
    shutdown::Shutdown,
    worker::Worker,
};

/// A proxy whose sockets are bound.
#[derive(Debug)]
pub struct App {
    config: Config,
    certificates: Certificates,
    listeners: Vec<StdListener>,
    admin: StdListener,
    taken: Option<Taken>,
    /// Where the configuration is read again from.
    file: Option<PathBuf>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every stream came to its own end.
    Clean,
    /// The drain took too long, or was cut by a second signal; this many streams were open.
    Cut(usize),
}

impl App {
    /// Binds every listener and the admin server.
    ///
    /// # Errors
    /// What is wrong with the files of certificates and keys; every address that could not be bound,
    /// and the key that names it.
    pub fn bind(config: Config) -> anyhow::Result<Self> {
        Self::bind_beside(config, Inherited::default())
    }

    /// The same, but for the addresses whose sockets are there already.
    ///
    /// # Errors
    /// What is wrong with the files of certificates and keys; every address that could not be bound,
    /// and the key that names it.
    pub fn bind_beside(config: Config, mut inherited: Inherited) -> anyhow::Result<Self> {
        let certificates = Certificates::read(&config)?;
        let mut problems = Vec::new();
        let mut bind = |key: &str, address| {
            let bound = inherited.take(address).map_or_else(|| listening::bind(key, address), Ok);
            bound.map_err(|problem| problems.push(problem)).ok()
        };
        let listeners: Vec<_> = config
            .listeners
            .iter()
            .filter_map(|it| bind(&listening::key(it), it.address))
            .collect();
        match bind("admin.address", config.admin.address) {
            Some(admin) if problems.is_empty() => {
                let taken = inherited.into_taken();
                Ok(Self { config, certificates, listeners, admin, taken, file: None })
            }
            _ => bail!("{}", problems.join("\n")),
        }
    }

    /// Takes over what `file`, which the configuration was loaded from, says from now on: at
    /// SIGHUP, and when it changes.
    pub fn follow(self, file: PathBuf) -> Self {
        Self { file: Some(file), ..self }
    }

    /// The name and bound address of each listener.
    ///
    /// # Errors
    /// What the kernel says of a socket that is bound.
    pub fn addresses(&self) -> io::Result<Vec<(String, SocketAddr)>> {
        let listeners = self.config.listeners.iter().zip(&self.listeners);
        listeners.map(|(config, socket)| Ok((config.name.clone(), socket.local_addr()?))).collect()
    }

    /// The bound address of the admin server.
    ///
    /// # Errors
    /// What the kernel says of a socket that is bound.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Serves until `shutdown.drain` is cancelled, or another process serves on the same sockets, and
    /// then drains.
    ///
    /// # Errors
    /// Something that must run ended, or could not be started.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<Ending> {
        let Self { config, certificates, listeners, admin, taken, file } = self;
        let metrics = Metrics::new();
        let reloader = file.map(|file| Reloader::new(file, &config)).transpose();
        let reloader = reloader.context("cannot follow SIGHUP")?;
        let sockets = listeners.into_iter().map(TcpListener::from_std).map(|it| it.map(Arc::new));
        let sockets: Vec<_> =
            sockets.collect::<io::Result<_>>().context("cannot use a listening socket")?;
        let mut running =
            Running::start((config, certificates), sockets, &metrics, &shutdown, taken.is_some())
                .await?;
        let mut offering = JoinSet::new();
        let admin_too = admin.try_clone().context("cannot use a listening socket")?;
        offering.spawn(handover::offer(admin_too, taken, running.sockets()));
        let mut admin_task = JoinSet::new();
        let socket = TcpListener::from_std(admin).context("cannot use a listening socket")?;
        info!(address = %socket.local_addr()?, "admin listening");
        let admin = Admin { board: running.reader(), running: running.shown(), metrics };
        admin_task.spawn(admin.run(socket));

        let successor = tokio::select! {
            () = shutdown.drain.cancelled() => None,
            Some(visitor) = offering.join_next() => Some(visitor?),
            ended = running.run(reloader) => return Err(ended),
            ended = admin_task.join_next() => bail!("the admin server ended: {ended:?}"),
        };
        if let Some(visitor) = successor {
            // What is asked on these sockets from now on is the other's to answer, and what is still
            // connected here goes on to be told the truth.
            info!("another process serves: draining");
            admin_task.shutdown().await;
            shutdown.stop.cancel();
            visitor.leave().await;
        }
        offering.shutdown().await;
        let (config, drained) = running.drained();
        let ending = drain(&config, drained, &shutdown).await;
        // Probes and the board end, and admin last.
        running.end().await;
        admin_task.shutdown().await;
        ending
    }
}

async fn drain(
    config: &config::Drain,
    drained: Drained,
    shutdown: &Shutdown,
) -> anyhow::Result<Ending> {
    let Drained { listening, mut accepting, workers } = drained;
    if !shutdown.stop.is_cancelled() {
        info!(delay = ?config.delay, "NOT_SERVING; still accepting");
        tokio::select! {
            () = sleep(config.delay) => {}
            () = shutdown.stop.cancelled() => {}
        }
    }
    shutdown.stop.cancel();
    while accepting.join_next().await.is_some() {}
    drop(listening);
    info!(timeout = ?config.timeout, "not accepting; calls in flight may end");
    let workers = Arc::into_inner(workers).context("an accept loop outlived its end")?;
    let mut ending: FuturesUnordered<_> = workers.into_iter().map(Worker::ended).collect();
    let mut cut = 0;
    let all = async {
        while let Some(open) = ending.next().await {
            cut += open;
        }
    };
    let mut all = pin!(all);
    if timeout(config.timeout, &mut all).await.is_err() {
        shutdown.abort.cancel();
        all.await;
    }
    if cut > 0 {
        warn!(open = cut, "drain was cut");
        return Ok(Ending::Cut(cut));
    }
    info!("drained");
    Ok(Ending::Clean)
}
