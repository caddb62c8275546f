//! A worker: one thread that owns the connections handed to it, with all their streams.

mod entrance;
mod http1;
mod opened;

use std::{
    io,
    net::TcpStream as StdTcpStream,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use tokio::{
    net::TcpStream,
    runtime,
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    task::LocalSet,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

pub use self::entrance::{ENOUGH, OUTSIDE, Origin};
use self::{http1::Asker, opened::Opened};
use crate::{
    config::Limits,
    metrics::Metrics,
    relay::{Listener, Relay, Settings},
    shutdown::Shutdown,
    tls::Handshakes,
};

/// A running worker. It ends by itself after `shutdown.stop`, when its last connection has ended,
/// or at `shutdown.abort`.
#[derive(Debug)]
pub struct Worker {
    orders: mpsc::UnboundedSender<Order>,
    load: Arc<AtomicUsize>,
    ended: oneshot::Receiver<usize>,
}

/// What a worker is told.
#[derive(Debug)]
enum Order {
    Serve(Socket),
    Reload(Arc<Settings>),
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
    ) -> io::Result<Self> {
        let (orders, queue) = mpsc::unbounded_channel();
        let (done, ended) = oneshot::channel();
        let (limits, metrics, abort) = (*limits, metrics.clone(), shutdown.abort.clone());
        let load = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&load);
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            let serve = async {
                let relay = Relay::new(&limits, &metrics);
                run(queue, counted, relay, abort).await
            };
            let cut = LocalSet::new().block_on(&runtime, serve);
            // Nobody waits for it where the application has given up already.
            _ = done.send(cut);
        })?;
        Ok(Self { orders, load, ended })
    }

    /// Open connections.
    pub fn load(&self) -> usize {
        self.load.load(Relaxed)
    }

    /// Hands a connection over. A worker that has ended drops it, which closes it.
    pub fn hand(&self, socket: Socket) {
        self.load.fetch_add(1, Relaxed);
        _ = self.orders.send(Order::Serve(socket));
    }

    /// Has new calls go by other settings, on open connections too. Sockets that are handed over
    /// later are of listeners among these.
    pub fn reload(&self, settings: &Arc<Settings>) {
        _ = self.orders.send(Order::Reload(Arc::clone(settings)));
    }

    /// Waits for the end; says how many streams were cut by it.
    pub async fn ended(self) -> usize {
        drop(self.orders);
        self.ended.await.unwrap_or(1)
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
    while let Some(order) = tokio::select! {
        // Orders first: what was accepted before the stop is served.
        biased;
        order = queue.recv() => order,
        () = abort.cancelled() => None,
    } {
        let socket = match order {
            Order::Serve(socket) => socket,
            Order::Reload(settings) => {
                relay.reload(settings);
                continue;
            }
        };
        let (relay, handshakes) = (relay.clone(), Rc::clone(&handshakes));
        let load = Counted(Arc::clone(&load));
        connections.spawn_local(async move {
            serve(socket, relay, &handshakes).await;
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

/// Tells what a connection speaks, and serves it until its end.
async fn serve(socket: Socket, relay: Relay, handshakes: &Handshakes) {
    let Socket { stream, listener, permit, origin } = socket;
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
        match timeout_at(until, begun).await {
            Ok(Ok((entered, opened))) => {
                let client = entered.client;
                match opened {
                    Opened::Http2 { socket, session, first } => {
                        relay.serve(socket, session, &first, listener, client).await;
                    }
                    Opened::Http1(stream) => {
                        let client = client.ip();
                        let asker = Asker { client, secured: false, certificate: None };
                        Box::pin(http1::serve(stream, listener, asker, &relay)).await;
                    }
                    Opened::Http1OverTls { stream, certificate } => {
                        let asker = Asker { client: client.ip(), secured: true, certificate };
                        Box::pin(http1::serve(stream, listener, asker, &relay)).await;
                    }
                }
                drop(entered.place);
            }
            Ok(Err(error)) => debug!(client = %sender, %error, "closed before its first bytes"),
            Err(_) => debug!(client = %sender, "no first bytes in time"),
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
