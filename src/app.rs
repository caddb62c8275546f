//! The only wiring: sockets are bound, workers and tasks started, and in the end all is drained.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    pin::pin,
    sync::Arc,
};

use anyhow::{Context, bail};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    admin::Admin,
    answer::Answers,
    config::{self, Cap, Config},
    discovery,
    health::Board,
    metrics::Metrics,
    net::{self, Addresses},
    probe,
    relay::Listener,
    shutdown::Shutdown,
    upstream::{Changes, Upstream},
    worker::{Socket, Worker},
};

/// A proxy whose sockets are bound.
#[derive(Debug)]
pub struct App {
    config: Config,
    listeners: Vec<StdListener>,
    admin: StdListener,
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
    /// Every address that could not be bound, and the key that names it.
    pub fn bind(config: Config) -> anyhow::Result<Self> {
        let mut problems = Vec::new();
        let mut bind = |key: String, address| match net::listen(address) {
            Ok(listener) => Some(listener),
            Err(error) => {
                let hint = match error.kind() {
                    io::ErrorKind::AddrInUse => "another process has this port; stop it, or change",
                    _ => "change",
                };
                problems
                    .push(format!("cannot listen on {address}: {}: {hint} {key}", error.kind()));
                None
            }
        };
        let listeners: Vec<_> = config
            .listeners
            .iter()
            .filter_map(|it| bind(format!("the address of listener {:?}", it.name), it.address))
            .collect();
        match bind("admin.address".to_owned(), config.admin.address) {
            Some(admin) if problems.is_empty() => Ok(Self { config, listeners, admin }),
            _ => bail!("{}", problems.join("\n")),
        }
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

    /// Serves until `shutdown.drain` is cancelled, and then drains.
    ///
    /// # Errors
    /// Something that must run ended, or could not be started.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<Ending> {
        let Self { config, listeners, admin } = self;
        let metrics = Metrics::new();
        let changes = Changes::default();
        let upstreams: Arc<[_]> = config
            .upstreams
            .iter()
            .map(|upstream| Arc::new(Upstream::new(upstream, &changes, &metrics)))
            .collect();
        let board = Board::new(&config.health, &upstreams, &metrics);
        let (reader, views) = (board.subscribe(), board.views());

        let workers = (0..config.workers.count())
            .map(|number| Worker::start(number, &config.limits, &metrics, &shutdown))
            .collect::<Result<Vec<_>, _>>()
            .context("cannot start a worker")?;
        let workers = Arc::new(workers);

        let mut accepting = JoinSet::new();
        let mut answering = Vec::new();
        for (config_of, socket) in config.listeners.iter().zip(listeners) {
            let answers =
                Answers::new(reader.clone(), config_of.not_serving_as, config.health.details)
                    .with_agents(&config_of.not_serving_as_for);
            answering.push((config_of.name.clone(), answers.clone()));
            let listener = Listener::new(config_of, &config.health, &upstreams, answers, &metrics);
            let socket = TcpListener::from_std(socket).context("cannot use a listening socket")?;
            info!(listener = config_of.name, address = %socket.local_addr()?, "listening");
            let stop = shutdown.stop.clone();
            accepting.spawn(accept(socket, listener, Arc::clone(&workers), stop));
        }

        let mut control = JoinSet::new();
        for (upstream, config) in upstreams.iter().zip(&config.upstreams) {
            let probe = config.probe.clone();
            control.spawn(probe::supervise(Arc::clone(upstream), probe, metrics.clone()));
            if let Some(config) = config.discovery.clone() {
                control.spawn(discovery::follow(Arc::clone(upstream), config, metrics.clone()));
            }
        }
        control.spawn(board.run(changes, shutdown.drain.clone()));
        let mut admin_task = JoinSet::new();
        let socket = TcpListener::from_std(admin).context("cannot use a listening socket")?;
        info!(address = %socket.local_addr()?, "admin listening");
        let listeners = answering.into();
        let admin = Admin { board: reader, views, upstreams, listeners, metrics };
        admin_task.spawn(admin.run(socket));

        tokio::select! {
            () = shutdown.drain.cancelled() => {}
            ended = accepting.join_next() => bail!("a listener ended: {ended:?}"),
            ended = control.join_next() => bail!("a task ended: {ended:?}"),
            ended = admin_task.join_next() => bail!("the admin server ended: {ended:?}"),
        }
        let ending = drain(&config.drain, accepting, workers, &shutdown).await;
        // Probes and the board end, and admin last.
        control.shutdown().await;
        admin_task.shutdown().await;
        ending
    }
}

/// Accepts one listener's connections and hands each to the worker that has the fewest. Those of
/// an address that has enough are closed at once.
async fn accept(
    socket: TcpListener,
    listener: Listener,
    workers: Arc<Vec<Worker>>,
    stop: CancellationToken,
) {
    let listener = Arc::new(listener);
    let limits = listener.limits();
    let permits = Arc::new(Semaphore::new(limits.max_connections as usize));
    let addresses = match limits.max_connections_per_address {
        Cap::Count(most) => Some(Addresses::new(most)),
        Cap::Unlimited => None,
    };
    let refused = listener.metrics().connections_refused.get_or_create(&listener.labels()).clone();
    net::accept(&socket, &permits, &stop, |stream, client, permit| {
        let place = addresses.as_ref().map(|addresses| addresses.take(client));
        if matches!(place, Some(None)) {
            refused.inc();
            return;
        }
        let least = workers.iter().min_by_key(|worker| worker.load());
        let worker = least.expect("a configuration has at least one worker");
        match stream.into_std() {
            Ok(stream) => {
                let listener = Arc::clone(&listener);
                worker.hand(Socket { stream, listener, permit, place: place.flatten() });
            }
            Err(error) => error!(%error, "cannot hand a connection over"),
        }
    })
    .await;
}

async fn drain(
    config: &config::Drain,
    mut accepting: JoinSet<()>,
    workers: Arc<Vec<Worker>>,
    shutdown: &Shutdown,
) -> anyhow::Result<Ending> {
    info!(delay = ?config.delay, "NOT_SERVING; still accepting");
    tokio::select! {
        () = sleep(config.delay) => {}
        () = shutdown.stop.cancelled() => {}
    }
    shutdown.stop.cancel();
    while accepting.join_next().await.is_some() {}
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
