//! The admin server: what an orchestrator, a scraper and a person see of the proxy.

mod access;
mod command;

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::Ordering::SeqCst,
};

use http::{Method, StatusCode, header};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::fixture::{
    caller::{Caller, get, http1},
    echo::Echo,
    endpoint::Endpoint,
    eventually,
    proxy::{Proxy, yaml},
    refusing,
};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const EMPTY: &[u8] = &[0; 5];

async fn is(proxy: &Proxy, path: &str, expected: StatusCode) -> bool {
    get(proxy.admin(), path).await.0 == expected
}

/// Waits until a sample has a value.
async fn reads(proxy: &Proxy, sample: &str, value: f64) {
    eventually(&format!("{sample} is {value}"), async || proxy.metric(sample).await == value).await;
}

#[tokio::test]
async fn readyz_follows_the_board_and_livez_does_not() {
    let echo = Echo::start().await;
    let address = echo.address();
    let proxy = Proxy::in_front_of(&[address]).await;
    let (ready, unready) = (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(proxy.admin(), "/readyz").await, (ready, "SERVING\n".to_owned()));

    drop(echo);
    eventually("unready", async || is(&proxy, "/readyz", unready).await).await;
    assert_eq!(get(proxy.admin(), "/readyz").await.1, "NOT_SERVING\n");
    assert_eq!(get(proxy.admin(), "/livez").await, (ready, "LIVE\n".to_owned()));

    let _echo = Echo::start_at(address, None).await;
    eventually("ready again", async || is(&proxy, "/readyz", ready).await).await;
    proxy.stop().await;
}

#[tokio::test]
async fn drain_is_seen_before_the_admin_server_ends() {
    let echo = Echo::start().await;
    let config = yaml(&[echo.address()], "{ tcp: {} }", "");
    let proxy = Proxy::start(&config.replace("delay: 0s", "delay: 1h")).await;
    proxy.wait_serving().await;
    assert!(!proxy.status().await.draining);

    proxy.shutdown.drain.cancel();
    let unready = StatusCode::SERVICE_UNAVAILABLE;
    eventually("unready", async || is(&proxy, "/readyz", unready).await).await;
    assert!(is(&proxy, "/livez", StatusCode::OK).await);
    let status = proxy.status().await;
    assert!(status.draining);
    assert_eq!(
        (&*status.services[0].status, &*status.services[0].reason),
        ("NOT_SERVING", "draining")
    );
    assert_eq!(status.upstreams[0].healthy, 1, "probes go on");
    assert_eq!(proxy.metric("upbeat_service_serving{service=\"\"}").await, 0.0);

    proxy.shutdown.stop.cancel();
    proxy.stop().await;
}

#[tokio::test]
async fn status_is_json_that_says_why() {
    let echo = Echo::start().await;
    let down = refusing();
    let config = yaml(&[echo.address(), down], "{ tcp: {} }", "")
        .replace("probe:", "min_healthy: 2\n    probe:");
    let more = "health: { services: { traces: { all: [otlp] } } }";
    let proxy = Proxy::start(&format!("{config}{more}")).await;
    let probed = async || proxy.status().await.upstreams[0].endpoints[1].health == "unhealthy";
    eventually("the refusing endpoint is probed", probed).await;
    eventually("the other one too", async || proxy.status().await.upstreams[0].healthy == 1).await;
    let why = format!("otlp: 1 of 2 endpoints healthy, 2 needed ({down}: tcp: ");
    let told = async || proxy.status().await.services[0].reason.starts_with(&why);
    eventually("the board is folded", told).await;

    let response = http1(proxy.admin(), Method::GET, "/status").await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    let status: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["draining"], false);
    let services = status["services"].as_array().unwrap();
    let names: Vec<_> = services.iter().map(|service| &service["service"]).collect();
    assert_eq!(names, ["", "traces"]);
    for service in services {
        assert_eq!(service["status"], "NOT_SERVING");
        humantime::parse_rfc3339(service["since"].as_str().unwrap()).unwrap();
        let reason = service["reason"].as_str().unwrap();
        assert!(reason.contains("connection refused"), "{reason}");
    }
    let upstream = &status["upstreams"][0];
    assert_eq!(upstream["upstream"], "otlp");
    assert_eq!((&upstream["healthy"], &upstream["needed"]), (&1.into(), &2.into()));
    let [up, ill] = &upstream["endpoints"].as_array().unwrap()[..] else {
        panic!("{upstream}");
    };
    assert_eq!(up["endpoint"], echo.address().to_string());
    assert_eq!((&up["health"], &up["reason"]), (&"healthy".into(), &"".into()));
    assert_eq!(ill["endpoint"], down.to_string());
    assert_eq!(ill["health"], "unhealthy");
    assert!(ill["reason"].as_str().unwrap().contains("connection refused"), "{ill}");
    proxy.stop().await;
}

#[tokio::test]
async fn status_counts_calls_in_flight() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let in_flight = async || proxy.status().await.upstreams[0].endpoints[0].in_flight;
    assert_eq!(in_flight().await, 0);
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let call = caller.open("/test.Echo/Hang").await.unwrap();
    eventually("the call is counted", async || in_flight().await == 1).await;
    reads(&proxy, "upbeat_streams{listener=\"otlp\",upstream=\"otlp\"}", 1.0).await;
    drop(call);
    eventually("it is counted out", async || in_flight().await == 0).await;
    reads(&proxy, "upbeat_streams{listener=\"otlp\",upstream=\"otlp\"}", 0.0).await;
    proxy.stop().await;
}

#[tokio::test]
async fn calls_are_counted_by_method_and_code_and_made_up_names_are_other() {
    let endpoint = Endpoint::start().await;
    let proxy = Proxy::in_front_of(&[endpoint.otlp()]).await;
    for _ in 0..3 {
        proxy.unary(EXPORT, EMPTY).await;
    }
    for name in ["/a.B/C", "/a.B/D", "/x.Y/Z"] {
        proxy.unary(name, EMPTY).await;
    }
    endpoint.state.lock().unwrap().fails_with = Some((tonic::Code::Internal, "no".to_owned()));
    proxy.unary(EXPORT, EMPTY).await;

    let requests = |service: &str, method: &str, code: &str| {
        format!(
            "upbeat_requests_total{{listener=\"otlp\",upstream=\"otlp\",service=\"{service}\",method=\"{method}\",code=\"{code}\"}}"
        )
    };
    let service = "opentelemetry.proto.collector.trace.v1.TraceService";
    reads(&proxy, &requests(service, "Export", "OK"), 3.0).await;
    reads(&proxy, &requests(service, "Export", "INTERNAL"), 1.0).await;
    reads(&proxy, &requests("other", "other", "UNIMPLEMENTED"), 3.0).await;
    let (_, text) = get(proxy.admin(), "/metrics").await;
    assert!(!text.contains("a.B") && !text.contains("x.Y"), "{text}");

    let labels = "{listener=\"otlp\",upstream=\"otlp\"}";
    reads(&proxy, &format!("upbeat_request_duration_seconds_count{labels}"), 7.0).await;
    let sum = proxy.metric(&format!("upbeat_request_duration_seconds_sum{labels}")).await;
    assert!(sum > 0.0 && sum < 60.0, "{sum}");
    proxy.stop().await;
}

#[tokio::test]
async fn calls_that_end_without_a_status_are_counted_too() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    proxy.unary("/test.Echo/NoStatus", EMPTY).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let call = caller.open("/test.Echo/Hang").await.unwrap();
    eventually("the call arrives", async || echo.seen().open.load(SeqCst) == 1).await;
    drop(call);
    let requests = |labels: &str| {
        format!(
            "upbeat_requests_total{{listener=\"otlp\",upstream=\"otlp\",service=\"test.Echo\",{labels}}}"
        )
    };
    reads(&proxy, &requests("method=\"NoStatus\",code=\"UNKNOWN\""), 1.0).await;
    // No backend has shown that it has this method, so a client may have made it up.
    let unknown = "upbeat_requests_total{listener=\"otlp\",upstream=\"otlp\",service=\"other\",method=\"other\",code=\"RESET\"}";
    reads(&proxy, unknown, 1.0).await;
    proxy.stop().await;
}

#[tokio::test]
async fn call_without_a_healthy_endpoint_is_counted_as_unavailable() {
    let proxy = Proxy::start(&yaml(&[refusing()], "{ tcp: {} }", "")).await;
    proxy.wait_not_serving().await;
    assert_eq!(proxy.unary(EXPORT, EMPTY).await.status.code as u8, 14);
    let refused = "upbeat_requests_total{listener=\"otlp\",upstream=\"otlp\",service=\"other\",method=\"other\",code=\"UNAVAILABLE\"}";
    reads(&proxy, refused, 1.0).await;
    proxy.stop().await;
}

#[tokio::test]
async fn bytes_and_connections_are_counted_on_both_sides() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let upstream =
        format!("upbeat_upstream_connections{{upstream=\"otlp\",endpoint=\"{}\"}}", echo.address());
    let open = "upbeat_connections{listener=\"otlp\"}";
    reads(&proxy, open, 0.0).await;
    let accepted = proxy.metric("upbeat_connections_accepted_total{listener=\"otlp\"}").await;

    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut message = vec![0; 5 + 70_000];
    message[1..5].copy_from_slice(&70_000_u32.to_be_bytes());
    caller.unary("/test.Echo/Unary", &message).await.unwrap();
    for direction in ["request", "response"] {
        let forwarded =
            format!("upbeat_forwarded_bytes_total{{listener=\"otlp\",direction=\"{direction}\"}}");
        reads(&proxy, &forwarded, 70_005.0).await;
    }
    reads(&proxy, open, 1.0).await;
    reads(&proxy, &upstream, 1.0).await;
    reads(&proxy, "upbeat_connections_accepted_total{listener=\"otlp\"}", accepted + 1.0).await;

    drop(caller);
    reads(&proxy, open, 0.0).await;
    drop(echo);
    reads(&proxy, &upstream, 0.0).await;
    proxy.stop().await;
}

#[tokio::test]
async fn connections_that_an_endpoint_refuses_are_counted() {
    let echo = Echo::start().await;
    let address = echo.address();
    let config = yaml(&[address], "{ tcp: {} }", "")
        .replace("interval: 300ms, timeout: 290ms", "interval: 60s, timeout: 1s");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    drop(echo);
    assert_eq!(proxy.unary("/test.Echo/Unary", EMPTY).await.status.code as u8, 14);
    let labels = format!("upstream=\"otlp\",endpoint=\"{address}\"");
    let failures = format!("upbeat_upstream_connect_failures_total{{{labels}}}");
    assert!(proxy.metric(&failures).await >= 1.0);
    proxy.stop().await;
}

#[tokio::test]
async fn endpoints_services_probes_and_answers_are_measured() {
    let echo = Echo::start().await;
    let down = refusing();
    let proxy = Proxy::in_front_of(&[echo.address(), down]).await;
    let labels = |address| format!("upstream=\"otlp\",endpoint=\"{address}\"");
    let (up, ill) = (labels(echo.address()), labels(down));
    reads(&proxy, &format!("upbeat_endpoint_healthy{{{up}}}"), 1.0).await;
    reads(&proxy, &format!("upbeat_endpoint_healthy{{{ill}}}"), 0.0).await;
    reads(&proxy, "upbeat_service_serving{service=\"\"}", 1.0).await;
    for (labels, result) in [(&up, "passed"), (&ill, "failed")] {
        let probes = format!("upbeat_probes_total{{{labels},result=\"{result}\"}}");
        eventually("probes go on", async || proxy.metric(&probes).await >= 3.0).await;
        let took = format!("upbeat_probe_duration_seconds_count{{{labels}}}");
        assert!(proxy.metric(&took).await >= 3.0);
    }
    assert_eq!(proxy.metric(&format!("upbeat_probes_total{{{up},result=\"failed\"}}")).await, 0.0);

    let answers = "upbeat_health_answers_total{listener=\"otlp\",dialect=\"http\"}";
    assert_eq!(proxy.metric(answers).await, 0.0);
    get(proxy.address("otlp"), "/healthz").await;
    assert_eq!(proxy.metric(answers).await, 1.0);
    let checks = "upbeat_health_answers_total{listener=\"otlp\",dialect=\"check\"}";
    assert!(proxy.metric(checks).await >= 1.0, "the fixture waited by Check");

    let build = format!("upbeat_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(proxy.metric(&build).await, 1.0);
    proxy.stop().await;
}

#[tokio::test]
async fn metrics_are_openmetrics_to_the_last_line() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address(), refusing()]).await;
    proxy.unary("/test.Echo/Unary", EMPTY).await;
    reads(
        &proxy,
        "upbeat_request_duration_seconds_count{listener=\"otlp\",upstream=\"otlp\"}",
        1.0,
    )
    .await;
    let response = http1(proxy.admin(), Method::GET, "/metrics").await;
    let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap();
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = String::from_utf8(response.into_body()).unwrap();
    let families = openmetrics(&text);
    for (family, kind) in [
        ("upbeat_build_info", "gauge"),
        ("upbeat_requests", "counter"),
        ("upbeat_request_duration_seconds", "histogram"),
        ("upbeat_streams", "gauge"),
        ("upbeat_health_answers", "counter"),
        ("upbeat_forwarded_bytes", "counter"),
        ("upbeat_connections", "gauge"),
        ("upbeat_connections_accepted", "counter"),
        ("upbeat_upstream_connections", "gauge"),
        ("upbeat_endpoint_healthy", "gauge"),
        ("upbeat_service_serving", "gauge"),
        ("upbeat_probes", "counter"),
        ("upbeat_probe_duration_seconds", "histogram"),
    ] {
        assert_eq!(families.get(family).copied(), Some(kind), "{family} in {text}");
    }
    proxy.stop().await;
}

/// The families of an exposition and their types, which are checked with every sample against
/// OpenMetrics 1.0: declared before their samples, with the suffixes of their type, nothing twice,
/// and `# EOF` at the end.
fn openmetrics(text: &str) -> HashMap<&str, &str> {
    let lines = text.strip_suffix("# EOF\n").expect("ends with # EOF");
    let mut families = HashMap::new();
    let mut family = "";
    let mut samples = HashSet::new();
    for line in lines.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (word, name, rest) = (words.next(), words.next().unwrap(), words.next().unwrap());
            match word {
                Some("TYPE") => assert!(families.insert(name, rest).is_none(), "{name} twice"),
                Some("UNIT") => assert!(name.ends_with(&format!("_{rest}")), "{line}"),
                Some("HELP") => assert!(!rest.is_empty(), "{line}"),
                _ => panic!("{line}"),
            }
            family = name;
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
        assert!(samples.insert(series), "{series} twice");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert!(labels.ends_with('}'), "{line}");
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} in {family}"));
        let lawful: &[&str] = match families[family] {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_count", "_sum"],
            kind => panic!("{family} is a {kind}"),
        };
        assert!(lawful.contains(&suffix), "{line}");
        assert_eq!(suffix == "_bucket", labels.contains("le=\""), "{line}");
    }
    families
}

#[tokio::test]
async fn other_paths_list_those_that_there_are() {
    let proxy = Proxy::start(&yaml(&[refusing()], "{ tcp: {} }", "")).await;
    for path in ["/", "/metric", "/status/x"] {
        let (status, body) = get(proxy.admin(), path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(body, "/metrics /status /simulate /config /livez /readyz\n", "{path}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn admin_is_read_only() {
    let proxy = Proxy::start(&yaml(&[refusing()], "{ tcp: {} }", "")).await;
    for path in ["/metrics", "/status", "/livez", "/readyz", "/quitquitquit"] {
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            let response = http1(proxy.admin(), method.clone(), path).await;
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        }
    }
    let head = http1(proxy.admin(), Method::HEAD, "/status").await;
    assert_eq!((head.status(), head.body().len()), (StatusCode::OK, 0));
    proxy.stop().await;
}

#[tokio::test]
async fn silent_scrapers_hold_up_neither_traffic_nor_other_scrapes() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let mut silent = Vec::new();
    for number in 0..32 {
        let mut stream = TcpStream::connect(proxy.admin()).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(b"GET /metrics HT").await.unwrap();
        }
        silent.push(stream);
    }
    for _ in 0..3 {
        let (status, text) = get(proxy.admin(), "/metrics").await;
        assert!(status == StatusCode::OK && text.ends_with("# EOF\n"));
        assert_eq!(proxy.unary("/test.Echo/Unary", EMPTY).await.status.code as u8, 0);
    }
    for stream in &mut silent {
        let mut byte = [0];
        let still = std::pin::pin!(stream.read(&mut byte));
        assert!(futures_util::poll!(still).is_pending(), "still open");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn one_connection_takes_many_scrapes() {
    let proxy = Proxy::start(&yaml(&[refusing()], "{ tcp: {} }", "")).await;
    let mut stream = TcpStream::connect(proxy.admin()).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: upbeat\r\n\r\n").await.unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"LIVE\n") {
            assert!(stream.read_buf(&mut said).await.unwrap() > 0, "closed");
        }
        assert!(said.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
    proxy.stop().await;
}
