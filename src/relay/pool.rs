//! A worker's connections to endpoints: shared by its calls, grown with them, renewed when lost.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};
use tokio::{
    net::TcpStream,
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::transport::{Fault, Receiver, Sender};
use crate::{
    metrics::{EndpointLabels, Metrics},
    upstream::{Endpoint, Upstream},
};

/// The lanes of one worker, one for each endpoint. Clones share them.
#[derive(Debug, Clone)]
pub struct Pool(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    lanes: RefCell<HashMap<SocketAddr, Rc<Lane>>>,
    tasks: TaskTracker,
    max_header_list_size: u32,
    metrics: Metrics,
}

/// The connections to one endpoint, and the state of the attempts to make another.
#[derive(Debug)]
struct Lane {
    endpoint: Arc<Endpoint>,
    connect_timeout: Duration,
    connections: RefCell<Vec<Rc<Connection>>>,
    dialing: Cell<bool>,
    /// Why the last attempt failed, while the next one is put off.
    failure: RefCell<Option<Rc<str>>>,
    /// Woken when an attempt ended either way.
    attempted: Notify,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Bytes>,
    calls: Cell<usize>,
    retire: Instant,
}

/// Moves a connection's bytes while it is polled.
type Driver = h2::client::Connection<TcpStream, Bytes>;

/// A place on a connection, kept until the call has ended.
#[derive(Debug)]
pub(super) struct Lease {
    sender: SendRequest<Bytes>,
    connection: Rc<Connection>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.connection.calls.set(self.connection.calls.get() - 1);
    }
}

impl Lease {
    /// Opens a stream. With `end` the head is all there is.
    ///
    /// # Errors
    /// The connection went away before anything was sent.
    pub(super) fn send(
        &mut self,
        head: Request<()>,
        end: bool,
    ) -> Result<(Sender, Pending), Fault> {
        let (response, stream) = self.sender.send_request(head, end)?;
        Ok((Sender::new(stream), Pending(response)))
    }
}

/// A response that is on its way.
pub(super) struct Pending(h2::client::ResponseFuture);

impl Pending {
    /// The response's head, and what follows it.
    pub(super) async fn response(self) -> Result<(Response<()>, Receiver), Fault> {
        let (head, body) = self.0.await?.into_parts();
        Ok((Response::from_parts(head, ()), Receiver::new(body)))
    }
}

impl Pool {
    /// A pool without connections. `max_header_list_size` is for what backends send, in bytes.
    pub fn new(max_header_list_size: u32, metrics: &Metrics) -> Self {
        Self(Rc::new(Shared {
            lanes: RefCell::default(),
            tasks: TaskTracker::new(),
            max_header_list_size,
            metrics: metrics.clone(),
        }))
    }

    /// Whether a call to `endpoint` has a chance: false after a failed attempt to connect, until
    /// the next one succeeds.
    pub(super) fn is_usable(&self, endpoint: &Endpoint) -> bool {
        let lanes = self.0.lanes.borrow();
        lanes.get(&endpoint.address()).is_none_or(|lane| lane.failure.borrow().is_none())
    }

    /// A place on a connection to `endpoint`, the one with the fewest calls. Where there is none
    /// yet it waits for one attempt to connect; where the last attempt failed it says so at once.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(super) async fn lease(
        &self,
        upstream: &Upstream,
        endpoint: &Arc<Endpoint>,
    ) -> Result<Lease, Rc<str>> {
        let lane = self.lane(upstream, endpoint);
        loop {
            let attempted = lane.attempted.notified();
            let best = lane.best();
            if best.as_ref().is_none_or(|best| best.is_busy()) && lane.may_grow() {
                self.dial(&lane, upstream.name());
            }
            // What is full queues calls; rather than that, wait for the connection on its way.
            let room = best.filter(|best| !best.is_full() || !lane.is_growing());
            if let Some(connection) = room {
                connection.calls.set(connection.calls.get() + 1);
                let mut lease = Lease { sender: connection.sender.clone(), connection };
                match poll_fn(|cx| lease.sender.poll_ready(cx)).await {
                    Ok(()) => return Ok(lease),
                    // Told to go away, or lost, since its last use.
                    Err(_) => lane.forget(&Rc::downgrade(&lease.connection)),
                }
                continue;
            }
            if let Some(failure) = lane.failure.borrow().clone() {
                return Err(failure);
            }
            attempted.await;
        }
    }

    fn lane(&self, upstream: &Upstream, endpoint: &Arc<Endpoint>) -> Rc<Lane> {
        let mut lanes = self.0.lanes.borrow_mut();
        let lane = lanes.entry(endpoint.address()).or_insert_with(|| {
            Rc::new(Lane {
                endpoint: Arc::clone(endpoint),
                connect_timeout: upstream.connect_timeout(),
                connections: RefCell::default(),
                dialing: Cell::new(false),
                failure: RefCell::default(),
                attempted: Notify::new(),
            })
        });
        Rc::clone(lane)
    }

    /// Makes a connection in the background, trying again with growing pauses for as long as the
    /// endpoint is called healthy.
    fn dial(&self, lane: &Rc<Lane>, upstream: &Arc<str>) {
        if lane.dialing.replace(true) {
            return;
        }
        let labels = EndpointLabels {
            upstream: (&**upstream).into(),
            endpoint: lane.endpoint.address().to_string().as_str().into(),
        };
        let (pool, lane, upstream) = (self.clone(), Rc::clone(lane), Arc::clone(upstream));
        self.0.tasks.spawn_local(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let attempt = timeout(lane.connect_timeout, pool.connect(&lane)).await;
                let failure = match attempt {
                    Ok(Ok((sender, driver))) => {
                        lane.dialing.set(false);
                        pool.drive(&lane, sender, driver, labels, upstream);
                        return;
                    }
                    Ok(Err(fault)) => fault,
                    Err(_) => format!("no answer within {:?}", lane.connect_timeout),
                };
                debug!(endpoint = %lane.endpoint.address(), failure, "cannot connect");
                pool.0.metrics.upstream_connect_failures.get_or_create(&labels).inc();
                let failure = format!("cannot connect to {}: {failure}", lane.endpoint.address());
                lane.failure.replace(Some(failure.into()));
                lane.attempted.notify_waiters();
                sleep(pause.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
                pause = LAST_PAUSE.min(pause * 2);
                if !lane.endpoint.is_healthy() {
                    lane.failure.take();
                    lane.dialing.set(false);
                    return;
                }
            }
        });
    }

    /// Connects, and waits for the peer's SETTINGS, which tell how many streams it takes.
    async fn connect(&self, lane: &Lane) -> Result<(SendRequest<Bytes>, Driver), String> {
        let stream = TcpStream::connect(lane.endpoint.address())
            .await
            .map_err(|error| error.kind().to_string())?;
        // Fails only for a socket that the peer has closed already, which the handshake sees.
        _ = stream.set_nodelay(true);
        let (sender, mut driver) = h2::client::Builder::new()
            .enable_push(false)
            .initial_max_send_streams(0)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(self.0.max_header_list_size)
            .max_send_buffer_size(STREAM_WINDOW as usize)
            // Cancelled calls are the rule here, not an attack by the backend: their count over a
            // connection's life must not end it.
            .max_local_error_reset_streams(None)
            .max_concurrent_reset_streams(1000)
            .reset_stream_duration(Duration::from_secs(5))
            .handshake(stream)
            .await
            .map_err(|error| error.to_string())?;
        poll_fn(|cx| match Pin::new(&mut driver).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err("closed before its SETTINGS".to_owned())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.to_string())),
            Poll::Pending if sender.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        Ok((sender, driver))
    }

    /// Offers a new connection to calls, and moves its bytes until it is over.
    fn drive(
        &self,
        lane: &Rc<Lane>,
        sender: SendRequest<Bytes>,
        driver: Driver,
        labels: EndpointLabels,
        upstream: Arc<str>,
    ) {
        let age = MAX_AGE.mul_f64(0.9 + 0.2 * fastrand::f64());
        let retire = Instant::now() + age;
        let connection = Rc::new(Connection { sender, calls: Cell::new(0), retire });
        lane.failure.take();
        // The driver must not keep the connection open that it drives: it closes when the lane has
        // let go of it and its last call has ended.
        let handle = Rc::downgrade(&connection);
        lane.connections.borrow_mut().push(connection);
        lane.attempted.notify_waiters();
        let (pool, lane) = (self.clone(), Rc::clone(lane));
        let open = self.0.metrics.upstream_connections.get_or_create(&labels).clone();
        self.0.tasks.spawn_local(async move {
            open.inc();
            let ended = driver.await;
            open.dec();
            debug!(endpoint = %lane.endpoint.address(), ?ended, "connection ended");
            lane.forget(&handle);
            // The next call should find a connection, or know that there is none to be had.
            if lane.connections.borrow().is_empty() && lane.endpoint.is_healthy() {
                pool.dial(&lane, &upstream);
            }
        });
    }
}

impl Lane {
    /// The connection with the fewest calls, leaving out those that are due to retire: their
    /// calls end on them, and then they close.
    fn best(&self) -> Option<Rc<Connection>> {
        let now = Instant::now();
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| connection.retire > now);
        connections.iter().min_by_key(|connection| connection.calls.get()).cloned()
    }

    fn may_grow(&self) -> bool {
        self.failure.borrow().is_none() && self.connections.borrow().len() < MAX_CONNECTIONS
    }

    /// Whether another connection is on its way.
    fn is_growing(&self) -> bool {
        self.dialing.get() && self.failure.borrow().is_none()
    }

    fn forget(&self, connection: &Weak<Connection>) {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|other| !std::ptr::eq(Rc::as_ptr(other), connection.as_ptr()));
    }
}

impl Connection {
    /// Whether one more call should rather have a connection of its own: the peer's limit is
    /// near, or so many share it already that its one reader is what they wait for.
    fn is_busy(&self) -> bool {
        let limit = self.limit().min(BUSY);
        self.calls.get() >= limit - limit / 8
    }

    /// Whether one more call would wait for another to end.
    fn is_full(&self) -> bool {
        self.calls.get() >= self.limit()
    }

    /// Concurrent streams that the peer takes.
    fn limit(&self) -> usize {
        self.sender.current_max_send_streams()
    }
}

/// Connections of one worker to one endpoint.
const MAX_CONNECTIONS: usize = 4;
/// Calls on one connection from which another one is made.
const BUSY: usize = 100;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// Older connections are replaced, give or take 10 %: backends count some harmless frames, such
/// as empty DATA, over a connection's whole life.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);
/// What one stream may send ahead of its client, in bytes.
const STREAM_WINDOW: u32 = 256 << 10;
/// Room for [`BUSY`] streams that nobody reads, since a connection's window that slow clients have
/// filled would hold up everybody's calls on it. h2 also takes half of it as its allowance for
/// small frames that were not read yet, about 250 bytes each.
const CONNECTION_WINDOW: u32 = 32 << 20;
