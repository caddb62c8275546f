//! Conversations through the running proxy: what both ends see is what the other sent.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use futures_util::future::join;
use h2::{Reason, RecvStream, SendStream, client::SendRequest, server::SendResponse};
use http::{Request, Response, header};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use upbeat::grpc::Status;

use crate::fixture::{
    caller::{Caller, read},
    echo::{Echo, send},
    eventually,
    proxy::{Proxy, yaml},
    wire::grpc_frame,
};

async fn alone(echo: &Echo) -> Proxy {
    let config = yaml(&[echo.address()], "{ tcp: {} }", "").replace("workers: 2", "workers: 1");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    proxy
}

#[tokio::test]
async fn a_connection_in_the_place_of_a_lost_one_keeps_its_calls() {
    let echo = Echo::start().await;
    let proxy = alone(&echo).await;
    let connections = r#"upbeat_connections{listener="otlp"}"#;
    // Answered early, its request open: the proxy passes over what still comes for a while.
    let mut lost = Caller::connect(proxy.address("otlp")).await;
    let call = lost.open("/test.Echo/Early").await.unwrap();
    assert_eq!(read(call.response.await.unwrap()).await.unwrap().code(), 0);
    drop((call.request, lost));
    eventually("it is gone", async || proxy.metric(connections).await == 0.0).await;

    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = caller.open("/test.Echo/Stream").await.unwrap();
    call.request.send_data(Bytes::from_static(&[0, 0, 0, 0, 1, 7]), false).unwrap();
    let mut response = call.response.await.unwrap();
    assert_eq!(response.body_mut().data().await.unwrap().unwrap().len(), 6);
    let nothing = timeout(Duration::from_millis(1500), response.body_mut().data()).await;
    assert!(nothing.is_err(), "{nothing:?} on a stream of another connection");
    call.request.send_data(Bytes::new(), true).unwrap();
    assert_eq!(read(response).await.unwrap().code(), 0);
    proxy.stop().await;
}

/// What both ends of one call do.
#[derive(Debug, Clone, Default)]
struct Plan {
    seed: u8,
    /// Lengths of the messages, in bytes.
    request: usize,
    response: usize,
    /// The largest chunk that is sent at once.
    chunk: usize,
    /// Pauses between the chunks that the client and the backend read.
    slow: [bool; 2],
    manner: Manner,
    /// After how many bytes of its own the client, or the backend, resets; and the code.
    resets: [Option<(usize, u32)>; 2],
}

/// When the backend answers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Manner {
    /// When the request has ended.
    #[default]
    Unary,
    /// At once, and ends after the request has.
    Streaming,
    /// At once, and reads nothing.
    Early,
}

impl Plan {
    fn new(random: &mut Rng, resets: bool) -> Self {
        let size = |random: &mut Rng| match random.u8(..4) {
            0 => 0,
            1 => random.usize(..100),
            2 => random.usize(..20_000),
            _ => random.usize(..300 << 10),
        };
        let (request, response) = (size(random), size(random));
        let mut reset = |most| {
            let code = *random.choice(&[1, 2, 8, 11, 0xabcd]).unwrap();
            (resets && random.u8(..8) == 0).then(|| (random.usize(..=most), code))
        };
        let resets = [reset(request), reset(response)];
        Self {
            seed: random.u8(..),
            request,
            response,
            chunk: *random.choice(&[100, 5000, 16_384, 70_000]).unwrap(),
            slow: [random.u8(..4) == 0, random.u8(..4) == 0],
            manner: match random.u8(..8) {
                0 => Manner::Early,
                1..4 => Manner::Streaming,
                _ => Manner::Unary,
            },
            resets,
        }
    }

    /// What the client sends (0), or the backend (1).
    fn body(&self, by: usize) -> Bytes {
        let length = [self.request, self.response][by];
        let byte = |at| ((at % 251) as u8).wrapping_add(self.seed).wrapping_add(by as u8);
        grpc_frame(&(0..length).map(byte).collect::<Vec<_>>()).into()
    }

    /// Sends its body; false where it ended in a reset, by either side.
    async fn send(&self, by: usize, stream: &mut SendStream<Bytes>) -> bool {
        let mut body = self.body(by);
        // A small chunk of a large body would only make it long.
        let chunk = self.chunk.max(body.len() / 100);
        let stop = self.resets[by].map(|(after, code)| (body.len() - after - 1, code));
        loop {
            if let Some((left, code)) = stop
                && body.len() <= left
            {
                stream.send_reset(code.into());
                return false;
            }
            if body.is_empty() {
                return true;
            }
            let part = body.split_to(chunk.min(body.len()));
            if send(stream, part).await.is_err() {
                return false;
            }
        }
    }

    /// Reads what the other sends to its end.
    async fn read(&self, by: usize, stream: &mut RecvStream, got: &mut Got) {
        while let Some(chunk) = stream.data().await {
            let Ok(chunk) = chunk.map_err(|error| got.end = Ended::of(&error)) else { return };
            got.body.extend_from_slice(&chunk);
            if self.slow[by] {
                sleep(Duration::from_millis(1)).await;
            }
            _ = stream.flow_control().release_capacity(chunk.len());
        }
        got.end = match stream.trailers().await {
            Ok(trailers) => Ended::Whole(trailers.as_ref().and_then(Status::of)),
            Err(error) => Ended::of(&error),
        };
    }
}

/// What one end has seen of the other.
#[derive(Debug, Default)]
struct Got {
    body: Vec<u8>,
    end: Ended,
}

#[derive(Debug, Default)]
enum Ended {
    /// Of a response, with its status.
    Whole(Option<Status>),
    Reset(u32),
    #[default]
    Lost,
}

impl Ended {
    fn of(error: &h2::Error) -> Self {
        // Shown where the test fails: a code may be a stream's, or its connection's.
        println!("a stream ends: {error:?}");
        error.reason().map_or(Self::Lost, |reason| Self::Reset(reason.into()))
    }
}

/// A backend that keeps to the plans, and changes its windows and goes away meanwhile.
struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    goaway: watch::Sender<Option<Reason>>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    plans: Mutex<HashMap<usize, Plan>>,
    got: Mutex<HashMap<usize, Vec<Got>>>,
    /// Whether windows change.
    restless: AtomicBool,
}

impl Backend {
    async fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (goaway, told) = watch::channel(None);
        let shared = Arc::<Shared>::default();
        let (mut tasks, inside) = (JoinSet::new(), Arc::clone(&shared));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            for number in 0.. {
                let (stream, _) = socket.accept().await.unwrap();
                connections.spawn(serve(stream, number, Arc::clone(&inside), told.clone()));
            }
        });
        Self { address, shared, goaway, _tasks: tasks }
    }
}

async fn serve(
    stream: TcpStream,
    number: u32,
    shared: Arc<Shared>,
    mut told: watch::Receiver<Option<Reason>>,
) {
    stream.set_nodelay(true).unwrap();
    told.mark_unchanged();
    let table = [4096, 0, 100][number as usize % 3];
    let mut builder = h2::server::Builder::new();
    builder.header_table_size(table).initial_connection_window_size(1 << 20);
    builder.data_frame_budget(SMALL_FRAMES);
    // Held beside the connection's own, since that one is closed with it.
    let stream = stream.into_std().unwrap();
    let socket = TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
    let stream = TcpStream::from_std(stream).unwrap();
    // A TCP probe closes before the preface.
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    let (mut calls, mut change, mut end) = (JoinSet::new(), 0, Instant::now());
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    calls.spawn(answer(request, respond, Arc::clone(&shared)));
                }
                // Shown where the test fails: the proxy may have broken the protocol.
                other => break println!("a backend's connection ends: {other:?}"),
            },
            Ok(()) = told.changed() => match *told.borrow() {
                Some(reason) => connection.abrupt_shutdown(reason),
                None => connection.graceful_shutdown(),
            },
            () = tokio::time::sleep_until(end), if shared.restless.load(SeqCst) || change % 2 == 1 => {
                // Each small one is followed by one that lets calls go on.
                let size = [0, 65_535, 100, 1 << 20][change % 4];
                // Refused while the last one is not acknowledged.
                if connection.set_initial_window_size(size).is_ok() {
                    change += 1;
                }
                end = Instant::now() + Duration::from_millis(3);
            },
            Some(_) = calls.join_next() => {}
        }
    }
    // What calls have seen to the end is recorded, also where that comes after the connection's.
    drop(connection);
    calls.join_all().await;
    close(socket).await;
}

/// Ends a connection as real servers do (grpc-go waits a second for the client's close). A socket
/// that is closed with something unread resets the connection, and what the kernel had not
/// delivered is lost, though its calls were over.
async fn close(mut socket: TcpStream) {
    _ = socket.shutdown().await;
    let mut rest = vec![0; 64 << 10];
    let over = async { while socket.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
    _ = timeout(Duration::from_secs(1), over).await;
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: Arc<Shared>,
) {
    let (head, mut body) = request.into_parts();
    let id = head.headers["x-call"].to_str().unwrap().parse().unwrap();
    // None where the call is of a round that is over: its client had given it up.
    let Some(plan) = shared.plans.lock().unwrap().get(&id).cloned() else { return };
    let mut got = Got::default();
    let reply = || Response::builder().header(header::CONTENT_TYPE, "application/grpc");
    let mut begin = || respond.send_response(reply().body(()).unwrap(), false);
    match plan.manner {
        Manner::Unary => {
            plan.read(1, &mut body, &mut got).await;
            if let (Ended::Whole(_), Ok(mut back)) = (&got.end, begin())
                && plan.send(1, &mut back).await
            {
                _ = back.send_trailers(Status::OK.trailers());
            }
        }
        Manner::Streaming => {
            let Ok(mut back) = begin() else { return };
            let sending = plan.send(1, &mut back);
            if join(sending, plan.read(1, &mut body, &mut got)).await.0 {
                _ = back.send_trailers(Status::OK.trailers());
            }
        }
        Manner::Early => {
            if let Ok(mut back) = begin()
                && plan.send(1, &mut back).await
            {
                _ = back.send_trailers(Status::OK.trailers());
            }
        }
    }
    shared.got.lock().unwrap().entry(id).or_default().push(got);
}

/// One call by its plan, as its client sees it.
async fn call(mut sender: SendRequest<Bytes>, address: SocketAddr, id: usize, plan: Plan) -> Got {
    let mut got = Got::default();
    let request = Request::post(format!("http://{address}/test.Random/Call"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header("x-call", id.to_string())
        .body(())
        .unwrap();
    std::future::poll_fn(|cx| sender.poll_ready(cx)).await.unwrap();
    let (response, mut stream) = sender.send_request(request, false).unwrap();
    let sending = async {
        if plan.send(0, &mut stream).await {
            _ = stream.send_data(Bytes::new(), true);
        }
    };
    let reading = async {
        match response.await {
            Ok(response) => {
                let status = Status::of(response.headers());
                plan.read(0, &mut response.into_body(), &mut got).await;
                if let (Ended::Whole(end @ None), Some(_)) = (&mut got.end, &status) {
                    *end = status;
                }
            }
            Err(error) => got.end = Ended::of(&error),
        }
    };
    let done = timeout(Duration::from_secs(20), join(sending, reading)).await;
    assert!(done.is_ok(), "call {id} hangs: {plan:?}, {} bytes, {:?}", got.body.len(), got.end);
    got
}

async fn connect(
    address: SocketAddr,
    random: &mut Rng,
    driver: &mut JoinSet<()>,
) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(*random.choice(&[5000, 65_535, 1 << 20]).unwrap())
        .initial_connection_window_size(*random.choice(&[65_535, 4 << 20]).unwrap())
        .header_table_size(*random.choice(&[0, 200, 4096]).unwrap())
        .data_frame_budget(SMALL_FRAMES)
        .handshake(stream)
        .await
        .unwrap();
    driver.spawn(async {
        // Its end is seen by the calls on it.
        _ = connection.await;
    });
    sender
}

fn begins(whole: &[u8], part: &[u8], what: &str) {
    let differs = part.iter().zip(whole).position(|(a, b)| a != b);
    assert!(part.len() <= whole.len() && differs.is_none(), "{what}: other bytes at {differs:?}");
}

/// What the two ends of a call saw is what the plan says. `lossy`: its connection may have been lost.
fn check(plan: &Plan, client: &Got, backend: &[Got], lossy: bool) {
    let [by_client, by_backend] = plan.resets.map(|reset| reset.map(|(_, code)| code));
    begins(&plan.body(1), &client.body, "response");
    match &client.end {
        Ended::Whole(Some(status)) if status.code as u8 == 0 => {
            assert!(by_backend.is_none(), "a reset became OK");
            assert_eq!(client.body.len(), plan.response + 5, "a response that is cut");
        }
        Ended::Whole(Some(status)) => assert!(lossy && status.code as u8 == 14, "{status}"),
        Ended::Reset(code) => {
            // Of one whose connection was lost, a message may be cut: 7 is REFUSED_STREAM.
            let lawful = [by_client, by_backend].contains(&Some(*code)) || lossy && *code == 7;
            assert!(lawful, "reset by {code}");
        }
        end => panic!("{end:?}"),
    }
    for got in backend {
        begins(&plan.body(0), &got.body, "request");
        match &got.end {
            _ if plan.manner == Manner::Early => {}
            Ended::Whole(_) => {
                assert!(by_client.is_none(), "a reset became an end");
                assert_eq!(got.body.len(), plan.request + 5, "a request that is cut");
            }
            Ended::Reset(code) => {
                let lawful = [by_client, by_backend].contains(&Some(*code)) || lossy;
                assert!(lawful, "the backend's was reset by {code}");
            }
            Ended::Lost => assert!(lossy),
        }
    }
    if !lossy && by_client.is_none() {
        assert_eq!(backend.len(), 1, "each call comes once");
    }
}

/// A round of calls that are numbered from `first` on.
async fn round(seed: u64, first: usize, proxy: &Proxy, backend: &Backend) {
    let random = &mut Rng::with_seed(seed);
    let address = proxy.address("otlp");
    let (mut driver, mut senders) = (JoinSet::new(), Vec::new());
    for _ in 0..random.usize(1..=3) {
        senders.push(connect(address, random, &mut driver).await);
    }
    let resets = random.bool();
    backend.shared.restless.store(random.bool(), SeqCst);
    let plans: HashMap<_, _> =
        (first..first + random.usize(1..=32)).map(|id| (id, Plan::new(random, resets))).collect();
    backend.shared.plans.lock().unwrap().clone_from(&plans);
    backend.shared.got.lock().unwrap().clear();
    let mut calls = JoinSet::new();
    for (id, plan) in &plans {
        let (id, plan) = (*id, plan.clone());
        let sender = senders[id % senders.len()].clone();
        let pause = Duration::from_millis(random.u64(..10));
        calls.spawn(async move {
            sleep(pause).await;
            (id, call(sender, address, id, plan).await)
        });
    }
    let lossy = random.u8(..8) == 0;
    if lossy || random.u8(..3) == 0 {
        sleep(Duration::from_millis(random.u64(..20))).await;
        backend.goaway.send_replace(lossy.then_some(Reason::INTERNAL_ERROR));
    }
    let mut seen = HashMap::new();
    while let Some(done) = calls.join_next().await {
        let (id, got) = done.unwrap();
        seen.insert(id, got);
    }
    eventually("no call is in flight", async || {
        proxy.metric(r#"upbeat_streams{listener="otlp",upstream="otlp"}"#).await == 0.0
            && proxy.status().await.upstreams[0].endpoints[0].in_flight == 0
    })
    .await;
    backend.shared.restless.store(false, SeqCst);
    let last = first + CALLS - 1;
    let calm = Plan { request: 1000, response: 1000, chunk: 500, ..Plan::default() };
    backend.shared.plans.lock().unwrap().insert(last, calm.clone());
    let sender = connect(address, random, &mut driver).await;
    seen.insert(last, call(sender, address, last, calm).await);
    // The backend may be a little later to see how it ended.
    eventually("the backend has seen all", async || {
        let got = backend.shared.got.lock().unwrap();
        let missing = |id| !got.contains_key(id);
        lossy || !plans.iter().any(|(id, plan)| plan.resets[0].is_none() && missing(id))
    })
    .await;
    let got = std::mem::take(&mut *backend.shared.got.lock().unwrap());
    let plans = std::mem::take(&mut *backend.shared.plans.lock().unwrap());
    for (id, plan) in &plans {
        let backend = got.get(id).map_or(&[][..], Vec::as_slice);
        let seen = &seen[id];
        let short = |got: &Got| format!("{} bytes, {:?}", got.body.len(), got.end);
        let both: Vec<_> = [seen].into_iter().chain(backend).map(short).collect();
        println!("call {id}: {plan:?}: {both:?}");
        check(plan, seen, backend, lossy);
    }
}

/// What h2 takes in small DATA frames that are not read yet, in bytes: by default so little that a
/// few slow streams of a lawful peer end their connection with ENHANCE_YOUR_CALM.
const SMALL_FRAMES: usize = 16 << 20;

/// Numbers of a round.
const CALLS: usize = 100;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

/// `UPBEAT_SEED` runs one conversation again; `UPBEAT_ROUNDS` asks for more of them.
#[tokio::test]
async fn both_ends_see_what_the_other_sent() {
    let backend = Backend::start().await;
    let config = yaml(&[backend.address], "{ tcp: {} }", "");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    let (seed, rounds) = match number("UPBEAT_SEED") {
        Some(seed) => (seed, 1),
        None => (fastrand::u64(..1 << 48), number("UPBEAT_ROUNDS").unwrap_or(8)),
    };
    for (round_number, seed) in (seed..seed + rounds).enumerate() {
        // Shown where the test fails.
        println!("UPBEAT_SEED={seed}");
        let round = round(seed, round_number * CALLS, &proxy, &backend);
        timeout(Duration::from_secs(10), round).await.expect("a call hangs");
    }
    proxy.stop().await;
}
