//! Routes: which upstream a call goes to by its path, its authority, its metadata, and weights.

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use http::Request;

use crate::fixture::{
    caller::{Caller, Reply, read},
    echo::Echo,
    proxy::Proxy,
    refusing,
};

/// A proxy with the upstreams `a`, `b` and `c`, the last one the default where `default` says so.
async fn proxy(routes: &str, default: bool, endpoints: [std::net::SocketAddr; 3]) -> Proxy {
    let [a, b, c] = endpoints;
    let probe = "probe: { interval: 300ms, timeout: 290ms, checks: [{ tcp: {} }] }";
    let own = if default { "upstream: c," } else { "" };
    let proxy = Proxy::start(&format!(
        r#"
listeners: [{{ name: otlp, address: "127.0.0.1:0", {own} routes: {routes} }}]
upstreams:
  a: {{ endpoints: ["{a}"], {probe} }}
  b: {{ endpoints: ["{b}"], {probe} }}
  c: {{ endpoints: ["{c}"], {probe} }}
health: {{ services: {{ "": {{ any: [a, b, c] }} }} }}
admin: {{ address: "127.0.0.1:0" }}
drain: {{ delay: 0s, timeout: 2s }}
workers: 1
"#
    ))
    .await;
    proxy.wait_serving().await;
    proxy
}

async fn three() -> [Echo; 3] {
    [Echo::start().await, Echo::start().await, Echo::start().await]
}

fn addresses(echoes: &[Echo; 3]) -> [std::net::SocketAddr; 3] {
    [0, 1, 2].map(|index| echoes[index].address())
}

fn counts(echoes: &[Echo; 3]) -> [usize; 3] {
    [0, 1, 2].map(|index| echoes[index].seen().streams.load(SeqCst))
}

async fn call(caller: &mut Caller, authority: &str, path: &str, more: &[(&str, &str)]) -> Reply {
    let mut request = Request::post(format!("http://{authority}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    let mut call = caller.send(request.body(()).unwrap(), false).await.unwrap();
    call.request.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    read(call.response.await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_call_takes_the_first_route_that_fits_it_and_else_the_listeners_upstream() {
    let echoes = three().await;
    let routes = "[{ match: { service: s.A }, upstream: a }, \
        { match: { prefix: /s.B/Get, metadata: { x-scope-orgid: t1 } }, upstream: b }, \
        { match: { authority: b.example }, upstream: b }]";
    let proxy = proxy(routes, true, addresses(&echoes)).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut expected = [0; 3];
    // Twice, since what a path means is remembered the first time.
    for _ in 0..2 {
        for (authority, path, tenants, target) in [
            ("h", "/s.A/M", &["t1"][..], 0),
            ("h", "/s.AB/M", &["t1"], 2),
            ("h", "/s.B/GetIt", &["t1"], 1),
            ("h", "/s.B/GetIt", &["t2"], 2),
            ("h", "/s.B/GetIt", &[], 2),
            ("h", "/s.B/GetIt", &["t1", "t1"], 2),
            ("B.example:4317", "/s.C/M", &[], 1),
            ("b.example", "/s.A/M", &[], 0),
        ] {
            let more: Vec<_> = tenants.iter().map(|tenant| ("x-scope-orgid", *tenant)).collect();
            assert_eq!(call(&mut caller, authority, path, &more).await.code(), 0);
            expected[target] += 1;
            assert_eq!(counts(&echoes), expected, "{authority} {path} {tenants:?}");
        }
    }
    let counted = |upstream: &str, service: &str| {
        format!(
            r#"upbeat_requests_total{{listener="otlp",upstream="{upstream}",service="{service}",method="GetIt",code="OK"}}"#
        )
    };
    assert_eq!(proxy.metric(&counted("b", "s.B")).await, 2.0);
    assert_eq!(proxy.metric(&counted("c", "s.B")).await, 6.0);
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn a_call_that_no_route_fits_is_refused_where_the_listener_has_no_upstream() {
    let echoes = three().await;
    let routes = "[{ match: { service: s.A }, upstream: a }]";
    let proxy = proxy(routes, false, addresses(&echoes)).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    assert_eq!(call(&mut caller, "h", "/s.A/M", &[]).await.code(), 0);
    let refused = call(&mut caller, "h", "/s.B/M", &[]).await.status().unwrap();
    assert_eq!((refused.code as u8, &*refused.message), (12, "no route for this call"));
    assert_eq!(counts(&echoes), [1, 0, 0]);
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn weights_share_calls_out() {
    let echoes = three().await;
    let routes = "[{ match: { service: s.A }, upstreams: { a: 3, b: 1, c: 0 } }]";
    let proxy = proxy(routes, false, addresses(&echoes)).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    for _ in 0..2000 {
        assert_eq!(call(&mut caller, "h", "/s.A/M", &[]).await.code(), 0);
    }
    let [a, b, c] = counts(&echoes);
    // Six standard deviations of 2000 throws.
    assert!((a.abs_diff(1500) < 117) && a + b == 2000 && c == 0, "{a} {b} {c}");
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn an_upstream_that_is_down_leaves_its_calls_to_the_others_of_the_route() {
    let echoes = three().await;
    let routes = "[{ upstreams: { a: 1, b: 0 } }]";
    let [_, b, c] = addresses(&echoes);
    let proxy = proxy(routes, false, [refusing(), b, c]).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    for _ in 0..20 {
        assert_eq!(call(&mut caller, "h", "/s.A/M", &[]).await.code(), 0);
    }
    assert_eq!(counts(&echoes), [0, 20, 0]);
    let gauge = |upstream| format!(r#"upbeat_streams{{listener="otlp",upstream="{upstream}"}}"#);
    assert_eq!(proxy.metric(&gauge("a")).await, 0.0);
    assert_eq!(proxy.metric(&gauge("b")).await, 0.0);
    drop(caller);
    proxy.stop().await;
}
