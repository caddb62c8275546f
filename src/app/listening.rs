//! A listener's socket, and the loop that accepts on it for as long as it is configured.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdListener},
    sync::Arc,
};

use anyhow::Context;
use futures_util::future::select_all;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::capacity::Capacity;
use crate::{
    config::{self, Cap, ProxyProtocol},
    net::{self, Addresses},
    relay::Listener,
    worker::{ENOUGH, Grant, OUTSIDE, Origin, Socket, Worker},
};

/// A listener whose connections are accepted.
#[derive(Debug)]
pub(super) struct Listening {
    name: String,
    /// As it is configured: its port may be 0.
    address: SocketAddr,
    socket: Arc<TcpListener>,
    listener: watch::Sender<Arc<Listener>>,
    stop: CancellationToken,
}

impl Listening {
    /// Begins to accept. The task is true where it ended since `listener` is to stop.
    ///
    /// # Errors
    /// What the kernel says of a socket that is bound.
    pub(super) fn start(
        config: &config::Listener,
        socket: Arc<TcpListener>,
        listener: Arc<Listener>,
        workers: &Arc<Vec<Worker>>,
        accepting: &mut JoinSet<bool>,
    ) -> anyhow::Result<Self> {
        let bound = socket.local_addr().context("cannot use a listening socket")?;
        info!(listener = config.name, address = %bound, "listening");
        let stop = listener.stop().clone();
        let (listener, follow) = watch::channel(listener);
        accepting.spawn(accept(Arc::clone(&socket), follow, Arc::clone(workers), stop.clone()));
        Ok(Self { name: config.name.clone(), address: config.address, socket, listener, stop })
    }

    /// Whether it is this listener on this socket.
    pub(super) fn is(&self, config: &config::Listener, socket: &Arc<TcpListener>) -> bool {
        self.name == config.name && Arc::ptr_eq(&self.socket, socket)
    }

    /// Its name and its socket.
    pub(super) fn socket(&self) -> (String, Arc<TcpListener>) {
        (self.name.clone(), Arc::clone(&self.socket))
    }

    /// What connections that are accepted now belong to.
    pub(super) fn listener(&self) -> Arc<Listener> {
        Arc::clone(&self.listener.borrow())
    }

    /// Has connections that are accepted from now on belong to `listener`.
    pub(super) fn replace(&self, listener: Arc<Listener>) {
        self.listener.send_replace(listener);
    }

    /// When it stops.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Accepts no more, and asks what was accepted to end.
    pub(super) fn end(self) {
        info!(listener = self.name, address = %self.address, "not listening any more");
        self.stop.cancel();
    }
}

/// Binds a listener's address.
///
/// # Errors
/// What to do where it cannot be bound.
pub(super) fn bind(key: &str, address: SocketAddr) -> Result<StdListener, String> {
    net::listen(address).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "another process has this port; stop it, or change",
            _ => "change",
        };
        format!("cannot listen on {address}: {}: {hint} {key}", error.kind())
    })
}

/// The key of a listener's address, in words.
pub(super) fn key(config: &config::Listener) -> String {
    format!("the address of listener {:?}", config.name)
}

/// A socket for each listener: the one that is bound to its address already, under whatever name,
/// or else a new one.
///
/// # Errors
/// Every address that cannot be bound.
pub(super) fn sockets(
    listeners: &[config::Listener],
    bound: &[Listening],
) -> Result<Vec<Arc<TcpListener>>, Vec<String>> {
    let mut problems = Vec::new();
    let mut sockets = Vec::new();
    for config in listeners {
        let at = |it: &&Listening| it.address == config.address;
        // Port 0 is another one each time, but stays what it became.
        let mine = |it: &&Listening| it.name == config.name || config.address.port() != 0;
        if let Some(bound) = bound.iter().find(|it| at(it) && mine(it)) {
            sockets.push(Arc::clone(&bound.socket));
            continue;
        }
        let new = bind(&key(config), config.address);
        match new.and_then(|it| TcpListener::from_std(it).map_err(|error| error.to_string())) {
            Ok(socket) => sockets.push(Arc::new(socket)),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(sockets) } else { Err(problems) }
}

/// Accepts one listener's connections until it is to stop; true then. How many it may have is as
/// the listener says at the time.
async fn accept(
    socket: Arc<TcpListener>,
    listener: watch::Receiver<Arc<Listener>>,
    workers: Arc<Vec<Worker>>,
    stop: CancellationToken,
) -> bool {
    let mut capacity = Capacity::new(listener.borrow().limits());
    let mut places: Option<Addresses> = None;
    let following = capacity.follow(listener.clone());
    let accepting = async {
        let mut incoming = net::Incoming::of(&socket);
        loop {
            let accepted = incoming.next(&stop).await;
            let listener = Arc::clone(&listener.borrow());
            let (stream, client) = match accepted {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return,
                Err(error) => {
                    let left = capacity.cap(&listener, &workers).await;
                    incoming.pause(&error, left).await;
                    continue;
                }
            };
            if let Some(error) = net::scarcity(&stream) {
                let left = capacity.cap(&listener, &workers).await;
                incoming.pause(&error, left).await;
                if !left {
                    continue;
                }
            }
            let Some(origin) = origin(&mut places, &listener, client) else { continue };
            match capacity.take(&listener, &workers).await {
                Some((permit, reserved)) => {
                    let worker = next(&workers).await;
                    hand(worker, stream, listener, (permit, reserved), origin);
                }
                None => listener.refusals().refused(client, "max_connections", FULL),
            }
        }
    };
    tokio::select! {
        // Permits that are to be taken away are asked for before the next connection's.
        biased;
        () = following => {}
        () = accepting => {}
    }
    stop.is_cancelled()
}

/// Where a connection comes from; none where it is not taken, which is counted. Of one whose sender
/// tells for whom it is, nothing can be said before that was read.
fn origin(places: &mut Option<Addresses>, listener: &Listener, client: IpAddr) -> Option<Origin> {
    // Another bound counts those on that are there.
    *places = match (listener.limits().max_connections_per_address, places.take()) {
        (Cap::Unlimited, _) => None,
        (Cap::Count(most), Some(places)) => Some(places.with_most(most)),
        (Cap::Count(most), None) => Some(Addresses::new(most)),
    };
    let access = listener.access();
    if access.is_told_by(client) {
        return Some(Origin::Balancer { sender: client, places: places.clone() });
    }
    if !access.allows(client) {
        listener.refusals().refused(client, "address", OUTSIDE);
        return None;
    }
    if access.proxy_protocol == ProxyProtocol::Required {
        listener.refusals().refused(
            client,
            "proxy_protocol",
            "not a balancer of proxy_protocol_from",
        );
        return None;
    }
    let place = places.as_ref().map(|places| places.take(client));
    if let Some(None) = place {
        listener.refusals().refused(client, "per_address", ENOUGH);
        return None;
    }
    Some(Origin::Client { client, place: place.flatten() })
}

/// The worker for one more connection, and its grant: that of the fewest connections, among those
/// that run and take one now; where none does, the first that does again.
async fn next(workers: &[Worker]) -> (&Worker, Grant) {
    let mut running: Vec<_> = workers.iter().filter(|it| !it.heartbeat().is_silent()).collect();
    if running.is_empty() {
        running.extend(workers);
    }
    running.sort_by_cached_key(|worker| worker.load());
    if let Some(free) = running.iter().find_map(|it| Some((*it, it.try_grant()?))) {
        return free;
    }
    let grant = async |worker: &Worker| worker.grant().await;
    let (grant, first, _) = select_all(running.iter().map(|it| Box::pin(grant(it)))).await;
    (running[first], grant)
}

/// Hands a connection to a worker.
fn hand(
    (worker, grant): (&Worker, Grant),
    stream: TcpStream,
    listener: Arc<Listener>,
    (permit, reserved): (OwnedSemaphorePermit, bool),
    origin: Origin,
) {
    let limits = listener.limits();
    let (interval, timeout) = (limits.client_ping_interval, limits.client_ping_timeout);
    net::keep_alive(&stream, interval, timeout, limits.send_timeout);
    match stream.into_std() {
        Ok(stream) => worker.hand(Socket { stream, listener, permit, reserved, origin }, grant),
        Err(error) => error!(%error, "cannot hand a connection over"),
    }
}

/// Why a connection is not taken.
const FULL: &str = "all connections are busy, and so are all reserved_connections";
