//! Calls through the proxy by real gRPC libraries, and what it answers in a backend's place.

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use http::{Request, header};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use tonic::{Code, codec::CompressionEncoding, transport::Channel};
use upbeat::grpc;

use crate::fixture::{
    caller::{Caller, read},
    echo::Echo,
    endpoint::Endpoint,
    eventually,
    proxy::{Proxy, yaml},
    refusing,
    wire::Wire,
};

async fn exporter(proxy: &Proxy) -> TraceServiceClient<Channel> {
    let address = format!("http://{}", proxy.address("otlp"));
    let endpoint = tonic::transport::Endpoint::from_shared(address).unwrap();
    TraceServiceClient::new(endpoint.connect().await.unwrap())
}

fn spans(count: usize) -> ExportTraceServiceRequest {
    let span = |number: usize| Span { name: format!("span {number}"), ..Span::default() };
    let scope = ScopeSpans { spans: (0..count).map(span).collect(), ..ScopeSpans::default() };
    let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource] }
}

fn message(length: usize) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend(u32::try_from(length).unwrap().to_be_bytes());
    framed.resize(5 + length, 7);
    framed
}

#[tokio::test]
async fn every_span_arrives_plain_and_gzipped() {
    let endpoint = Endpoint::start().await;
    let proxy = Proxy::start(&yaml(&[endpoint.otlp()], "{ otlp: {} }", "")).await;
    proxy.wait_serving().await;
    let before = endpoint.state.lock().unwrap().exports;
    for exporter in
        [exporter(&proxy).await, exporter(&proxy).await.send_compressed(CompressionEncoding::Gzip)]
    {
        for _ in 0..10 {
            exporter.clone().export(spans(100)).await.unwrap();
        }
    }
    {
        let state = endpoint.state.lock().unwrap();
        assert_eq!(state.spans, 2000);
        assert!(state.exports >= before + 20);
        assert_eq!(state.encodings, ["gzip"; 10]);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_backends_own_error_is_the_clients() {
    let endpoint = Endpoint::start().await;
    let proxy = Proxy::in_front_of(&[endpoint.otlp()]).await;
    for (code, words) in [(Code::ResourceExhausted, "rate limit"), (Code::Unavailable, "no org id")]
    {
        endpoint.state.lock().unwrap().fails_with = Some((code, words.to_owned()));
        let status = exporter(&proxy).await.export(spans(1)).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, words));
    }
    let labels = r#"{listener="otlp",upstream="otlp",service="opentelemetry.proto.collector.trace.v1.TraceService",method="Export",code="RESOURCE_EXHAUSTED"}"#;
    let name = format!("upbeat_requests_total{labels}");
    eventually("the metric", async || proxy.metric(&name).await == 1.0).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_stream_flows_both_ways_while_it_is_open() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = caller.open("/test.Echo/Stream").await.unwrap();
    let mut response = None;
    let mut waiting = Some(call.response);
    for round in 0..20_u8 {
        let sent = Bytes::from(message(round.into()));
        call.request.send_data(sent.clone(), false).unwrap();
        if let Some(waiting) = waiting.take() {
            response = Some(waiting.await.unwrap());
        }
        let body = response.as_mut().unwrap().body_mut();
        let mut back = Vec::new();
        while back.len() < sent.len() {
            let chunk = body.data().await.unwrap().unwrap();
            body.flow_control().release_capacity(chunk.len()).unwrap();
            back.extend_from_slice(&chunk);
        }
        assert_eq!(back, sent, "round {round}");
    }
    call.request.send_data(Bytes::new(), true).unwrap();
    let reply = read(response.unwrap()).await.unwrap();
    assert_eq!(reply.code(), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn large_bodies_pass_whole_in_both_directions() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    for length in [0, 1, 100_000, 4 << 20] {
        let mut call = caller.open("/test.Echo/Unary").await.unwrap();
        let sent = message(length);
        let send = async {
            crate::fixture::echo::send(&mut call.request, sent.clone().into()).await.unwrap();
            call.request.send_data(Bytes::new(), true).unwrap();
        };
        let receive = async { read(call.response.await.unwrap()).await.unwrap() };
        let ((), reply) = tokio::join!(send, receive);
        assert!(reply.body == sent, "{length} bytes");
        assert_eq!(reply.code(), 0);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_from_its_prefix() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = caller.open("/test.Echo/Unary").await.unwrap();
    // One byte more than 4 MiB is announced; none of it is sent.
    call.request.send_data(message((4 << 20) + 1)[..5].to_vec().into(), false).unwrap();
    let reply = read(call.response.await.unwrap()).await.unwrap();
    let status = reply.status().unwrap();
    assert_eq!(status.code, grpc::Code::ResourceExhausted);
    assert_eq!(status.message, "message of 4194305 bytes is larger than the 4194304 allowed");
    assert!(!reply.head.headers().contains_key("grpc-status-details-bin"), "no RetryInfo");
    eventually("the backend's stream ends", async || echo.seen().open.load(SeqCst) == 0).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_status_that_the_backend_left_out_is_put_in() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let reply = caller.unary("/test.Echo/NoStatus", &message(3)).await.unwrap();
    assert_eq!((reply.body.len(), reply.code()), (8, 2));
    assert_eq!(reply.trailers.get_all("grpc-status").iter().count(), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn a_response_before_the_requests_end_ends_the_call() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let call = caller.open("/test.Echo/Early").await.unwrap();
    let reply = read(call.response.await.unwrap()).await.unwrap();
    assert_eq!(reply.code(), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn without_a_healthy_endpoint_a_call_gets_14_and_comes_back_by_itself() {
    let address = refusing();
    let proxy = Proxy::start(&yaml(&[address], "{ tcp: {} }", "")).await;
    proxy.wait_not_serving().await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let reply = caller.unary("/test.Echo/Unary", &message(1)).await.unwrap();
    let status = reply.status().unwrap();
    assert_eq!(status.code, grpc::Code::Unavailable);
    assert_eq!(status.message, "no healthy endpoint in upstream otlp");
    assert_eq!((reply.head.status().as_u16(), reply.trailers.len()), (200, 0), "trailers-only");
    proxy.stop().await;
}

#[tokio::test]
async fn connections_to_an_endpoint_grow_with_its_stream_limit() {
    let echo = Echo::with_limit(8).await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    // One worker's connections: a client's connection stays with one worker.
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut calls = Vec::new();
    for _ in 0..24 {
        calls.push(caller.open("/test.Echo/Hang").await.unwrap());
    }
    eventually("all calls have arrived", async || echo.seen().open.load(SeqCst) == 24).await;
    let connections = echo.seen().connections.load(SeqCst);
    assert!((3..=4).contains(&connections), "{connections} connections");
    drop(calls);
    eventually("all calls are over", async || echo.seen().open.load(SeqCst) == 0).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_host_that_is_not_the_authority_reaches_no_backend() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let request = Request::post("http://tempo.example/test.Echo/Unary")
        .header(header::HOST, "other.example")
        .header(header::CONTENT_TYPE, "application/grpc")
        .body(())
        .unwrap();
    let call = caller.send(request, true).await.unwrap();
    let reply = read(call.response.await.unwrap()).await.unwrap();
    assert_eq!(reply.code(), 3, "host is not :authority");
    assert_eq!(echo.seen().streams.load(SeqCst), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_reaches_no_backend() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    let call = |scheme, path, authority| {
        let mut head = vec![(":method", "POST"), (":scheme", scheme), (":path", path)];
        head.extend([(":authority", authority), ("content-type", "application/grpc")]);
        head
    };
    const UNARY: &str = "/test.Echo/Unary";
    for (head, code) in [
        (call("http", UNARY, "a b"), "3"),
        (call("http", UNARY, "user@host"), "3"),
        (call("http", UNARY, "host/path"), "3"),
        (call("http", UNARY, ""), "3"),
        (call("ftp", UNARY, "host"), "3"),
        (call("http", "/test.Echo/Unary#fragment", "host"), "12"),
        (call("http", "/test.Echo/Unary#", "host"), "12"),
        (call("http", "/test.Echo/Unary?query", "host"), "12"),
        (call("http", "/test.Echo/../Unary", "host"), "12"),
        (call("http", "/test.Echo/%55nary", "host"), "12"),
        (call("http", "//test.Echo/Unary", "host"), "12"),
    ] {
        let stream = wire.open();
        wire.head(stream, &head, true).await;
        let refusal = wire.message(stream).await;
        assert_eq!(refusal.value("grpc-status"), Some(code.as_bytes()), "{head:?}");
    }
    assert_eq!(echo.seen().streams.load(SeqCst), 0);
    drop(wire);
    proxy.stop().await;
}
