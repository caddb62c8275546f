//! Where the engine meets the runtime: one small task a socket that waits until it is ready, one
//! that ends each turn by writing, one coarse tick.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use bytesize::ByteSize;
use tokio::{
    io::Interest,
    net::TcpStream,
    sync::Notify,
    task::yield_now,
    time::{MissedTickBehavior, interval},
};
use tokio_util::task::TaskTracker;

use super::{
    Listener,
    call::{CallKey, Local, Peer},
    cause::Cause,
    engine::{Command, Engine},
    link::{Kind, Link},
    millis,
    settings::Settings,
};
use crate::{
    answer::Watch,
    config,
    http2::{
        connection::{Connection, Role},
        limits::{Counted, Limits},
    },
    metrics::Metrics,
    net,
    tls::Session,
};

/// A worker's relay; clones share it. Lives within a `LocalSet`.
#[derive(Debug, Clone)]
pub struct Relay(pub(super) Rc<Shell>);

#[derive(Debug)]
pub(super) struct Shell {
    pub(super) engine: RefCell<Engine>,
    buffer: RefCell<Vec<u8>>,
    flush: Notify,
    pub(super) tasks: TaskTracker,
    settings: RefCell<Arc<Settings>>,
    pub(super) metrics: Metrics,
}

impl Relay {
    /// A relay without connections, and its tasks. `limits` are those of endpoints.
    pub fn new(limits: &config::Limits, metrics: &Metrics) -> Self {
        let relay = Self(Rc::new(Shell {
            engine: RefCell::new(Engine::new(limits, metrics)),
            buffer: RefCell::new(vec![0; READ]),
            flush: Notify::new(),
            tasks: TaskTracker::new(),
            settings: RefCell::new(Arc::new(Settings { listeners: Vec::new(), limits: *limits })),
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

    /// Serves a client's HTTP/2 connection, of which the bytes in `first` were read already; a
    /// `reserved` one is answered health checks only. Ends when the client does, or after GOAWAY:
    /// when the process stops, when it is idle, and when it is old.
    pub async fn serve(
        &self,
        socket: TcpStream,
        session: Option<Box<Session>>,
        first: &[u8],
        listener: Arc<Listener>,
        client: (SocketAddr, bool),
    ) {
        let (id, socket, goes_on) = self.begin((socket, session), first, listener, client);
        if goes_on {
            self.drive(id, &socket).await;
        }
        if self.turn(|engine| engine.remove_link(id)) {
            // In a box, which is there for that moment: a task has room for all that it awaits.
            Box::pin(net::close(&socket)).await;
        }
    }

    /// Adds a client's connection, and takes what was read of it. Apart from what waits for it: a
    /// task keeps room for all of the function that it is in.
    fn begin(
        &self,
        socket: (TcpStream, Option<Box<Session>>),
        first: &[u8],
        listener: Arc<Listener>,
        (client, reserved): (SocketAddr, bool),
    ) -> (usize, Rc<TcpStream>, bool) {
        let limits = self.current(&listener).limits;
        let mut out = Vec::new();
        let connection = Connection::new(Role::Server, client_limits(&limits), &mut out);
        let age = limits.max_connection_age.mul_f64(0.9 + 0.2 * fastrand::f64());
        let (id, socket) = self.add_link(connection, Kind::Client(listener), socket, out, age);
        let settings = Arc::clone(&self.settings().borrow());
        let goes_on = self.turn(|engine| {
            let (link, now) = (&mut engine.links[id], engine.context.now);
            (link.client, link.reserved) = (Some(client), reserved);
            // One may have come since the accept.
            link.reload(&settings, now);
            engine.feed(id, first)
        });
        (id, socket, goes_on)
    }

    pub(super) fn add_link(
        &self,
        connection: Connection,
        kind: Kind,
        (socket, session): (TcpStream, Option<Box<Session>>),
        out: Vec<u8>,
        age: Duration,
    ) -> (usize, Rc<TcpStream>) {
        let socket = Rc::new(socket);
        let id = self.turn(|engine| {
            let now = engine.context.now;
            let old_at = now.saturating_add(millis(age));
            let mut link = Link::new(connection, kind, Rc::clone(&socket), out, now, old_at);
            link.session = session;
            let id = engine.links.insert(link);
            engine.touch(id);
            id
        });
        (id, socket)
    }

    pub(super) fn settings(&self) -> &RefCell<Arc<Settings>> {
        &self.0.settings
    }

    /// Runs `work` as a turn, and sees to what comes of it.
    pub(super) fn turn<T>(&self, work: impl FnOnce(&mut Engine) -> T) -> T {
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
    pub(super) async fn drive(&self, id: usize, socket: &TcpStream) {
        let changed = Rc::clone(&self.0.engine.borrow().links[id].changed);
        let stop = match &self.0.engine.borrow().links[id].kind {
            Kind::Client(listener) => Some(listener.stop().clone()),
            Kind::Endpoint(_) => None,
        };
        let mut stopping = stop.is_none();
        let stop = stop.unwrap_or_default();
        loop {
            let (blocked, full, unread) = {
                let engine = self.0.engine.borrow();
                let link = &engine.links[id];
                if link.is_over() {
                    return;
                }
                (link.blocked, link.is_full(), link.unread.is_some())
            };
            if full && !blocked {
                // Other links' turns have filled it. Its socket may be ready, which costs nothing of
                // tokio's budget: to ask again and again would keep the flusher from its turn.
                self.turn(|engine| engine.writable(id));
                continue;
            }
            if unread && !full {
                self.turn(|engine| engine.feed_on(id));
                yield_now().await;
                continue;
            }
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
                let busy = self.0.engine.borrow().links[id].busy;
                let most = if busy { SMALL_READ } else { READ };
                match socket.try_read(&mut buffer[..most]) {
                    Ok(0) => return ended(Cause::Closed),
                    Ok(read) => self.turn(|engine| {
                        engine.take(id, &buffer[..read]) && !engine.links[id].is_full()
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
        let woken = Arc::clone(&self.0.engine.borrow().queues.woken);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.turn(Engine::check_times),
                () = woken.notified() => self.turn(Engine::take_turns),
            }
        }
    }

    /// Tells a Watch stream the board's changes, until it ends or the process stops.
    fn watch(&self, key: CallKey, mut watch: Watch) {
        let relay = self.clone();
        let stop = match self.0.engine.borrow_mut().call(key) {
            Some(call) => call.listener.stop().clone(),
            None => return,
        };
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
            && let Peer::Local(Local { watch: Some(watch), .. }) = &mut call.peer
        {
            watch.by(handle);
        }
    }
}

fn client_limits(limits: &config::Limits) -> Limits {
    Limits {
        streams: limits.max_concurrent_streams,
        header_list: usize::try_from(limits.max_header_list_size.as_u64()).unwrap_or(usize::MAX),
        header_fields: limits.max_header_fields as usize,
        header_frames: header_frames(limits.max_header_list_size),
        stream_window: STREAM_WINDOW,
        connection_window: CLIENT_WINDOW,
        frames: Some(Counted::Kinds(limits.frames)),
    }
}

/// How many frames a client's header block may come in. Huffman makes a list no more than a few times
/// smaller; what needs more frames than that is no list that would be taken.
fn header_frames(list: ByteSize) -> usize {
    2 + usize::try_from(list.as_u64()).unwrap_or(usize::MAX).div_ceil(16 << 10)
}

/// What one read takes at most, in bytes.
const READ: usize = 256 << 10;
/// What it takes of a link that sends more frames at once than one turn takes, in bytes.
const SMALL_READ: usize = 16 << 10;
/// Reads of one link in a row.
const READS: usize = 1;
const TICK: Duration = Duration::from_millis(50);
/// What one stream may send ahead of its receiver, in bytes.
pub(super) const STREAM_WINDOW: u32 = 256 << 10;
/// What the streams of a client may send ahead of this end, in bytes: at least four times a
/// stream's window, so that streams do not block each other.
pub(super) const CLIENT_WINDOW: u32 = 32 * STREAM_WINDOW;
