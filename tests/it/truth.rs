//! How soon the truth is known, and that every dialect tells the same one.

mod order;
mod rounds;

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use http::{Request, StatusCode};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    process::Command,
    runtime::Runtime,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_stream::StreamExt;
use tonic_health::{ServingStatus, pb, server::HealthReporter};
use upbeat::grpc::{self, HealthListResponse};

use crate::{
    fixture::{
        caller::{Caller, get, read},
        echo::Echo,
        endpoint::Endpoint,
        eventually,
        proxy::{CHECK, Proxy, yaml},
    },
    health::watch,
    probe,
};

/// An endpoint on a runtime of its own, so that it can die with all its connections.
struct Mortal {
    runtime: Runtime,
    endpoint: Endpoint,
}

impl Mortal {
    async fn start() -> Self {
        let start = || {
            let runtime = Runtime::new().unwrap();
            let endpoint = runtime.block_on(Endpoint::start());
            runtime.block_on(endpoint.health.set_service_status("", ServingStatus::Serving));
            Self { runtime, endpoint }
        };
        tokio::task::spawn_blocking(start).await.unwrap()
    }

    fn die(self) {
        self.runtime.shutdown_background();
    }
}

/// Every dialect of one listener, each on a kept connection where it can.
pub(crate) struct Dialects {
    http2: Caller,
    address: SocketAddr,
}

impl Dialects {
    async fn of(proxy: &Proxy) -> Self {
        Self::at(proxy.address("otlp")).await
    }

    pub(crate) async fn at(address: SocketAddr) -> Self {
        Self { http2: Caller::connect(address).await, address }
    }

    pub(crate) async fn check(&mut self) -> bool {
        let reply = self.http2.unary(CHECK, &[0; 5]).await.unwrap();
        let response: grpc::HealthCheckResponse =
            grpc::decode_unary(&reply.body, None, 100).unwrap();
        response.status == 1
    }

    /// Waits until each of them says whether it serves, as expected.
    async fn all_say(&mut self, serves: bool) {
        while self.check().await != serves
            || self.others().await.iter().any(|(_, says)| *says != serves)
        {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// All but Check and Watch, whether they say SERVING.
    pub(crate) async fn others(&mut self) -> [(&'static str, bool); 4] {
        let [list, alb, over_http2] = self.kept().await;
        let over_http1 = get(self.address, "/").await.0 == StatusCode::OK;
        [list, alb, over_http2, ("GET over HTTP/1.1", over_http1)]
    }

    /// Those that are asked on a connection that is kept.
    pub(crate) async fn kept(&mut self) -> [(&'static str, bool); 3] {
        let list = self.http2.unary("/grpc.health.v1.Health/List", &[0; 5]).await.unwrap();
        let list: HealthListResponse = grpc::decode_unary(&list.body, None, 1000).unwrap();
        let alb = self.http2.unary("/AWS.ALB/healthcheck", &[]).await.unwrap().code();
        let request = Request::get("http://upbeat/healthz").body(()).unwrap();
        let call = self.http2.send(request, true).await.unwrap();
        let over_http2 = read(call.response.await.unwrap()).await.unwrap().head.status();
        assert!([12, 14].contains(&alb), "{alb}");
        [
            ("List", list.statuses[""].status == 1),
            ("ALB", alb == 12),
            ("GET over HTTP/2", over_http2 == StatusCode::OK),
        ]
    }
}

/// A configuration with probes so far apart that none is awaited, and two to fall.
fn two_to_fall(address: SocketAddr, check: &str) -> String {
    let ours = "interval: 10s, timeout: 8s, unhealthy_threshold: 2";
    yaml(&[address], check, "").replace("interval: 300ms, timeout: 290ms", ours)
}

/// How long after `happens` every dialect says NOT_SERVING.
async fn seen_after(what: &str, config: &str, happens: impl AsyncFnOnce()) -> Duration {
    let proxy = Proxy::start(config).await;
    proxy.wait_serving().await;
    let mut dialects = Dialects::of(&proxy).await;
    let mut watch = watch(proxy.address("otlp"), "").await;
    let serving = pb::health_check_response::ServingStatus::Serving;
    assert_eq!(watch.next().await.unwrap().unwrap().status(), serving);
    // Somewhere between two probes, with every connection made.
    sleep(Duration::from_millis(137)).await;

    let start = Instant::now();
    happens().await;
    let told = async {
        assert_ne!(watch.next().await.unwrap().unwrap().status(), serving);
        start.elapsed()
    };
    let asked = async {
        dialects.all_say(false).await;
        start.elapsed()
    };
    let (told, asked) = tokio::join!(told, asked);
    let slowest = told.max(asked);
    eprintln!("{what}: NOT_SERVING by Watch after {told:?}, by every dialect after {slowest:?}");
    proxy.stop().await;
    slowest
}

/// Long before the next probe. It is 2 to 33 ms on a machine of its own; tests share theirs.
const SOON: Duration = Duration::from_secs(4);

#[tokio::test]
async fn death_is_seen_by_every_dialect_long_before_the_next_probe() {
    for check in ["{ otlp: {} }", "{ grpc: { metadata: { x-scope-orgid: a } } }"] {
        let echo = Echo::start().await;
        let config = two_to_fall(echo.address(), check);
        let took = seen_after(&format!("death, {check}"), &config, async || drop(echo)).await;
        assert!(took < SOON, "{check}: {took:?}");
    }
    let web = probe::http("HTTP/1.1 200 x\r\ncontent-length: 0\r\n\r\n").await;
    let config = two_to_fall(web.address, "{ http: {} }");
    let took = seen_after("death, { http: {} }", &config, async || drop(web)).await;
    assert!(took < SOON, "http: {took:?}");
}

#[tokio::test]
async fn death_of_a_watched_endpoint_is_seen_as_soon() {
    let mortal = Mortal::start().await;
    let config = two_to_fall(mortal.endpoint.grpc(), "{ grpc: { watch: true } }");
    let took = seen_after("death, watched", &config, async || mortal.die()).await;
    assert!(took < SOON, "{took:?}");
}

#[tokio::test]
async fn not_serving_is_seen_when_the_endpoint_says_it() {
    let endpoint = Endpoint::start().await;
    endpoint.health.set_service_status("", ServingStatus::Serving).await;
    let config = two_to_fall(endpoint.grpc(), "{ grpc: { watch: true } }");
    let took = seen_after("NOT_SERVING, watched", &config, async || {
        endpoint.health.set_service_status("", ServingStatus::NotServing).await;
    })
    .await;
    assert!(took < SOON, "{took:?}");
}

/// A proxy whose interval is out of a test's reach.
async fn patient(address: SocketAddr, check: &str) -> Proxy {
    let patient = "interval: 60s, timeout: 5s, healthy_threshold: 1";
    let config = yaml(&[address], check, "").replace("interval: 300ms, timeout: 290ms", patient);
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    proxy
}

#[tokio::test]
async fn a_watched_endpoint_comes_back_when_it_says_so_with_the_reason_told_meanwhile() {
    let endpoint = Endpoint::start().await;
    endpoint.health.set_service_status("", ServingStatus::Serving).await;
    let proxy = patient(
        endpoint.grpc(),
        "{ otlp: { port: PORT } }, { grpc: { watch: true } }"
            .replace("PORT", &endpoint.otlp().port().to_string())
            .as_str(),
    )
    .await;
    endpoint.health.set_service_status("", ServingStatus::NotServing).await;
    proxy.wait_not_serving().await;
    let reason = proxy.status().await.upstreams[0].endpoints[0].reason.clone();
    assert_eq!(reason, "grpc: NOT_SERVING (by Watch)");
    endpoint.health.set_service_status("", ServingStatus::Serving).await;
    proxy.wait_serving().await;
    proxy.stop().await;
}

#[tokio::test]
async fn an_endpoint_without_watch_is_known_by_check_and_a_note_says_so() {
    let echo = Echo::start().await;
    let check = "{ grpc: { watch: true, metadata: { x-scope-orgid: a } } }";
    let proxy = patient(echo.address(), check).await;
    let note = "has no Watch (UNIMPLEMENTED): known by Check alone";
    eventually("the note", async || proxy.status().await.upstreams[0].endpoints[0].note == note)
        .await;
    assert_eq!(proxy.check().await, 1);
    assert_eq!(proxy.status().await.upstreams[0].endpoints[0].reason, "");
    proxy.stop().await;
}

#[tokio::test]
async fn a_watch_that_ends_is_followed_by_a_probe_and_held_again() {
    let endpoint = Endpoint::start().await;
    endpoint.health.set_service_status("tempo", ServingStatus::Serving).await;
    let proxy = patient(endpoint.grpc(), "{ grpc: { watch: true, service: tempo } }").await;
    let mut health: HealthReporter = endpoint.health.clone();
    // tonic-health ends the streams of a service that is taken away.
    health.clear_service_status("tempo").await;
    let note = async || proxy.status().await.upstreams[0].endpoints[0].note.clone();
    eventually("the note", async || {
        note().await.starts_with("Watch ended") || note().await.starts_with("no Watch")
    })
    .await;
    // Seen by the probe after it, at an interval of a minute.
    proxy.wait_not_serving().await;
    endpoint.health.set_service_status("tempo", ServingStatus::Serving).await;
    eventually("held again", async || note().await.is_empty()).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_watch_does_not_hold_up_an_endpoint_that_stops_gracefully() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (health, service) = tonic_health::server::health_reporter();
    health.set_service_status("", ServingStatus::Serving).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut server = JoinSet::new();
    server.spawn(async {
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(socket);
        let server = tonic::transport::Server::builder().add_service(service);
        let stopped = async { stopped.await.unwrap() };
        server.serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
    });
    let proxy = patient(address, "{ grpc: { watch: true } }").await;
    // Its stream is open once it brings news.
    health.set_service_status("", ServingStatus::NotServing).await;
    proxy.wait_not_serving().await;
    stop.send(()).unwrap();
    timeout(Duration::from_secs(20), server.join_next()).await.expect("it stops").unwrap().unwrap();
    proxy.stop().await;
}

#[tokio::test]
async fn a_goaway_is_followed_by_a_probe_at_once() {
    let echo = Echo::start().await;
    let proxy = patient(echo.address(), "{ otlp: {} }").await;
    assert_eq!(echo.seen().streams.load(SeqCst), 1);
    echo.go_away();
    eventually("another probe", async || echo.seen().streams.load(SeqCst) == 2).await;
    assert_eq!(echo.seen().connections.load(SeqCst), 2);
    assert_eq!(proxy.check().await, 1);
    proxy.stop().await;
}

#[tokio::test]
async fn a_peer_that_closes_each_connection_is_not_probed_without_end() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut buffer = [0; 1024];
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            count.fetch_add(1, SeqCst);
            // Answers as one that keeps connections, and does not.
            _ = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await;
            let answer = b"HTTP/1.1 200 x\r\ncontent-length: 0\r\n\r\n";
            _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
        }
    });
    let proxy = patient(address, "{ http: {} }").await;
    eventually("the allowance is spent", async || taken.load(SeqCst) >= 8).await;
    sleep(Duration::from_millis(300)).await;
    let taken = taken.load(SeqCst);
    assert!((8..=20).contains(&taken), "{taken} connections");
    assert_eq!(proxy.check().await, 1, "each probe passed");
    proxy.stop().await;
}

#[tokio::test]
async fn a_thousand_flips_are_told_alike_by_every_dialect() {
    let endpoint = Endpoint::start().await;
    endpoint.health.set_service_status("", ServingStatus::Serving).await;
    // Fast to rise; to fall by the endpoint's word alone, however slow the machine is.
    let probe = "interval: 10ms, timeout: 9ms, healthy_threshold: 1, unhealthy_threshold: 100, stale_after: 1m";
    let config = yaml(&[endpoint.grpc()], "{ grpc: { watch: true } }", "")
        .replace("interval: 300ms, timeout: 290ms", probe);
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    let mut dialects = Dialects::of(&proxy).await;
    let mut watch = watch(proxy.address("otlp"), "").await;
    watch.next().await.unwrap().unwrap();
    let mut samples = 0;
    for flip in 0..1000 {
        let serves = flip % 2 == 1;
        let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        endpoint.health.set_service_status("", status).await;
        let mut before = dialects.check().await;
        loop {
            let others = dialects.others().await;
            let admin = match flip % 10 {
                0 => get(proxy.admin(), "/readyz").await.0 == StatusCode::OK,
                1 => proxy.status().await.services[0].status == "SERVING",
                2 => proxy.metric(r#"upbeat_service_serving{service=""}"#).await == 1.0,
                _ => before,
            };
            let after = dialects.check().await;
            samples += 1;
            // One flip at a time: where Check said the same before and after, so must all.
            if before == after {
                for (dialect, said) in others.into_iter().chain([("admin", admin)]) {
                    assert_eq!(said, after, "{dialect}, flip {flip}");
                }
            }
            before = after;
            if after == serves {
                break;
            }
        }
        // Watch tells each flip, once and in order.
        let told = timeout(Duration::from_secs(20), watch.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(told.status == 1, serves, "Watch, flip {flip}");
    }
    eprintln!("1000 flips, {samples} samples of every dialect");
    drop(watch);
    proxy.stop().await;
}

/// A process of its own, since it is short of descriptors.
#[tokio::test]
async fn an_endpoint_that_cannot_be_probed_for_our_own_fault_becomes_unknown_not_unhealthy() {
    let echo = Echo::start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let probe = "interval: 300ms, timeout: 290ms, unhealthy_threshold: 1, stale_after: 1s";
    let config = yaml(&[echo.address()], "{ tcp: {} }", "")
        .replacen("127.0.0.1:0", &free.to_string(), 1)
        .replace("interval: 300ms, timeout: 290ms", probe);
    let path = std::env::temp_dir().join(format!("upbeat-truth-{}.yaml", free.port()));
    let log = path.with_extension("log");
    std::fs::write(&path, config).unwrap();
    let mut process = Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$0\" run --config \"$1\""])
        .args([env!("CARGO_BIN_EXE_upbeat").as_ref(), path.as_os_str()])
        .stderr(Stdio::from(std::fs::File::create(&log).unwrap()))
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    eventually("it listens", async || TcpStream::connect(free).await.is_ok()).await;
    let mut caller = Caller::connect(free).await;
    let mut status = async || {
        let request = Request::get("http://upbeat/").body(()).unwrap();
        let call = caller.send(request, true).await.unwrap();
        call.response.await.unwrap().status()
    };
    while status().await != StatusCode::OK {
        sleep(Duration::from_millis(5)).await;
    }
    // Not running at all, it learned nothing either.
    signal(&process, "STOP").await;
    sleep(Duration::from_millis(1500)).await;
    signal(&process, "CONT").await;
    // Counted in the log: what a dialect says a moment after may still be from before.
    let logged = |words: &str| std::fs::read_to_string(&log).unwrap().matches(words).count();
    let too_old = "\"not probed for 1s\"";
    eventually("what it knew is too old", async || logged(too_old) > 0).await;
    let healthy = "to=healthy";
    eventually("it knows anew", async || logged(healthy) > 1).await;

    // Fewer than it has open already.
    let process_id = Pid::from_raw(process.id().unwrap().try_into().unwrap());
    let limited = |current| {
        let limit = Rlimit { current: Some(current), maximum: Some(64) };
        prlimit(process_id, Resource::Nofile, limit).unwrap();
    };
    limited(8);
    let start = Instant::now();
    eventually("it is unknown again", async || logged("not probed for 1s (tcp: ") > 0).await;
    while status().await == StatusCode::OK {
        assert!(start.elapsed() < Duration::from_secs(20), "never unknown");
        sleep(Duration::from_millis(5)).await;
    }
    limited(64);
    while status().await != StatusCode::OK {
        assert!(start.elapsed() < Duration::from_secs(40), "never back");
        sleep(Duration::from_millis(5)).await;
    }
    process.start_kill().unwrap();
    process.wait().await.unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(!said.contains("unhealthy"), "{said}");
    std::fs::remove_file(path).unwrap();
    std::fs::remove_file(log).unwrap();
}

async fn signal(process: &tokio::process::Child, name: &str) {
    let pid = process.id().unwrap().to_string();
    let status = Command::new("kill").args(["-s", name, &pid]).status().await.unwrap();
    assert!(status.success(), "kill -s {name}");
}
