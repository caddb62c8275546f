//! A worker: one thread that owns the connections handed to it, with all their streams.

mod entrance;
mod http1;
mod opened;
mod seats;

use std::{
    convert::Infallible,
    io,
    net::TcpStream as StdTcpStream,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tokio::{
    net::TcpStream,
    runtime,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::LocalSet,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

pub use self::entrance::{ENOUGH, OUTSIDE, Origin};
use self::{
    http1::Asker,
    opened::Opened,
    seats::{Seat, Seats},
};
use crate::{
    config::Limits,
    metrics::Metrics,
    relay::{Idle, Listener, Relay, Settings},
    shutdown::Shutdown,
    tls::Handshakes,
    watchdog::{BEAT, Heartbeat, Vitals},
};

/// A running worker. It ends by itself after `shutdown.stop`, when its last connection has ended,
/// or at `shutdown.abort`.
#[derive(Debug)]
pub struct Worker {
    orders: mpsc::UnboundedSender<Order>,
    load: Arc<AtomicUsize>,
    grants: Arc<Semaphore>,
    heartbeat: Arc<Heartbeat>,
    ended: oneshot::Receiver<usize>,
}

/// What a worker is told.
#[derive(Debug)]
enum Order {
    Serve(Socket, Grant),
    Reload(Arc<Settings>),
    /// Tell which connection is the first to make room, and end it where that is asked.
    Idle(Wanted, bool, oneshot::Sender<Option<Idle>>),
}

/// Which connections are to make room for others.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Their listener; none for those of any.
    pub listener: Option<Arc<Listener>>,
    /// Those beyond what it takes, or the others.
    pub reserved: bool,
}

/// A worker's grant to hand it one more connection, until it begins with that. There are few, so that a
/// burst of connections is begun with between calls, and not before them.
#[derive(Debug)]
pub struct Grant {
    _permit: OwnedSemaphorePermit,
}

/// A connection on its way to a worker.
#[derive(Debug)]
pub struct Socket {
    /// Non-blocking, on no runtime.
    pub stream: StdTcpStream,
    /// Where it was accepted.
    pub listener: Arc<Listener>,
    /// Its place among the listener's connections.
    pub permit: OwnedSemaphorePermit,
    /// It is beyond what the listener takes, and is answered health checks only.
    pub reserved: bool,
    /// Where it comes from.
    pub origin: Origin,
}

impl Worker {
    /// Starts a thread. Of `limits` it takes what concerns endpoints.
    ///
    /// # Errors
    /// The system grants no thread, or no event queue for it.
    pub fn start(
        number: usize,
        limits: &Limits,
        metrics: &Metrics,
        shutdown: &Shutdown,
        vitals: &Vitals,
    ) -> io::Result<Self> {
        let (orders, queue) = mpsc::unbounded_channel();
        let (done, ended) = oneshot::channel();
        let (limits, metrics, abort) = (*limits, metrics.clone(), shutdown.abort.clone());
        let load = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&load);
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let name = format!("worker-{number}");
        let heartbeat = Arc::new(Heartbeat::new(&name));
        let (heart, vitals) = (Arc::clone(&heartbeat), vitals.clone());
        thread::Builder::new().name(name).spawn(move || {
            let serve = async {
                let relay = Relay::new(&limits, &metrics);
                tokio::select! {
                    cut = run(queue, counted, relay, abort) => cut,
                    never = beat(&heart, &vitals) => match never {},
                }
            };
            let cut = LocalSet::new().block_on(&runtime, serve);
            heart.end();
            // Nobody waits for it where the application has given up already.
            _ = done.send(cut);
        })?;
        let grants = Arc::new(Semaphore::new(GRANTS));
        Ok(Self { orders, load, grants, heartbeat, ended })
    }

    /// Open connections.
    pub fn load(&self) -> usize {
        self.load.load(Relaxed)
    }

    /// Says that its thread runs.
    pub fn heartbeat(&self) -> &Arc<Heartbeat> {
        &self.heartbeat
    }

    /// Leave to hand it one more connection, where it has begun with nearly all that it was handed.
    pub fn try_grant(&self) -> Option<Grant> {
        Arc::clone(&self.grants).try_acquire_owned().ok().map(|it| Grant { _permit: it })
    }

    /// Waits for that.
    pub async fn grant(&self) -> Grant {
        let permit = Arc::clone(&self.grants).acquire_owned().await;
        Grant { _permit: permit.expect("it is never closed") }
    }

    /// Hands a connection over. A worker that has ended drops it, which closes it.
    pub fn hand(&self, socket: Socket, grant: Grant) {
        self.load.fetch_add(1, Relaxed);
        _ = self.orders.send(Order::Serve(socket, grant));
    }

    /// Has new calls go by other settings, on open connections too. Sockets that are handed over
    /// later are of listeners among these.
    pub fn reload(&self, settings: &Arc<Settings>) {
        _ = self.orders.send(Order::Reload(Arc::clone(settings)));
    }

    /// The connection that is the first to make room for another, which is ended where `end` says
    /// so. None where there is none, or where the worker does not say so in time.
    pub async fn longest_idle(&self, wanted: &Wanted, end: bool) -> Option<Idle> {
        let (reply, told) = oneshot::channel();
        let wanted = wanted.clone();
        self.orders.send(Order::Idle(wanted, end, reply)).ok()?;
        timeout(PATIENCE, told).await.ok()?.ok()?
    }

    /// Waits for the end; says how many streams were cut by it.
    pub async fn ended(self) -> usize {
        drop(self.orders);
        self.ended.await.unwrap_or(1)
    }
}

/// Says that the thread runs, and has those who follow health on it hear of trouble elsewhere.
async fn beat(heartbeat: &Heartbeat, vitals: &Vitals) -> Infallible {
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        heartbeat.beat();
        vitals.trouble();
    }
}

async fn run(
    mut queue: mpsc::UnboundedReceiver<Order>,
    load: Arc<AtomicUsize>,
    relay: Relay,
    abort: CancellationToken,
) -> usize {
    let connections = TaskTracker::new();
    let handshakes = Rc::<Handshakes>::default();
    let seats = Rc::<Seats>::default();
    while let Some(order) = tokio::select! {
        // Orders first: what was accepted before the stop is served.
        biased;
        order = queue.recv() => order,
        () = abort.cancelled() => None,
    } {
        let (socket, grant) = match order {
            Order::Serve(socket, grant) => (socket, grant),
            Order::Reload(settings) => {
                relay.reload(settings);
                continue;
            }
            Order::Idle(wanted, end, reply) => {
                // It may have been given up.
                _ = reply.send(longest_idle(&seats, &relay, &wanted, end));
                continue;
            }
        };
        let (relay, handshakes) = (relay.clone(), Rc::clone(&handshakes));
        let seat = seats.take(&socket);
        let load = Counted(Arc::clone(&load));
        connections.spawn_local(async move {
            drop(grant);
            serve(socket, seat, relay, &handshakes).await;
            drop(load);
        });
    }
    connections.close();
    tokio::select! {
        biased;
        () = connections.wait() => {}
        () = abort.cancelled() => {}
    }
    // A connection without streams loses nothing.
    relay.calls()
}

/// The first connection of all that make room, whatever it speaks.
fn longest_idle(seats: &Seats, relay: &Relay, wanted: &Wanted, end: bool) -> Option<Idle> {
    let Wanted { listener, reserved } = wanted;
    let listener = listener.as_deref();
    let seat = seats.longest_idle(listener, *reserved);
    let link = relay.longest_idle(listener, *reserved, false);
    match (seat, link) {
        (Some((idle, seat)), link) if link.is_none_or(|link| idle <= link) => {
            if end {
                seat.notify_one();
            }
            Some(idle)
        }
        _ if end => relay.longest_idle(listener, *reserved, true),
        (_, link) => link,
    }
}

/// Tells what a connection speaks, and serves it until its end.
async fn serve(socket: Socket, seat: Seat, relay: Relay, handshakes: &Handshakes) {
    let Socket { stream, listener, permit, reserved, origin } = socket;
    let sender = origin.sender();
    let labels = listener.labels();
    let metrics = listener.metrics();
    metrics.connections_accepted.get_or_create(&labels).inc();
    let open = metrics.connections.get_or_create(&labels);
    open.inc();
    // Fails only where the event queue takes no more descriptors; the socket is closed then.
    if let Ok(stream) = TcpStream::from_std(stream) {
        let until = Instant::now() + listener.limits().handshake_timeout;
        // In boxes of their own, which end with them: a task has room for the largest of what it awaits
        // for as long as it lives, and most connections are HTTP/2 and idle.
        let begun = Box::pin(async {
            let mut stream = stream;
            let mut entered = origin.enter(&mut stream, &listener).await?;
            let opened = Opened::of(stream, &mut entered, &listener, handshakes, until).await?;
            io::Result::Ok((entered, opened))
        });
        let opened = tokio::select! {
            opened = timeout_at(until, begun) => Some(opened),
            () = seat.wanted(sender) => None,
        };
        match opened {
            Some(Ok(Ok((entered, opened)))) => {
                let client = entered.client;
                match opened {
                    Opened::Http2 { socket, session, first } => {
                        drop(seat);
                        let client = (client, reserved);
                        relay.serve(socket, session, &first, listener, client).await;
                    }
                    Opened::Http1(stream) => {
                        let client = client.ip();
                        let asker = Asker { client, secured: false, certificate: None };
                        Box::pin(http1::serve(stream, listener, asker, &relay, &seat)).await;
                    }
                    Opened::Http1OverTls { stream, certificate } => {
                        let asker = Asker { client: client.ip(), secured: true, certificate };
                        Box::pin(http1::serve(stream, listener, asker, &relay, &seat)).await;
                    }
                }
                drop(entered.place);
            }
            Some(Ok(Err(error))) => {
                debug!(client = %sender, %error, "closed before its first bytes")
            }
            Some(Err(_)) => {
                listener.refusals().refused(sender, "handshake_timeout", "no first bytes in time");
            }
            None => debug!(client = %sender, "closed to make room"),
        }
    }
    open.dec();
    drop(permit);
}

/// Counts a connection out when it is dropped; it was counted in when it was handed over.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Connections that a worker was handed and has not begun with, at most.
const GRANTS: usize = 16;
/// How long a worker has to say which connections are idle: as long as it counts as one that runs.
/// A client is not turned away for a moment's delay.
const PATIENCE: Duration = Duration::from_secs(2);
