//! Where the engine meets the runtime: one small task a socket that waits until it is ready, one
//! that ends each turn by writing, one coarse tick.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    io::Interest,
    net::TcpStream,
    sync::Notify,
    task::yield_now,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::{
    Listener,
    call::{CallKey, Peer},
    cause::Cause,
    engine::{Command, Engine},
    lane::LaneKey,
    link::{Kind, Link},
};
use crate::{
    answer::Watch,
    config,
    http2::{
        connection::{Connection, Role},
        frame::Reason,
        limits::Limits,
    },
    metrics::{EndpointLabels, Metrics},
    net,
    shutdown::Shutdown,
    upstream::{Fault, Upstream},
};

/// A worker's relay; clones share it. Lives within a `LocalSet`.
#[derive(Debug, Clone)]
pub struct Relay(Rc<Shell>);

#[derive(Debug)]
struct Shell {
    engine: RefCell<Engine>,
    buffer: RefCell<Vec<u8>>,
    flush: Notify,
    tasks: TaskTracker,
    shutdown: Shutdown,
    limits: config::Limits,
    metrics: Metrics,
}

impl Relay {
    /// A relay without connections, and its tasks. `limits` are those of endpoints.
    pub fn new(limits: &config::Limits, metrics: &Metrics, shutdown: &Shutdown) -> Self {
        let relay = Self(Rc::new(Shell {
            engine: RefCell::new(Engine::new(limits)),
            buffer: RefCell::new(vec![0; READ]),
            flush: Notify::new(),
            tasks: TaskTracker::new(),
            shutdown: shutdown.clone(),
            limits: *limits,
            metrics: metrics.clone(),
        }));
        relay.0.tasks.spawn_local(relay.clone().flusher());
        relay.0.tasks.spawn_local(relay.clone().ticker());
        relay
    }

    /// Calls that an endpoint has, or will have.
    pub fn calls(&self) -> usize {
        let engine = self.0.engine.borrow();
        engine
            .calls
            .iter()
            .filter(|(_, call)| matches!(call.peer, Peer::Opening(_) | Peer::Endpoint(_)))
            .count()
    }

    /// Whether no connection is open, and nothing that belonged to one is left.
    pub fn is_empty(&self) -> bool {
        self.0.engine.borrow().is_empty()
    }

    /// Serves a client's HTTP/2 connection, of which the bytes in `first` were read already. Ends
    /// when the client does, or after GOAWAY: when the process stops, when it is idle, and when it
    /// is old.
    pub async fn serve(&self, socket: TcpStream, first: &[u8], listener: Arc<Listener>) {
        let limits = listener.limits;
        let mut out = Vec::new();
        let connection = Connection::new(Role::Server, client_limits(&limits), &mut out);
        let age = limits.max_connection_age.mul_f64(0.9 + 0.2 * fastrand::f64());
        let kind = Kind::Client(listener);
        let (id, socket) = self.add_link(connection, kind, socket, out, age);
        if self.turn(|engine| engine.feed(id, first)) {
            self.drive(id, &socket).await;
        }
        if self.turn(|engine| engine.remove_link(id)) {
            net::close(&socket).await;
        }
    }

    fn add_link(
        &self,
        connection: Connection,
        kind: Kind,
        socket: TcpStream,
        out: Vec<u8>,
        age: Duration,
    ) -> (usize, Rc<TcpStream>) {
        let socket = Rc::new(socket);
        let id = self.turn(|engine| {
            let now = engine.context.now;
            let old_at = now.saturating_add(millis(age));
            let link = Link::new(connection, kind, Rc::clone(&socket), out, now, old_at);
            let id = engine.links.insert(link);
            engine.touch(id);
            id
        });
        (id, socket)
    }

    /// Runs `work` as a turn, and sees to what comes of it.
    fn turn<T>(&self, work: impl FnOnce(&mut Engine) -> T) -> T {
        let (result, commands, dirty) = {
            let mut engine = self.0.engine.borrow_mut();
            engine.tick();
            let result = work(&mut engine);
            (result, std::mem::take(&mut engine.commands), !engine.dirty.is_empty())
        };
        for command in commands {
            match command {
                Command::Dial(upstream, at) => {
                    self.0.tasks.spawn_local(self.clone().dial(upstream, at));
                }
                Command::Watch(key, watch) => self.watch(key, watch),
            }
        }
        if dirty {
            self.0.flush.notify_one();
        }
        result
    }

    /// Waits for a link's socket, and takes what it has through the engine, until the link is over.
    async fn drive(&self, id: usize, socket: &TcpStream) {
        let changed = Rc::clone(&self.0.engine.borrow().links[id].changed);
        let client = matches!(self.0.engine.borrow().links[id].kind, Kind::Client(_));
        let stop = &self.0.shutdown.stop;
        let mut stopping = !client;
        loop {
            let (blocked, full) = {
                let engine = self.0.engine.borrow();
                let link = &engine.links[id];
                if link.is_over() {
                    return;
                }
                (link.blocked, link.is_full())
            };
            let interest = match (blocked, full) {
                (false, _) => Interest::READABLE,
                (true, false) => Interest::READABLE | Interest::WRITABLE,
                (true, true) => Interest::WRITABLE,
            };
            let ready = tokio::select! {
                ready = socket.ready(interest) => ready,
                () = changed.notified() => continue,
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.turn(|engine| engine.drain(id));
                    continue;
                }
            };
            let Ok(ready) = ready else { return };
            if blocked && ready.is_writable() {
                self.turn(|engine| engine.writable(id));
            }
            if ready.is_readable() && !full && !self.read(id, socket).await {
                return;
            }
        }
    }

    /// Reads what there is, for a few turns at most; false when the link is over.
    async fn read(&self, id: usize, socket: &TcpStream) -> bool {
        for _ in 0..READS {
            let ended = |cause| {
                self.turn(|engine| _ = engine.links[id].cause.get_or_insert(cause));
                false
            };
            let going_on = {
                let mut buffer = self.0.buffer.borrow_mut();
                match socket.try_read(&mut buffer) {
                    Ok(0) => return ended(Cause::Closed),
                    Ok(read) => self.turn(|engine| {
                        engine.feed(id, &buffer[..read]) && !engine.links[id].is_full()
                    }),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
                    Err(error) => return ended(Cause::Failed(error.kind())),
                }
            };
            if !going_on {
                // What is to be said is written by the flusher first; then it is over, or read on.
                yield_now().await;
                return true;
            }
        }
        yield_now().await;
        true
    }

    async fn flusher(self) {
        loop {
            self.0.flush.notified().await;
            self.turn(Engine::flush);
        }
    }

    async fn ticker(self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.turn(Engine::check_times);
        }
    }

    /// Connects to an endpoint, trying again with growing pauses for as long as it is called
    /// healthy and there is no other connection to it.
    async fn dial(self, upstream: Arc<Upstream>, at: LaneKey) {
        let Some(endpoint) =
            self.turn(|engine| engine.lanes.get(&at).map(|lane| Arc::clone(&lane.endpoint)))
        else {
            return;
        };
        let address = endpoint.address();
        let labels = EndpointLabels {
            upstream: (&**upstream.name()).into(),
            endpoint: address.to_string().as_str().into(),
        };
        loop {
            let (pause, needed) = self.turn(|engine| {
                let lane = engine.lanes.get(&at);
                lane.map_or((Duration::ZERO, false), |lane| {
                    (lane.pause(), lane.pause().is_zero() || !lane.is_connected())
                })
            });
            sleep(pause).await;
            if !needed || !endpoint.is_healthy() && !pause.is_zero() {
                return self.turn(|engine| engine.dial_given_up(at));
            }
            let within = upstream.connect_timeout();
            let (fault, failure) = match timeout(within, self.connect(at, address, &labels)).await {
                Ok(Ok(())) => return,
                Ok(Err(failure)) => failure,
                Err(_) => {
                    let within = humantime::format_duration(within);
                    (Some(Fault::Timeout), format!("no answer within {within}"))
                }
            };
            if let Some(fault) = fault {
                endpoint.fault(fault);
            }
            debug!(%address, failure, "cannot connect");
            self.0.metrics.upstream_connect_failures.get_or_create(&labels).inc();
            let why = format!("cannot connect to {address}: {failure}");
            self.turn(|engine| engine.dial_failed(at, why));
        }
    }

    /// Connects, and waits for the peer's SETTINGS, which tell how many streams it takes. An error
    /// says whether it is the endpoint's fault.
    async fn connect(
        &self,
        at: LaneKey,
        address: SocketAddr,
        labels: &EndpointLabels,
    ) -> Result<(), (Option<Fault>, String)> {
        let socket = TcpStream::connect(address).await.map_err(|error| {
            ((!net::is_ours(&error)).then_some(Fault::Connect), error.kind().to_string())
        })?;
        // Fails only for a socket that the peer has closed already, which its reader sees.
        _ = socket.set_nodelay(true);
        let mut out = Vec::new();
        let limits = &self.0.limits;
        let connection = Connection::new(Role::Client, endpoint_limits(limits), &mut out);
        let age = limits.max_upstream_connection_age.mul_f64(0.9 + 0.2 * fastrand::f64());
        let kind = Kind::Endpoint(at);
        let (id, socket) = self.add_link(connection, kind, socket, out, age);
        let settled = Rc::clone(&self.0.engine.borrow().links[id].settled);
        let unsettled = Unsettled { relay: self.clone(), id, done: false };
        let open = self.0.metrics.upstream_connections.get_or_create(labels).clone();
        let relay = self.clone();
        let told = Rc::clone(&settled);
        self.0.tasks.spawn_local(async move {
            open.inc();
            relay.drive(id, &socket).await;
            open.dec();
            let retired = relay.turn(|engine| engine.remove_link(id));
            told.notify_one();
            if retired {
                net::close(&socket).await;
            }
        });
        settled.notified().await;
        let mut unsettled = unsettled;
        unsettled.done = true;
        match self.0.engine.borrow().links.contains(id) {
            true => Ok(()),
            false => Err((Some(Fault::Connect), "closed before its SETTINGS".to_owned())),
        }
    }

    /// Tells a Watch stream the board's changes, until it ends or the process stops.
    fn watch(&self, key: CallKey, mut watch: Watch) {
        let relay = self.clone();
        let stop = self.0.shutdown.stop.clone();
        let task = self.0.tasks.spawn_local(async move {
            loop {
                let message = tokio::select! {
                    biased;
                    message = watch.next() => message,
                    () = stop.cancelled() => break,
                };
                if !relay.turn(|engine| engine.watch_message(key, &message)) {
                    return;
                }
            }
            relay.turn(|engine| engine.watch_end(key));
        });
        let handle = task.abort_handle();
        if let Some(call) = self.0.engine.borrow_mut().call(key)
            && let Peer::Local(local) = &mut call.peer
        {
            local.watch = Some(handle);
        }
    }
}

/// Closes a link whose SETTINGS did not come in time.
struct Unsettled {
    relay: Relay,
    id: usize,
    done: bool,
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if !self.done {
            let id = self.id;
            self.relay.turn(|engine| {
                if let Some(link) = engine.links.get_mut(id) {
                    link.close(Reason::SETTINGS_TIMEOUT);
                    engine.touch(id);
                }
            });
        }
    }
}

fn client_limits(limits: &config::Limits) -> Limits {
    Limits {
        streams: limits.max_concurrent_streams,
        header_list: usize::try_from(limits.max_header_list_size.as_u64()).unwrap_or(usize::MAX),
        header_fields: limits.max_header_fields as usize,
        stream_window: STREAM_WINDOW,
        connection_window: 32 * STREAM_WINDOW,
        frames: Some(limits.frames),
    }
}

fn endpoint_limits(limits: &config::Limits) -> Limits {
    Limits {
        streams: 0,
        header_list: usize::try_from(limits.max_upstream_header_list_size.as_u64())
            .unwrap_or(usize::MAX),
        header_fields: limits.max_upstream_header_fields as usize,
        stream_window: STREAM_WINDOW,
        connection_window: 128 * STREAM_WINDOW,
        frames: None,
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}

/// What one read takes at most, in bytes.
const READ: usize = 256 << 10;
/// Reads of one link in a row.
const READS: usize = 1;
const TICK: Duration = Duration::from_millis(50);
/// What one stream may send ahead of its receiver, in bytes. Of a client 32 streams may do so, and
/// of an endpoint 128, before they hold up others of the same connection.
const STREAM_WINDOW: u32 = 256 << 10;
