//! A worker's whole relay under a paused clock: clients and endpoints that write what the input
//! says, read or do not, come and go. It never panics and never hangs, and when all of them have
//! gone nothing is left of them.

#![no_main]

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown as Half, SocketAddr, TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{Arc, OnceLock},
    time::Duration,
};

use libfuzzer_sys::fuzz_target;
use socket2::SockRef;
use tokio::{
    runtime::Builder,
    task::{JoinHandle, LocalSet, spawn_local, yield_now},
    time::{advance, sleep},
};
use upbeat::{
    answer::Answers,
    config::Config,
    health::Board,
    http2::{
        connection::Role,
        frame::{self, DATA, HEADERS, Head},
    },
    metrics::Metrics,
    relay::{Listener, Relay},
    shutdown::Shutdown,
    upstream::{Changes, Health, Upstream},
};
use upbeat_fuzz::{Input, Wire};

fuzz_target!(init: upbeat_fuzz::seed("relay"), |bytes: &[u8]| {
    fastrand::seed(7);
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let mut world = World::new();
        let mut input = Input(bytes);
        world.connect(&mut input);
        for _ in 0..STEPS {
            if input.is_empty() {
                break;
            }
            world.step(&mut input).await;
        }
        world.end().await;
    });
});

/// Sockets that live as long as the process, and the configuration that names them.
struct Site {
    sockets: Vec<TcpListener>,
    config: Config,
}

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| {
        let sockets: Vec<_> = (0..2)
            .map(|_| {
                let socket = TcpListener::bind("127.0.0.1:0").unwrap();
                socket.set_nonblocking(true).unwrap();
                socket
            })
            .collect();
        // Bound and not listening: refuses.
        let refusing = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let refusing = refusing.unwrap();
        refusing.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let refused = refusing.local_addr().unwrap().as_socket().unwrap();
        std::mem::forget(refusing);
        let [a, b] = [0, 1].map(|at: usize| sockets[at].local_addr().unwrap());
        let text = format!(
            "listeners: [{{ name: a, address: '127.0.0.1:1', upstream: u }}]\n\
             upstreams:\n  u:\n    endpoints: ['{a}', '{b}', '{refused}']\n    \
             probe: {{ checks: [{{ tcp: {{}} }}] }}\n\
             limits: {{ max_concurrent_streams: 8, max_header_list_size: 4KiB }}\n"
        );
        Site { sockets, config: Config::parse(&text, |_| None).unwrap() }
    })
}

struct World {
    relay: Relay,
    listener: Arc<Listener>,
    upstream: Arc<Upstream>,
    shutdown: Shutdown,
    metrics: Metrics,
    serving: Vec<JoinHandle<()>>,
    clients: Vec<Peer>,
    backends: Vec<Peer>,
    accepting: bool,
    /// What a backend's first SETTINGS say.
    streams: u32,
    _board: Board,
}

/// Lets so many milliseconds pass in parts that a worker counts: one that had no turn for seconds takes
/// itself for stopped meanwhile.
async fn pass(mut millis: u64) {
    while millis > 0 {
        let part = millis.min(500);
        advance(Duration::from_millis(part)).await;
        yield_now().await;
        millis -= part;
    }
}

impl World {
    fn new() -> Self {
        let config = &site().config;
        let (metrics, shutdown, changes) = (Metrics::new(), Shutdown::new(), Changes::default());
        let upstream = Arc::new(Upstream::new(&config.upstreams[0], &changes, &metrics));
        for endpoint in upstream.endpoints().iter() {
            endpoint.publish(Health::Healthy, "");
        }
        let board = Board::new(&config.health, &[Arc::clone(&upstream)], &metrics);
        // Nothing folds here, and what was folded is not to grow old.
        board.vitals().control().end();
        let listener = &config.listeners[0];
        let answers = Answers::new(board.subscribe(), listener.not_serving_as, true);
        let all = [Arc::clone(&upstream)];
        let listener = Listener::new(listener, &config.health, &all, answers, &metrics);
        let listener = Arc::new(listener.until(shutdown.stop.clone()));
        Self {
            relay: Relay::new(&config.limits, &metrics),
            listener,
            upstream,
            shutdown,
            metrics,
            serving: Vec::new(),
            clients: Vec::new(),
            backends: Vec::new(),
            accepting: true,
            streams: 100,
            _board: board,
        }
    }

    /// One more client. Its socket is no TCP, which leaves no port in TIME_WAIT.
    fn connect(&mut self, input: &mut Input<'_>) {
        if self.serving.len() >= CLIENTS {
            return;
        }
        let (near, far) = UnixStream::pair().unwrap();
        let [near, far] = [near, far].map(|socket| TcpStream::from(OwnedFd::from(socket)));
        far.set_nonblocking(true).unwrap();
        if input.byte() & 3 == 0 {
            SockRef::from(&far).set_send_buffer_size(4096).unwrap();
        }
        let far = tokio::net::TcpStream::from_std(far).unwrap();
        let (relay, listener) = (self.relay.clone(), Arc::clone(&self.listener));
        let from = (([127, 0, 0, 1], 1).into(), false);
        let serving = async move { relay.serve(far, None, &[], listener, from).await };
        self.serving.push(spawn_local(serving));
        self.clients.push(Peer::new(near, Role::Server, &[(4, 1 << 20)]));
    }

    async fn step(&mut self, input: &mut Input<'_>) {
        let op = input.byte();
        match op {
            0..0x60 => {
                if let Some(client) = pick(&mut self.clients, op) {
                    client.say(input);
                }
            }
            0x60..0x90 => {
                if let Some(backend) = pick(&mut self.backends, op) {
                    backend.say(input);
                }
            }
            0x90..0xb0 => {
                if let Some(backend) = pick(&mut self.backends, op) {
                    backend.answer(input);
                }
            }
            0xb0..0xc0 => self.connect(input),
            0xc0..0xc8 => hang_up(&mut self.clients, op),
            0xc8..0xd0 => hang_up(&mut self.backends, op),
            0xd0..0xd4 => {
                if let Some(client) = pick(&mut self.clients, op) {
                    client.reads ^= true;
                }
            }
            0xd4..0xd8 => {
                if let Some(backend) = pick(&mut self.backends, op) {
                    backend.reads ^= true;
                }
            }
            0xd8..0xe4 => {
                const TIMES: [u64; 6] = [10, 60, 1100, 11_000, 31_000, 700_000];
                pass(TIMES[usize::from(op) % TIMES.len()]).await;
            }
            0xe4..0xf0 => {
                let health = if op & 4 == 0 { Health::Healthy } else { Health::Unhealthy };
                self.upstream.endpoints()[usize::from(op & 3) % 3].publish(health, "");
            }
            0xf0..0xf4 => self.accepting ^= true,
            0xf4..0xf8 => self.streams = u32::from(op & 3),
            0xf8 => self.shutdown.stop.cancel(),
            _ => {}
        }
        if op & 3 != 3 {
            self.settle(1).await;
        }
    }

    /// Lets everything that is on its way arrive.
    async fn settle(&mut self, millis: u64) {
        for _ in 0..2 {
            self.accept();
            for peers in [&mut self.clients, &mut self.backends] {
                peers.retain_mut(Peer::read);
            }
            sleep(Duration::from_millis(millis)).await;
        }
    }

    fn accept(&mut self) {
        for socket in &site().sockets {
            while let Ok((socket, _)) = socket.accept() {
                // No port is left in TIME_WAIT by a reset.
                SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
                if self.accepting {
                    let settings = [(3, self.streams), (4, 1 << 20)];
                    let mut backend = Peer::new(socket, Role::Client, &settings);
                    backend.reads = true;
                    self.backends.push(backend);
                }
            }
        }
    }

    async fn end(mut self) {
        for endpoint in self.upstream.endpoints().iter() {
            endpoint.publish(Health::Unhealthy, "the end");
        }
        self.accepting = false;
        self.clients.clear();
        self.backends.clear();
        let mut rounds = 0;
        while !self.relay.is_empty() || self.serving.iter().any(|task| !task.is_finished()) {
            self.settle(25).await;
            rounds += 1;
            assert!(rounds < 2000, "something is left: {:#?}", self.relay);
        }
        assert_eq!(self.relay.calls(), 0);
        for endpoint in self.upstream.endpoints().iter() {
            assert_eq!(endpoint.in_flight(), 0);
        }
        let text = self.metrics.render();
        for line in text.lines() {
            let open = ["upbeat_streams{", "upbeat_upstream_connections{"];
            let is_open = open.iter().any(|name| line.starts_with(name));
            assert!(!is_open || line.ends_with(" 0"), "{line}");
        }
    }
}

/// One that the relay speaks with.
struct Peer {
    socket: TcpStream,
    wire: Wire,
    reads: bool,
    /// What was read of a frame that has not all come.
    partial: Vec<u8>,
    /// Streams that the relay opened.
    seen: Vec<u32>,
}

impl Peer {
    fn new(socket: TcpStream, to: Role, settings: &[(u16, u32)]) -> Self {
        socket.set_nonblocking(true).unwrap();
        let wire = Wire::new(to);
        let mut out = Vec::new();
        wire.preface(settings, &mut out);
        let mut peer = Self { socket, wire, reads: true, partial: Vec::new(), seen: Vec::new() };
        peer.write(&out);
        peer
    }

    /// What does not fit is lost: one more way to break a frame.
    fn write(&mut self, bytes: &[u8]) {
        _ = self.socket.write(bytes);
    }

    fn say(&mut self, input: &mut Input<'_>) {
        let mut out = Vec::new();
        let count = input.byte() % 4 + 1;
        (0..count).for_each(|_| self.wire.op(input, &mut out));
        self.write(&out);
    }

    /// A response on one of the relay's streams, or a part of it.
    fn answer(&mut self, input: &mut Input<'_>) {
        let (parts, on) = (input.byte(), usize::from(input.byte()));
        let Some(at) = on.checked_rem(self.seen.len()) else { return };
        let stream = self.seen[at];
        let mut out = Vec::new();
        let mut put = |kind, flags, payload: &[u8]| {
            Head { length: payload.len(), kind, flags, stream }.put(&mut out);
            out.extend_from_slice(payload);
        };
        if parts & 1 != 0 {
            put(HEADERS, 4, b"\x88\x0f\x10\x10application/grpc");
        }
        if parts & 2 != 0 {
            let size = usize::from(input.byte()) * 60;
            let mut message = vec![0];
            message.extend((size as u32).to_be_bytes());
            message.resize(5 + size, b'r');
            put(DATA, 0, &message);
        }
        if parts & 4 != 0 {
            put(HEADERS, 5, b"\x00\x0bgrpc-status\x010");
            self.seen.swap_remove(at);
        }
        self.write(&out);
    }

    /// Reads what there is, and gives it back to the sender; false when that is gone.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        while self.reads {
            match self.socket.read(&mut buffer) {
                Ok(0) => return false,
                Ok(read) => self.partial.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        let partial = std::mem::take(&mut self.partial);
        let mut rest = partial.strip_prefix(frame::PREFACE).unwrap_or(&partial);
        let mut out = Vec::new();
        while let Some((head, tail)) = rest.split_first_chunk() {
            let head = Head::parse(head);
            assert!(head.length <= 1 << 24 && head.kind < 10, "{head:?}");
            let Some((_, tail)) = tail.split_at_checked(head.length) else { break };
            rest = tail;
            match head.kind {
                HEADERS if !self.seen.contains(&head.stream) => self.seen.push(head.stream),
                DATA if head.length > 0 => {
                    frame::put_window_update(0, head.length as u32, &mut out);
                    frame::put_window_update(head.stream, head.length as u32, &mut out);
                }
                _ => {}
            }
        }
        self.partial = rest.to_vec();
        if !out.is_empty() {
            self.write(&out);
        }
        true
    }
}

fn pick(peers: &mut [Peer], op: u8) -> Option<&mut Peer> {
    let at = usize::from(op >> 2).checked_rem(peers.len())?;
    peers.get_mut(at)
}

fn hang_up(peers: &mut Vec<Peer>, op: u8) {
    let Some(at) = usize::from(op >> 1 & 3).checked_rem(peers.len()) else { return };
    match op & 1 {
        0 => drop(peers.swap_remove(at)),
        _ => _ = peers[at].socket.shutdown(Half::Write),
    }
}

const STEPS: usize = 300;
const CLIENTS: usize = 4;
