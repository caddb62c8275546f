//! Probes against real servers: what passes, what does not, and what is said of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tonic_health::ServingStatus;

use crate::fixture::{
    echo::Echo,
    endpoint::Endpoint,
    eventually,
    proxy::{Proxy, yaml},
};

/// What the first probe says of the only endpoint, which must be unhealthy.
async fn reason(address: SocketAddr, check: &str) -> String {
    reason_within("30s", address, check).await
}

async fn reason_within(timeout: &str, address: SocketAddr, check: &str) -> String {
    let patient = format!("interval: 60s, timeout: {timeout}");
    let config = yaml(&[address], check, "").replace("interval: 300ms, timeout: 290ms", &patient);
    assert!(config.contains(&patient));
    let proxy = Proxy::start(&config).await;
    let state = async || {
        let mut status = proxy.status().await;
        status.upstreams.remove(0).endpoints.remove(0)
    };
    eventually("it was probed", async || state().await.health != "unknown").await;
    let state = state().await;
    assert_eq!(state.health, "unhealthy");
    proxy.stop().await;
    state.reason
}

async fn passes(address: SocketAddr, check: &str) {
    let proxy = Proxy::start(&yaml(&[address], check, "")).await;
    proxy.wait_serving().await;
    proxy.stop().await;
}

/// An HTTP/1.1 server that answers every request alike; counts connections and requests.
pub(crate) struct Http {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    pub(crate) requests: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

pub(crate) async fn http(answer: &'static str) -> Http {
    http_at(([127, 0, 0, 1], 0).into(), answer).await
}

pub(crate) async fn http_at(address: SocketAddr, answer: &'static str) -> Http {
    let socket = TcpListener::from_std(upbeat::net::listen(address).unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (all, each) = (Arc::clone(&connections), Arc::clone(&requests));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            all.fetch_add(1, SeqCst);
            let each = Arc::clone(&each);
            open.spawn(async move {
                let mut seen = Vec::new();
                let mut buffer = [0; 1024];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    seen.extend_from_slice(&buffer[..read]);
                    if seen.windows(4).any(|end| end == b"\r\n\r\n") {
                        // Of the HTTP/2 preface, a server like this takes the first half.
                        let known: [&[u8]; 2] = [b"GET /ready HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n"];
                        assert!(known.iter().any(|line| seen.starts_with(line)), "{seen:?}");
                        seen.clear();
                        each.fetch_add(1, SeqCst);
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    Http { address, connections, requests, _tasks: tasks }
}

#[tokio::test]
async fn an_empty_export_passes_at_an_otlp_receiver() {
    let endpoint = Endpoint::start().await;
    passes(endpoint.otlp(), "{ otlp: {} }").await;
}

#[tokio::test]
async fn an_export_where_there_is_no_receiver_names_the_key_to_set() {
    let endpoint = Endpoint::start().await;
    assert_eq!(
        reason(endpoint.grpc(), "{ otlp: {} }").await,
        "otlp: 12 (UNIMPLEMENTED): no OTLP trace receiver there; \
         set upstreams.otlp.probe.checks[0].otlp.port, or another check in its place"
    );
}

#[tokio::test]
async fn a_health_check_where_there_is_no_health_service_names_the_key_to_set() {
    let endpoint = Endpoint::start().await;
    assert_eq!(
        reason(endpoint.otlp(), "{ tcp: {} }, { grpc: {} }").await,
        "grpc: 12 (UNIMPLEMENTED): no health service there; \
         set upstreams.otlp.probe.checks[1].grpc.port, or use otlp: {} for an OpenTelemetry receiver"
    );
}

#[tokio::test]
async fn a_backend_that_wants_a_tenant_names_the_key_to_set() {
    let tempo = Echo::start().await;
    assert_eq!(
        reason(tempo.address(), "{ grpc: {} }").await,
        "grpc: 2 (UNKNOWN) \"no org id\": the backend wants a tenant; \
         set upstreams.otlp.probe.checks[0].grpc.metadata.x-scope-orgid"
    );
    passes(tempo.address(), "{ grpc: { metadata: { x-scope-orgid: health } } }").await;
}

#[tokio::test]
async fn a_grpc_check_asks_for_its_service_and_follows_its_state() {
    let endpoint = Endpoint::start().await;
    endpoint.health.set_service_status("tempo", ServingStatus::Serving).await;
    let check = format!("{{ grpc: {{ service: tempo, port: {} }} }}", endpoint.grpc().port());
    let proxy = Proxy::start(&yaml(&[endpoint.otlp()], &check, "")).await;
    proxy.wait_serving().await;
    endpoint.health.set_service_status("tempo", ServingStatus::NotServing).await;
    proxy.wait_not_serving().await;
    let status = proxy.status().await;
    let reason = &status.upstreams[0].endpoints[0].reason;
    assert!(reason.starts_with("grpc: NOT_SERVING"), "{reason}");
    endpoint.health.set_service_status("tempo", ServingStatus::Serving).await;
    proxy.wait_serving().await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_service_that_the_backend_does_not_know_names_the_key_to_set() {
    let endpoint = Endpoint::start().await;
    let said = reason(endpoint.grpc(), "{ grpc: { service: nobody } }").await;
    assert!(said.starts_with("grpc: 5 (NOT_FOUND)"), "{said}");
    assert!(said.contains("set upstreams.otlp.probe.checks[0].grpc.service"), "{said}");
}

#[tokio::test]
async fn every_check_must_pass_and_each_failure_is_told() {
    let endpoint = Endpoint::start().await;
    let web = http("HTTP/1.1 503 x\r\ncontent-length: 22\r\n\r\nSome services not up\r\n").await;
    let checks = format!("{{ otlp: {{}} }}, {{ http: {{ port: {} }} }}", web.address.port());
    assert_eq!(
        reason(endpoint.otlp(), &checks).await,
        "http: GET /ready answered 503 Service Unavailable: \"Some services not up\""
    );
}

#[tokio::test]
async fn http_expects_the_configured_status_and_keeps_its_connection() {
    let web = http("HTTP/1.1 204 x\r\n\r\n").await;
    passes(web.address, "{ http: { status: 204 } }").await;
    let said = reason(web.address, "{ http: {} }").await;
    assert_eq!(said, "http: GET /ready answered 204 No Content");

    let proxy = Proxy::start(&yaml(&[web.address], "{ http: { status: 204 } }", "")).await;
    let (connections, requests) = (web.connections.load(SeqCst), web.requests.load(SeqCst));
    eventually("ten probes", async || web.requests.load(SeqCst) >= requests + 10).await;
    assert_eq!(web.connections.load(SeqCst), connections + 1);
    proxy.stop().await;
}

#[tokio::test]
async fn grpc_probes_keep_their_connection() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(&yaml(&[echo.address()], "{ otlp: {} }", "")).await;
    eventually("ten probes", async || echo.seen().streams.load(SeqCst) >= 10).await;
    assert_eq!(echo.seen().connections.load(SeqCst), 1);
    echo.go_away();
    let probes = echo.seen().streams.load(SeqCst);
    eventually("ten more", async || echo.seen().streams.load(SeqCst) >= probes + 10).await;
    assert_eq!(echo.seen().connections.load(SeqCst), 2, "made anew once");
    // A connection that was closed between two probes is no failure.
    let failed = format!(
        r#"upbeat_probes_total{{upstream="otlp",endpoint="{}",result="failed"}}"#,
        echo.address()
    );
    assert_eq!(proxy.metric(&failed).await, 0.0);
    proxy.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_fails_by_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let said = reason_within("50ms", silent.local_addr().unwrap(), "{ otlp: {} }").await;
    assert_eq!(said, "otlp: no answer within 50ms");
}

#[tokio::test]
async fn an_endpoint_that_speaks_no_http2_says_so() {
    let web = http("HTTP/1.1 400 x\r\ncontent-length: 0\r\n\r\n").await;
    let said = reason(web.address, "{ grpc: {} }").await;
    assert!(said.starts_with("grpc: no HTTP/2: "), "{said}");
}
