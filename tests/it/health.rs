//! One health state, many dialects: every row of the table in the README, on real sockets.

use std::{io::Write, net::SocketAddr};

use flate2::{Compression, write::GzEncoder};
use http::{Method, Request, header};
use tokio_stream::StreamExt;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use upbeat::grpc::{self, HealthListResponse};

use crate::fixture::{
    caller::{Caller, get, http1, read},
    echo::Echo,
    eventually,
    proxy::{CHECK, Proxy, yaml},
    refusing,
    wire::{HEADERS, Wire},
};

const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
const NOT_SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 2];
const LIST: &str = "/grpc.health.v1.Health/List";
const ALB: &str = "/AWS.ALB/healthcheck";

/// A proxy with an upstream that serves, one that does not, and listeners of every kind.
async fn proxy(up: &Echo) -> Proxy {
    let refusing = refusing();
    let config = format!(
        r#"
listeners:
  - {{ name: otlp, address: "127.0.0.1:0", upstream: otlp }}
  - name: health
    address: "127.0.0.1:0"
    health: {{ not_serving_as_for: {{ ELB-HealthChecker: message }} }}
  - {{ name: strict, address: "127.0.0.1:0", health: {{ not_serving_as: status }} }}
upstreams:
  otlp:
    endpoints: ["{}"]
    probe: {{ interval: 300ms, timeout: 290ms, checks: [{{ tcp: {{}} }}] }}
  dead:
    endpoints: ["{}"]
    probe: {{ interval: 300ms, timeout: 290ms, checks: [{{ tcp: {{}} }}] }}
health:
  services:
    "": {{ all: [otlp] }}
    traces: {{ all: [otlp] }}
    dead: {{ all: [dead] }}
    both: {{ all: [otlp, dead] }}
  paths: ["/healthz"]
  not_serving_as_for: {{ picky: status, picky but: message }}
admin: {{ address: "127.0.0.1:0" }}
drain: {{ delay: 0s, timeout: 2s }}
"#,
        up.address(),
        refusing
    );
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    proxy
}

fn request(service: &str) -> Vec<u8> {
    grpc::encode(&grpc::HealthCheckRequest { service: service.to_owned() }).to_vec()
}

#[tokio::test]
async fn check_answers_what_the_probes_found() {
    let up = Echo::start().await;
    let proxy = proxy(&up).await;
    for listener in ["otlp", "health", "strict"] {
        let mut caller = Caller::connect(proxy.address(listener)).await;
        for (service, body) in [("", SERVING), ("traces", SERVING)] {
            let reply = caller.unary(CHECK, &request(service)).await.unwrap();
            assert_eq!((reply.body.as_slice(), reply.code()), (body, 0), "{listener} {service:?}");
            assert_eq!(reply.head.headers()[header::CONTENT_TYPE], "application/grpc");
        }
        let reply = caller.unary(CHECK, &request("unknown")).await.unwrap();
        assert_eq!((reply.body.len(), reply.code()), (0, 5), "{listener}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn not_serving_is_a_message_or_a_status_as_the_listener_says() {
    let up = Echo::start().await;
    let proxy = proxy(&up).await;
    for service in ["dead", "both"] {
        let mut caller = Caller::connect(proxy.address("otlp")).await;
        let reply = caller.unary(CHECK, &request(service)).await.unwrap();
        assert_eq!((reply.body.as_slice(), reply.code()), (NOT_SERVING, 0));

        let mut caller = Caller::connect(proxy.address("strict")).await;
        let reply = caller.unary(CHECK, &request(service)).await.unwrap();
        assert_eq!(reply.head.status(), 200);
        assert_eq!((reply.body.len(), reply.trailers.len(), reply.code()), (0, 0, 14));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn not_serving_is_told_as_the_user_agent_reads_it() {
    let up = Echo::start().await;
    let proxy = proxy(&up).await;
    for (listener, agent, said) in [
        ("otlp", "ELB-HealthChecker/2.0", (&[][..], 14)),
        ("otlp", "ELB-HealthChecke", (NOT_SERVING, 0)),
        ("otlp", "grpc-go/1.80.0", (NOT_SERVING, 0)),
        ("otlp", "picky", (&[], 14)),
        ("otlp", "picky but not so", (NOT_SERVING, 0)),
        ("health", "ELB-HealthChecker/2.0", (NOT_SERVING, 0)),
        ("strict", "grpc-go/1.80.0", (&[], 14)),
        ("strict", "picky but not so", (NOT_SERVING, 0)),
    ] {
        let post = Request::post(format!("http://upbeat{CHECK}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::USER_AGENT, agent);
        let mut caller = Caller::connect(proxy.address(listener)).await;
        let mut call = caller.send(post.body(()).unwrap(), false).await.unwrap();
        call.request.send_data(request("dead").into(), true).unwrap();
        let reply = read(call.response.await.unwrap()).await.unwrap();
        assert_eq!((reply.body.as_slice(), reply.code()), said, "{listener} {agent}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn zero_byte_bodiless_framed_and_gzipped_checks_are_answered_alike() {
    let up = Echo::start().await;
    let proxy = proxy(&up).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let post = |encoding: Option<&str>| {
        let mut request = Request::post(format!("http://upbeat{CHECK}"))
            .header(header::CONTENT_TYPE, "application/grpc+proto");
        if let Some(encoding) = encoding {
            request = request.header("grpc-encoding", encoding);
        }
        request.body(()).unwrap()
    };
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&request("traces")[5..]).unwrap();
    let gzip = gzip.finish().unwrap();
    let length = u32::try_from(gzip.len()).unwrap().to_be_bytes();
    let zipped = [&[1], length.as_slice(), &gzip];
    for (encoding, body) in [
        (None, None),
        (None, Some(vec![])),
        (None, Some(vec![0; 5])),
        (Some("identity"), Some(request("traces"))),
        (Some("gzip"), Some(zipped.concat())),
    ] {
        let mut call = caller.send(post(encoding), body.is_none()).await.unwrap();
        if let Some(body) = body.clone() {
            call.request.send_data(body.into(), true).unwrap();
        }
        let reply = read(call.response.await.unwrap()).await.unwrap();
        assert_eq!((reply.body.as_slice(), reply.code()), (SERVING, 0), "{encoding:?} {body:?}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_check_whose_sender_never_ends_its_half_is_answered_after_its_message() {
    let up = Echo::start().await;
    let proxy = proxy(&up).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = caller.open(CHECK).await.unwrap();
    call.request.send_data(vec![0; 5].into(), false).unwrap();
    let reply = read(call.response.await.unwrap()).await.unwrap();
    assert_eq!((reply.body.as_slice(), reply.code()), (SERVING, 0));
    proxy.stop().await;
}

#[tokio::test]
async fn a_check_that_is_broken_or_too_large_gets_a_status() {
    let up = Echo::start().await;
    let proxy = proxy(&up).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    for (body, code) in [(vec![0, 0, 0], 13), (vec![9; 5000], 8), (vec![0, 0, 0, 0, 1, 0xff], 13)] {
        assert_eq!(caller.unary(CHECK, &body).await.unwrap().code(), code, "{}", body.len());
    }
    proxy.stop().await;
}

#[tokio::test]
async fn list_tells_every_service() {
    let up = Echo::start().await;
    let proxy = proxy(&up).await;
    eventually("dead was probed", async || {
        proxy
            .status()
            .await
            .upstreams
            .iter()
            .all(|upstream| upstream.endpoints.iter().all(|endpoint| endpoint.health != "unknown"))
    })
    .await;
    let reply = proxy.unary(LIST, &[0; 5]).await;
    let list: HealthListResponse = grpc::decode_unary(&reply.body, None, 1000).unwrap();
    let mut statuses: Vec<_> =
        list.statuses.iter().map(|(name, response)| (name.as_str(), response.status)).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [("", 1), ("both", 2), ("dead", 2), ("traces", 1)]);
    proxy.stop().await;
}

#[tokio::test]
async fn an_alb_reads_its_state_from_the_status_alone() {
    let up = Echo::start().await;
    let mut up = Some(up);
    let proxy = proxy(up.as_ref().unwrap()).await;
    for (body, code) in [(vec![], 12), (vec![0; 5], 12)] {
        assert_eq!(alb(&proxy, &body).await, code);
    }
    up.take();
    proxy.wait_not_serving().await;
    assert_eq!(alb(&proxy, &[0; 5]).await, 14);
    proxy.stop().await;
}

async fn alb(proxy: &Proxy, body: &[u8]) -> u8 {
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let reply = caller.unary(ALB, body).await.unwrap();
    assert_eq!((reply.head.status().as_u16(), reply.body.len(), reply.trailers.len()), (200, 0, 0));
    reply.code()
}

#[tokio::test]
async fn http_1_and_http_2_ask_by_get_and_head_on_the_same_port() {
    let up = Echo::start().await;
    let proxy = proxy(&up).await;
    for (method, path, status, body) in [
        ("GET", CHECK, 200, "SERVING"),
        ("GET", "/", 200, "SERVING"),
        ("GET", "/healthz", 200, "SERVING"),
        ("GET", "/healthz?service=traces", 200, "SERVING"),
        ("GET", "/healthz?service=dead", 503, "NOT_SERVING"),
        ("GET", "/healthz?a=b&service=%64ead", 503, "NOT_SERVING"),
        ("GET", "/healthz?service=unknown", 404, "SERVICE_UNKNOWN"),
        ("HEAD", "/", 200, ""),
        ("HEAD", "/?service=dead", 503, ""),
        ("GET", "/livez", 200, "LIVE"),
        ("POST", "/", 405, "Method Not Allowed"),
        ("DELETE", CHECK, 405, "Method Not Allowed"),
        ("GET", "/nothing", 404, "Not Found"),
    ] {
        for listener in ["otlp", "health"] {
            let address = proxy.address(listener);
            let response = http1(address, method.parse::<Method>().unwrap(), path).await;
            let seen = (response.status().as_u16(), response.body().as_slice());
            assert_eq!(seen, (status, body.as_bytes()), "HTTP/1.1 {method} {path}");

            let mut caller = Caller::connect(address).await;
            let uri = format!("http://upbeat{path}");
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            let call = caller.send(request, true).await.unwrap();
            let reply = read(call.response.await.unwrap()).await.unwrap();
            let seen = (reply.head.status().as_u16(), reply.body.as_slice());
            assert_eq!(seen, (status, body.as_bytes()), "HTTP/2 {method} {path}");
            for headers in [response.headers(), reply.head.headers()] {
                assert_eq!(headers[header::CACHE_CONTROL], "no-store");
                assert_eq!(headers.contains_key(header::ALLOW), status == 405);
            }
        }
    }
    proxy.stop().await;
}

#[tokio::test]
async fn nothing_serves_before_the_first_probe_has_ended() {
    // Accepts and never answers, so the probe is still on its way.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = yaml(&[silent.local_addr().unwrap()], "{ otlp: {} }", "")
        .replace("interval: 300ms, timeout: 290ms", "interval: 60s, timeout: 59s");
    let proxy = Proxy::start(&config).await;
    assert_eq!(proxy.check().await, 2);
    let service = &proxy.status().await.services[0];
    assert!(service.reason.contains("not probed yet"), "{}", service.reason);
    let (status, body) = get(proxy.address("otlp"), "/").await;
    assert_eq!((status.as_u16(), body.as_str()), (503, "NOT_SERVING"));
    proxy.stop().await;
}

pub(crate) async fn watch(
    address: SocketAddr,
    service: &str,
) -> tonic::Streaming<tonic_health::pb::HealthCheckResponse> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = HealthClient::new(endpoint.connect().await.unwrap());
    let request = HealthCheckRequest { service: service.to_owned() };
    client.watch(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn watch_tells_the_state_at_once_and_then_each_change() {
    let echo = Echo::start().await;
    let address = echo.address();
    let proxy = Proxy::in_front_of(&[address]).await;
    let mut stream = watch(proxy.address("otlp"), "").await;
    assert_eq!(stream.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    drop(echo);
    assert_eq!(stream.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let _echo = Echo::start_at(address, None).await;
    assert_eq!(stream.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    drop(stream);
    proxy.stop().await;
}

#[tokio::test]
async fn watch_of_an_unknown_service_says_so_and_stays_open() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let mut stream = watch(proxy.address("otlp"), "unknown").await;
    assert_eq!(stream.next().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    drop(echo);
    proxy.wait_not_serving().await;
    let more = tokio::time::timeout(std::time::Duration::from_millis(100), stream.next()).await;
    assert!(more.is_err(), "neither a message nor the end: {more:?}");
    drop(stream);
    proxy.stop().await;
}

#[tokio::test]
async fn health_checks_reach_no_backend() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    for path in [CHECK, LIST, ALB] {
        proxy.unary(path, &[0; 5]).await;
    }
    assert_eq!(echo.seen().streams.load(std::sync::atomic::Ordering::SeqCst), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_refused_status_is_one_header_block() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    let stream = wire.open();
    let head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "upbeat"),
        (":path", ALB),
        ("content-type", "application/grpc"),
    ];
    wire.head(stream, &head, true).await;
    let frame = loop {
        let frame = wire.next().await.expect("an answer");
        if frame.stream == stream {
            break frame;
        }
    };
    assert_eq!((frame.kind, frame.flags & 1), (HEADERS, 1), "HEADERS with END_STREAM");
    proxy.stop().await;
}
