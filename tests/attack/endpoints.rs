//! Endpoints that are at fault, and those that are not.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};

use crate::{
    crowd,
    fixture::{
        caller::{Caller, read},
        echo::send,
        wire::{DATA, END_STREAM, End, HEADERS, Message, Wire},
    },
    raw::request,
    scene::{Aside, Scene, Setup},
    victim::UNARY,
};

/// A server on a socket of its own, one task a connection.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Serves each connection by `serve`.
    pub(crate) async fn start<F>(
        behind: &Runtime,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> anyhow::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let socket = TcpListener::bind("127.0.0.1:0").await?.into_std()?;
        let address = socket.local_addr()?;
        let mut tasks = JoinSet::new();
        let accept = async move {
            let socket = TcpListener::from_std(socket).expect("it was one");
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = socket.accept().await {
                _ = stream.set_nodelay(true);
                while connections.try_join_next().is_some() {}
                connections.spawn(serve(stream));
            }
        };
        tasks.spawn_on(accept, behind.handle());
        Ok(Self { address, _tasks: tasks })
    }
}

/// Two endpoints, of which one reads nothing; 100 uploads of 400 kB on one connection, and calls
/// of one byte beside them.
pub(crate) async fn stuck_endpoint(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let stuck = scene.server(|stream| async move {
        // It greets, and takes nothing after that: not from its streams, nor from its socket.
        if let Some(_wire) = Wire::serve(stream).await {
            std::future::pending::<()>().await;
        }
    });
    let stuck = stuck.await?;
    let good = scene.echo(None).await?;
    let endpoints = [good.address(), stuck];
    let aside = Aside::to(&endpoints, "    load_balancing: round_robin");
    let address = scene.begin(aside.setup()).await?;
    let caller = Caller::connect(address).await;
    let mut calls = JoinSet::new();
    for index in 0..120 {
        let length = if index < 100 { 400_000 } else { 1 };
        calls.spawn(upload(caller.clone(), length));
        if index == 99 {
            // The stuck ones have used what they may by then.
            sleep(Duration::from_secs(1)).await;
        }
    }
    let mut good = [Vec::new(), Vec::new()];
    while let Some(call) = calls.join_next().await {
        let (length, took, code) = call?;
        if code == Some(0) {
            good[usize::from(length == 1)].push(took);
        }
    }
    let [large, small] = good;
    let slowest = |took: &[f64]| took.iter().copied().fold(0.0, f64::max);
    scene.at_least("uploads done", large.len() as f64, 45.0, " of 100");
    scene.at_most("the last after", slowest(&large), scene.patient(4.0).min(7.5), " s");
    scene.at_least("small calls done", small.len() as f64, 9.0, " of 20");
    scene.at_most("the last after", slowest(&small), scene.patient(2.0).min(7.5), " s");
    Ok(())
}

/// An upload with a deadline of 8 s: its length, how long it took, and its code.
async fn upload(mut caller: Caller, length: usize) -> (usize, f64, Option<u8>) {
    let started = Instant::now();
    let request = Request::post("http://upbeat/test.Two/Unary")
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header("grpc-timeout", "8S");
    let call = async {
        let mut call = caller.send(request.body(()).expect("it is one"), false).await?;
        let mut message = vec![0; 5 + length];
        message[1..5].copy_from_slice(&(length as u32).to_be_bytes());
        send(&mut call.request, message.into()).await?;
        _ = call.request.send_data(Bytes::new(), true);
        read(call.response.await?).await
    };
    let reply = timeout(Duration::from_secs(9), call).await;
    let code = reply.ok().and_then(Result::ok).and_then(|reply| reply.status());
    (length, started.elapsed().as_secs_f64(), code.map(|status| status.code as u8))
}

/// 6 times 8 unfinished calls with a deadline of 1100 ms, of two healthy endpoints.
pub(crate) async fn blamed_by_deadlines(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let other = scene.echo(None).await?;
    let endpoints = [scene.endpoint.address(), other.address()];
    let address = scene.begin(Setup { endpoints: &endpoints, ..Setup::default() }).await?;
    for _ in 0..6 {
        let mut clients = crowd::open(address, 1, &[]).await?;
        let head = [request(UNARY), vec![("grpc-timeout", "1100m")]].concat();
        for _ in 0..8 {
            let stream = clients[0].open(&head, false);
            clients[0].put(DATA, 0, stream, &[0]);
        }
        crowd::until(&mut clients, Duration::from_secs(3), |heard| heard.over() == 8).await;
    }
    let ejections = scene.subject().metric("upbeat_ejections_total", "").await;
    scene.equal("ejections", ejections, 0.0);
    Ok(())
}

/// 14 calls without `te` to an endpoint that resets them by INTERNAL_ERROR, as grpcio does.
pub(crate) async fn blamed_by_resets(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let strict = scene.server(without_te).await?;
    let endpoints = [scene.endpoint.address(), strict];
    let address = scene.begin(Setup { endpoints: &endpoints, ..Setup::default() }).await?;
    let head: Vec<_> = request(UNARY).into_iter().filter(|(name, _)| *name != "te").collect();
    let mut clients = crowd::open(address, 1, &[]).await?;
    for round in 0..28 {
        clients[0].unary(&head, 10);
        crowd::until(&mut clients, Duration::from_secs(3), |it| it.over() == round + 1).await;
    }
    let ejections = scene.subject().metric("upbeat_ejections_total", "").await;
    scene.equal("ejections", ejections, 0.0);
    Ok(())
}

/// Answers each request with its own body, and resets it where it has no `te`.
async fn without_te(stream: TcpStream) {
    let Some(mut wire) = Wire::serve(stream).await else { return };
    wire.patience = FOREVER;
    while let Some(frame) = wire.next().await {
        if !matches!(frame.kind, HEADERS | DATA) || !frame.has(END_STREAM) {
            continue;
        }
        let Some(asked) = wire.arriving.remove(&frame.stream) else { continue };
        if asked.value("te").is_none() {
            wire.reset(frame.stream, 2).await;
        } else {
            wire.play(frame.stream, &echoed(&asked.body), 16_384).await;
        }
    }
}

/// A good answer of this body.
pub(crate) fn echoed(body: &[u8]) -> Message {
    Message::new(&[(":status", "200"), ("content-type", "application/grpc")])
        .body(body)
        .trailers(&[("grpc-status", "0")])
        .ended_by(End::Trailers)
}

/// A TCP relay that swallows all on the connections that are open, and serves new ones; two calls
/// a second with a deadline of 1.5 s.
pub(crate) async fn swallowed(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let to = scene.endpoint.address();
    let relay = Swallowing::start(scene, to).await?;
    let endpoints = [relay.address];
    let address = scene.begin_alone(Setup { endpoints: &endpoints, ..Setup::default() }).await?;
    let caller = Caller::connect(address).await;
    let mut calls = JoinSet::new();
    // No call begins at the moment when another one's deadline comes.
    let mut ticks = interval(Duration::from_millis(510));
    let (started, span) = (Instant::now(), scene.scaled(Duration::from_secs(60)));
    for number in 0.. {
        ticks.tick().await;
        if started.elapsed() > span {
            break;
        }
        if number == 4 {
            relay.swallow();
        }
        let mut caller = caller.clone();
        calls.spawn(async move {
            let call = caller.tell(UNARY, &[("grpc-timeout", "1500m")]);
            let reply = timeout(Duration::from_secs(5), call).await.ok().and_then(Result::ok);
            let lost = reply.and_then(|reply| reply.status()).is_none_or(|it| it.code as u8 != 0);
            (lost, started.elapsed().as_secs_f64())
        });
    }
    let (mut lost, mut last, count): (u32, f64, _) = (0, 0.0, calls.len());
    while let Some(call) = calls.join_next().await {
        if let (true, at) = call? {
            (lost, last) = (lost + 1, last.max(at - 2.0));
        }
    }
    let most = if scene.options.is_strict() { 3.0 } else { 5.0 };
    scene.at_most("lost", lost.into(), most, &format!(" of {count}"));
    scene.at_most("the last after", last, if scene.options.is_strict() { 3.5 } else { 4.5 }, " s");
    Ok(())
}

/// A TCP relay whose connections can be made to swallow what they are sent.
struct Swallowing {
    address: SocketAddr,
    opened: Arc<AtomicUsize>,
    /// Connections before this number swallow.
    before: Arc<AtomicUsize>,
}

impl Swallowing {
    async fn start(scene: &mut Scene<'_>, to: SocketAddr) -> anyhow::Result<Self> {
        let (opened, before) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (count, inside) = (Arc::clone(&opened), Arc::clone(&before));
        let address = scene.server(move |stream| {
            carry(stream, to, count.fetch_add(1, SeqCst), Arc::clone(&inside))
        });
        Ok(Self { address: address.await?, opened, before })
    }

    fn swallow(&self) {
        self.before.store(self.opened.load(SeqCst), SeqCst);
    }
}

/// Carries bytes both ways, until it is to swallow them.
async fn carry(from: TcpStream, to: SocketAddr, number: usize, before: Arc<AtomicUsize>) {
    let Ok(to) = TcpStream::connect(to).await else { return };
    _ = to.set_nodelay(true);
    let ((a, b), (c, d)) = (from.into_split(), to.into_split());
    let one_way = async |mut from: OwnedReadHalf, mut to: OwnedWriteHalf| {
        let mut buffer = [0; 16_384];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let swallows = number < before.load(SeqCst);
            if !swallows && to.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(one_way(a, d), one_way(c, b));
}

/// For an endpoint that is asked nothing for a while.
pub(crate) const FOREVER: Duration = Duration::from_secs(600);
