//! Services that are expressions over upstreams, asked by name in every way, with their reasons.

use http::{Method, Request, StatusCode, header};
use serde_json::Value;
use upbeat::grpc;

use crate::fixture::{
    caller::{Caller, get, http1, read},
    echo::Echo,
    eventually,
    proxy::{CHECK, Proxy},
    refusing,
};

/// One upstream up, one that is down, and services over both.
async fn proxy(up: &Echo, more: &str) -> Proxy {
    let probe = "probe: { interval: 300ms, timeout: 290ms, checks: [{ tcp: {} }] }";
    let config = format!(
        r#"
listeners:
  - {{ name: otlp, address: "127.0.0.1:0", upstream: one }}
upstreams:
  one: {{ endpoints: ["{}"], {probe} }}
  dead: {{ endpoints: ["{}"], {probe} }}
health:
  paths: ["/healthz"]
  services:
    "": {{ all: [one] }}
    all: {{ all: [one, dead] }}
    any: {{ any: [dead, one] }}
    not: {{ not: dead }}
    two: {{ at_least: {{ count: 2, of: [one, dead, {{ not: dead }}] }} }}
    three: {{ at_least: {{ count: 3, of: [one, dead, {{ not: dead }}] }} }}
    nested: {{ all: [one, {{ any: [dead, {{ not: one }}] }}] }}
{more}
admin: {{ address: "127.0.0.1:0" }}
drain: {{ delay: 0s, timeout: 2s }}
"#,
        up.address(),
        refusing()
    );
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    proxy
}

#[tokio::test]
async fn a_view_answers_alike_by_check_by_query_and_by_path() {
    let up = Echo::start().await;
    let proxy = proxy(&up, "").await;
    let address = proxy.address("otlp");
    // `dead` is known to be so.
    eventually("not", async || get(address, "/healthz/not").await.0 == 200).await;
    let mut caller = Caller::connect(address).await;
    for (service, serving) in [
        ("", true),
        ("all", false),
        ("any", true),
        ("not", true),
        ("two", true),
        ("three", false),
        ("nested", false),
    ] {
        let request = grpc::encode(&grpc::HealthCheckRequest { service: service.to_owned() });
        let reply = caller.unary(CHECK, &request).await.unwrap();
        assert_eq!(reply.body.last(), Some(&if serving { 1 } else { 2 }), "Check {service:?}");
        let (status, text) = match serving {
            true => (StatusCode::OK, "SERVING"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "NOT_SERVING"),
        };
        for path in [
            format!("/healthz?service={service}"),
            format!("/healthz/{service}"),
            format!("/?x=1&service={service}"),
        ] {
            assert_eq!(get(address, &path).await, (status, text.to_owned()), "{path}");
            let head = Request::get(format!("http://upbeat{path}")).body(()).unwrap();
            let call = caller.send(head, true).await.unwrap();
            let response = read(call.response.await.unwrap()).await.unwrap();
            assert_eq!(response.head.status(), status, "{path} over HTTP/2");
        }
    }
    assert_eq!(get(address, "/healthz/unknown").await.0, StatusCode::NOT_FOUND);
    assert_eq!(get(address, "/livez/all").await.0, StatusCode::NOT_FOUND);
    let refused = http1(address, Method::DELETE, "/healthz/with-dash").await;
    assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
    // A method whose service is named like the path is a method all the same.
    let reply = caller.unary("/healthz/all", &[0; 5]).await.unwrap();
    assert_eq!(reply.code(), 0, "forwarded");
    proxy.stop().await;
}

#[tokio::test]
async fn reasons_are_told_to_who_asks_for_them() {
    let up = Echo::start().await;
    let proxy = proxy(&up, "").await;
    let address = proxy.address("otlp");
    eventually("not", async || get(address, "/healthz/not").await.0 == 200).await;

    let (status, text) = get(address, "/healthz/all?verbose").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let (first, line) = text.split_once('\n').unwrap();
    assert_eq!(first, "NOT_SERVING");
    assert!(line.starts_with("[-]all NOT_SERVING since "), "{line}");
    assert!(line.contains("dead: 0 of 1 endpoints healthy, 1 needed (127.0.0.1:"), "{line}");
    let (_, text) = get(address, "/healthz?verbose").await;
    assert_eq!(text.lines().count(), 1 + 7, "{text}");
    assert!(text.contains("[+]overall SERVING since "), "{text}");
    assert_eq!(get(address, "/healthz?verbose=false").await.1, "SERVING");

    let mut caller = Caller::connect(address).await;
    for (path, count) in [("/healthz/three", None), ("/healthz?verbose", Some(6))] {
        let request = Request::get(format!("http://upbeat{path}"))
            .header(header::ACCEPT, "text/html, application/json;q=0.9")
            .body(())
            .unwrap();
        let call = caller.send(request, true).await.unwrap();
        let reply = read(call.response.await.unwrap()).await.unwrap();
        assert_eq!(reply.head.headers()[header::CONTENT_TYPE], "application/json");
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(body["services"].as_array().map(Vec::len), count, "{body}");
        match count {
            None => {
                let reason = body["reason"].as_str().unwrap();
                assert!(reason.starts_with("3 of 3 needed (dead: 0 of 1"), "{reason}");
                assert_eq!(body["status"], "NOT_SERVING");
            }
            Some(_) => assert_eq!(body["status"], "SERVING"),
        }
    }
    proxy.stop().await;
}

#[tokio::test]
async fn reasons_are_kept_from_strangers() {
    let up = Echo::start().await;
    let proxy = proxy(&up, "  details: false").await;
    let address = proxy.address("otlp");
    assert_eq!(get(address, "/healthz/all?verbose").await.1, "NOT_SERVING");
    assert_eq!(get(address, "/healthz?verbose").await.1, "SERVING");
    proxy.stop().await;
}

/// Waits until the board knows that `one` is down.
async fn down(proxy: &Proxy) {
    eventually("down", async || {
        let status = proxy.status().await;
        status.upstreams.iter().any(|it| it.upstream == "one" && it.healthy == 0)
    })
    .await;
}

#[tokio::test]
async fn a_service_that_is_held_turns_when_the_change_has_lasted() {
    let up = Echo::start().await;
    let proxy = proxy(&up, "    held: { all: [one], hold: 1s }").await;
    let address = proxy.address("otlp");
    let serves = async |name: &str| get(address, &format!("/healthz/{name}")).await.0 == 200;
    assert!(serves("held").await, "the first state is told at once");
    drop(up);
    down(&proxy).await;
    let status = proxy.status().await;
    let held = status.services.iter().find(|it| it.service == "held").unwrap();
    assert!(held.reason.starts_with("held: one: 0 of 1"), "{}", held.reason);
    assert!(serves("held").await && !serves("").await);
    eventually("the hold is over", async || !serves("held").await).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_fleet_whose_backends_are_all_down_stays_with_its_balancer() {
    let up = Echo::start().await;
    let proxy = proxy(&up, "  all_down: { policy: stay, dwell: 1s }").await;
    let address = proxy.address("otlp");
    let serves = async || get(address, "/healthz").await.0 == 200;
    drop(up);
    down(&proxy).await;
    assert!(serves().await);
    let mut caller = Caller::connect(address).await;
    assert_eq!(caller.unary("/a.B/C", &[0; 5]).await.unwrap().code(), 14);
    eventually("the dwell is over", async || !serves().await).await;
    proxy.stop().await;
}
