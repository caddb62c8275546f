//! Which endpoint a call goes to, and which are left alone: ejection for faults of transport,
//! backups, bounds on calls in flight, and hashing.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use http::{Request, header};
use tokio::{net::TcpListener, task::JoinSet};
use tonic_types::StatusExt;
use upbeat::admin::EndpointStatus;

use crate::fixture::{
    caller::{Call, Caller, read},
    echo::Echo,
    eventually,
    proxy::{Proxy, yaml},
    wire::{END_STREAM, Message, Wire},
};

const UNARY: &str = "/test.Echo/Unary";
const HANG: &str = "/test.Echo/Hang";

/// An endpoint that ends every call in the way that it is told.
pub(crate) struct Moody {
    pub(crate) address: SocketAddr,
    mood: Arc<AtomicU32>,
    calls: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

/// A mood that is no grpc-status: every stream is reset by INTERNAL_ERROR.
pub(crate) const RESETS: u32 = 102;
/// The same by PROTOCOL_ERROR, which is the request's fault.
const BLAMES: u32 = 101;
/// Every connection is closed at its first call.
const CLOSES: u32 = 200;

impl Moody {
    pub(crate) async fn start(mood: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mood, calls) = (Arc::new(AtomicU32::new(mood)), Arc::new(AtomicUsize::new(0)));
        let (told, seen) = (Arc::clone(&mood), Arc::clone(&calls));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let mut wire = Wire::accept(&listener).await;
                wire.patience = Duration::from_secs(60);
                let (told, seen) = (Arc::clone(&told), Arc::clone(&seen));
                connections.spawn(async move {
                    while let Some(frame) = wire.next().await {
                        if frame.kind > 1 || !frame.has(END_STREAM) {
                            continue;
                        }
                        seen.fetch_add(1, SeqCst);
                        match told.load(SeqCst) {
                            mood @ (RESETS | BLAMES) => wire.reset(frame.stream, mood - 100).await,
                            CLOSES => return,
                            status => wire.play(frame.stream, &trailers_only(status), 16_384).await,
                        }
                    }
                });
            }
        });
        Self { address, mood, calls, _tasks: tasks }
    }

    pub(crate) fn is_now(&self, mood: u32) {
        self.mood.store(mood, SeqCst);
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }
}

fn trailers_only(status: u32) -> Message {
    let status = status.to_string();
    let fields =
        [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", &status)];
    Message::new(&fields)
}

/// A proxy of one worker with `keys` for its upstream, all of whose endpoints are healthy.
async fn proxy(endpoints: &[SocketAddr], keys: &str) -> Proxy {
    let config = yaml(endpoints, "{ tcp: {} }", "")
        .replace("workers: 2", "workers: 1")
        .replace("    probe:", &format!("    {keys}\n    probe:"));
    let proxy = Proxy::start(&config).await;
    all_healthy(&proxy, endpoints.len()).await;
    proxy
}

async fn all_healthy(proxy: &Proxy, count: usize) {
    eventually("all are healthy", async || proxy.status().await.upstreams[0].healthy == count)
        .await;
}

async fn endpoint(proxy: &Proxy, address: SocketAddr) -> EndpointStatus {
    let endpoints = proxy.status().await.upstreams.remove(0).endpoints;
    endpoints.into_iter().find(|it| it.endpoint == address.to_string()).unwrap()
}

async fn ejected(proxy: &Proxy) -> usize {
    let endpoints = proxy.status().await.upstreams.remove(0).endpoints;
    endpoints.iter().filter(|it| it.ejected.is_some()).count()
}

/// A call to its end, however it ends.
async fn call(proxy: &Proxy) -> Option<u8> {
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    caller.unary(UNARY, &[0; 5]).await.ok().map(|reply| reply.code())
}

#[tokio::test]
async fn an_endpoint_that_closes_its_connections_is_ejected() {
    let (bad, good) = (Moody::start(CLOSES).await, Moody::start(0).await);
    let proxy = proxy(&[bad.address, good.address], "ejection: { base_time: 60s }").await;
    // Between these it is connected to anew, and the other has all calls.
    let failed = AtomicUsize::new(0);
    eventually("it has five calls", async || {
        failed.fetch_add(usize::from(call(&proxy).await == Some(14)), SeqCst);
        bad.calls() == 5
    })
    .await;
    assert_eq!(failed.load(SeqCst), 5);
    let state = endpoint(&proxy, bad.address).await;
    let ejection = state.ejected.expect("it is ejected");
    assert_eq!((&*state.health, &*ejection.reason), ("healthy", "closed"));
    assert_eq!(proxy.check().await, 1, "the board is its probes'");
    let labels = format!(r#"upstream="otlp",endpoint="{}""#, bad.address);
    assert_eq!(proxy.metric(&format!("upbeat_endpoint_ejected{{{labels}}}")).await, 1.0);
    let counter = format!("upbeat_ejections_total{{{labels},reason=\"closed\"}}");
    assert_eq!(proxy.metric(&counter).await, 1.0);
    for _ in 0..20 {
        assert_eq!(call(&proxy).await, Some(0));
    }
    assert_eq!(bad.calls(), 5, "it got none of them");
    proxy.stop().await;
}

#[tokio::test]
async fn an_ejected_endpoint_comes_back_by_a_probe() {
    let (bad, good) = (Moody::start(CLOSES).await, Moody::start(0).await);
    let proxy = proxy(&[bad.address, good.address], "ejection: { base_time: 700ms }").await;
    let labels = format!(r#"upstream="otlp",endpoint="{}""#, bad.address);
    let counter = format!("upbeat_ejections_total{{{labels},reason=\"closed\"}}");
    eventually("it is ejected", async || {
        call(&proxy).await;
        proxy.metric(&counter).await >= 1.0
    })
    .await;
    bad.is_now(0);
    eventually("it is back", async || ejected(&proxy).await == 0).await;
    let before = bad.calls();
    eventually("it gets calls again", async || {
        assert_eq!(call(&proxy).await, Some(0));
        bad.calls() > before
    })
    .await;
    assert_eq!(proxy.metric(&format!("upbeat_endpoint_ejected{{{labels}}}")).await, 0.0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_complete_response_never_ejects_whatever_its_status() {
    let (moody, other) = (Moody::start(14).await, Moody::start(0).await);
    let proxy = proxy(&[moody.address, other.address], "min_healthy: 1").await;
    for status in [14, 8, 2, 13] {
        moody.is_now(status);
        let target = moody.calls() + 20;
        while moody.calls() < target {
            call(&proxy).await.expect("a whole response");
        }
        assert_eq!(ejected(&proxy).await, 0, "{status}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_whose_requests_are_at_fault_has_nothing_ejected() {
    let (moody, other) = (Moody::start(BLAMES).await, Moody::start(0).await);
    let proxy = proxy(&[moody.address, other.address], "load_balancing: round_robin").await;
    while moody.calls() < 30 {
        call(&proxy).await;
    }
    assert_eq!(ejected(&proxy).await, 0);
    proxy.stop().await;
}

#[tokio::test]
async fn no_more_are_ejected_than_may_be_and_one_endpoint_is_never() {
    let [a, b, c] =
        [Moody::start(CLOSES).await, Moody::start(CLOSES).await, Moody::start(CLOSES).await];
    let three = [a.address, b.address, c.address];
    let two = proxy(&three, "ejection: { base_time: 60s, max_ejected: 70% }").await;
    eventually("two are ejected", async || {
        call(&two).await;
        ejected(&two).await == 2
    })
    .await;
    for _ in 0..40 {
        call(&two).await;
    }
    assert_eq!(ejected(&two).await, 2, "of three, 70 %");
    two.stop().await;

    a.is_now(RESETS);
    let alone = proxy(&three[..1], "min_healthy: 1").await;
    let before = a.calls();
    for _ in 0..30 {
        assert_eq!(call(&alone).await, None, "it is still given calls");
    }
    assert_eq!((ejected(&alone).await, a.calls() - before), (0, 30));
    alone.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_lost_with_many_calls_is_one_fault_and_a_polite_end_is_none() {
    let (listener, other) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Echo::start().await);
    let address = listener.local_addr().unwrap();
    let proxy = proxy(&[address, other.address()], "min_healthy: 1").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut hanging = Vec::new();
    for _ in 0..40 {
        hanging.push(caller.open(HANG).await.unwrap());
    }
    let mut wire = Wire::accept(&listener).await;
    eventually("they are spread", async || endpoint(&proxy, address).await.in_flight == 20).await;
    wire.begun(39).await;
    drop(wire);
    let mut next = JoinSet::new();
    next.spawn(async move {
        let mut wires = Vec::new();
        loop {
            wires.push(Wire::accept(&listener).await);
        }
    });
    eventually("they are lost", async || endpoint(&proxy, address).await.in_flight == 0).await;
    assert_eq!(ejected(&proxy).await, 0);
    drop(hanging);

    for _ in 0..10 {
        let seen = other.seen().connections.load(SeqCst);
        other.go_away();
        eventually("it is connected to anew", async || {
            other.seen().connections.load(SeqCst) > seen
        })
        .await;
    }
    assert_eq!(ejected(&proxy).await, 0);
    drop(caller);
    proxy.stop().await;
}

/// The last endpoint is a backup.
fn with_backup(main: &Echo, backup: &Echo) -> String {
    let endpoints =
        format!("[{{ address: \"{}\", backup: true }}, \"{}\"]", backup.address(), main.address());
    let listed = format!("[\"{}\"]", main.address());
    yaml(&[main.address()], "{ tcp: {} }", "")
        .replace(&listed, &endpoints)
        .replace("workers: 2", "workers: 1")
}

/// What probes do not know yet is no reason to fail a call that nobody has processed.
#[tokio::test]
async fn a_backup_takes_the_calls_that_could_not_reach_any_other() {
    let (main, backup) = (Echo::start().await, Echo::start().await);
    let config = with_backup(&main, &backup)
        .replace("interval: 300ms, timeout: 290ms", "interval: 60s, timeout: 5s")
        .replace("    probe:", "    ejection: { max_ejected: \"0%\" }\n    probe:");
    let proxy = Proxy::start(&config).await;
    all_healthy(&proxy, 2).await;
    assert_eq!(call(&proxy).await, Some(0));
    let address = main.address();
    drop(main);
    let open = format!(r#"upbeat_upstream_connections{{upstream="otlp",endpoint="{address}"}}"#);
    eventually("its connections are gone", async || proxy.metric(&open).await == 0.0).await;
    for _ in 0..20 {
        assert_eq!(call(&proxy).await, Some(0));
    }
    assert_eq!(endpoint(&proxy, address).await.health, "healthy");
    assert_eq!(backup.seen().streams.load(SeqCst), 20);
    proxy.stop().await;
}

#[tokio::test]
async fn a_backup_takes_calls_only_while_nothing_else_is_there() {
    let (main, backup) = (Echo::start().await, Echo::start().await);
    let proxy = Proxy::start(&with_backup(&main, &backup)).await;
    all_healthy(&proxy, 2).await;
    let state = endpoint(&proxy, backup.address()).await;
    assert!(state.backup);
    for _ in 0..20 {
        assert_eq!(call(&proxy).await, Some(0));
    }
    let streams = |echo: &Echo| echo.seen().streams.load(SeqCst);
    assert_eq!((streams(&main), streams(&backup)), (20, 0));

    let address = main.address();
    drop(main);
    eventually("it is known", async || endpoint(&proxy, address).await.health == "unhealthy").await;
    for _ in 0..20 {
        assert_eq!(call(&proxy).await, Some(0));
    }
    assert_eq!(streams(&backup), 20);
    let main = Echo::start_at(address, None).await;
    // Its probe passes before the next attempt to connect for calls.
    eventually("it takes calls", async || {
        assert_eq!(call(&proxy).await, Some(0));
        streams(&main) > 0
    })
    .await;
    let before = (streams(&main), streams(&backup));
    for _ in 0..20 {
        assert_eq!(call(&proxy).await, Some(0));
    }
    assert_eq!((streams(&main), streams(&backup)), (before.0 + 20, before.1));
    proxy.stop().await;
}

#[tokio::test]
async fn a_call_beyond_an_endpoints_bound_is_bidden_to_come_back() {
    let echo = Echo::start().await;
    let keys = "admission: { max_in_flight_per_endpoint: 2, max_queue: 0 }";
    let proxy = proxy(&[echo.address()], keys).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut hanging: Vec<Call> = Vec::new();
    for _ in 0..2 {
        hanging.push(caller.open(HANG).await.unwrap());
    }
    eventually("both are there", async || echo.seen().open.load(SeqCst) == 2).await;
    let reply = caller.unary(UNARY, &[0; 5]).await.unwrap();
    let status = tonic::Status::from_header_map(reply.head.headers()).unwrap();
    assert_eq!(
        (status.code(), status.message()),
        (tonic::Code::Unavailable, "upstream otlp is full")
    );
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    assert_eq!(proxy.metric(r#"upbeat_shed_total{upstream="otlp",reason="full"}"#).await, 1.0);
    let labels = format!(r#"{{upstream="otlp",endpoint="{}"}}"#, echo.address());
    for (name, expected) in [("in_flight", 2.0), ("limit", 2.0)] {
        let value = proxy.metric(&format!("upbeat_endpoint_{name}{labels}")).await;
        assert_eq!(value, expected, "{name}");
    }
    drop(hanging);
    eventually("there is room", async || call(&proxy).await == Some(0)).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_tenant_keeps_its_endpoint_where_calls_are_hashed_by_it() {
    let endpoints = [Echo::start().await, Echo::start().await, Echo::start().await];
    let addresses = endpoints.each_ref().map(Echo::address);
    let proxy = proxy(&addresses, "hash_by: x-scope-orgid").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut homes = std::collections::BTreeSet::new();
    let seen = || endpoints.each_ref().map(|echo| echo.seen().streams.load(SeqCst));
    for tenant in 0..16 {
        let before = seen();
        for _ in 0..5 {
            let request = Request::post(format!("http://upbeat{UNARY}"))
                .header(header::CONTENT_TYPE, "application/grpc")
                .header(header::TE, "trailers")
                .header("x-scope-orgid", format!("tenant-{tenant}"));
            let mut call = caller.send(request.body(()).unwrap(), false).await.unwrap();
            call.request.send_data(bytes::Bytes::from_static(&[0; 5]), true).unwrap();
            assert_eq!(read(call.response.await.unwrap()).await.unwrap().code(), 0);
        }
        let after = seen();
        let home = (0..3).find(|index| after[*index] == before[*index] + 5);
        homes.insert(home.unwrap_or_else(|| panic!("{before:?} {after:?}")));
    }
    assert_eq!(homes.len(), 3, "tenants are spread");
    for _ in 0..30 {
        assert_eq!(caller.unary(UNARY, &[0; 5]).await.unwrap().code(), 0);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_is_silent_up_to_the_clients_deadlines_is_ejected() {
    let (silent, other) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Echo::start().await);
    let address = silent.local_addr().unwrap();
    let _frozen = JoinSet::from_iter([async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            // It has said its SETTINGS, and then nothing any more.
            _ = stream.try_write(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
            held.push(stream);
        }
    }]);
    let proxy = proxy(&[address, other.address()], "load_balancing: round_robin").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    for (timeout, ejected_then) in [("300m", 0), ("1200m", 1)] {
        let mut calls = JoinSet::new();
        for _ in 0..12 {
            let request = Request::post(format!("http://h{UNARY}"))
                .header("content-type", "application/grpc")
                .header("grpc-timeout", timeout);
            let call = caller.send(request.body(()).unwrap(), true).await.unwrap();
            calls.spawn(async move { read(call.response.await.unwrap()).await.unwrap().code() });
        }
        while let Some(code) = calls.join_next().await {
            assert!(matches!(code.unwrap(), 0 | 4));
        }
        assert_eq!(ejected(&proxy).await, ejected_then, "{timeout}");
    }
    drop(caller);
    proxy.stop().await;
}
