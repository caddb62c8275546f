//! What one client may ask for: in flight, in bytes, and what a reload leaves of it.

use std::{fs, net::SocketAddr, path::PathBuf, sync::atomic::Ordering::SeqCst, time::Duration};

use bytes::Bytes;
use http::Request;
use upbeat::grpc::{Code, Status, retry_delay};

use crate::fixture::{
    caller::{Call, Caller, Reply, get, read},
    echo::{self, Echo},
    eventually,
    proxy::Proxy,
};

const UNARY: &str = "/test.Echo/Unary";
const HANG: &str = "/test.Echo/Hang";

/// Two workers, and a route that retries, so that what is held is given back by every way out.
fn yaml(endpoint: SocketAddr, limits: &str) -> String {
    format!(
        r#"
listeners:
  - name: otlp
    address: "127.0.0.1:0"
    upstream: otlp
    limits_per: {limits}
    retry: {{ statuses: [UNAVAILABLE] }}
    timeouts: {{ idle: 60s }}
upstreams:
  otlp:
    endpoints: ["{endpoint}"]
    probe: {{ interval: 300ms, timeout: 290ms, checks: [{{ tcp: {{}} }}] }}
admin: {{ address: "127.0.0.1:0" }}
drain: {{ delay: 0s, timeout: 2s }}
reload: {{ interval: 5ms }}
workers: 2
"#
    )
}

async fn proxy(echo: &Echo, limits: &str) -> Proxy {
    let proxy = Proxy::start(&yaml(echo.address(), limits)).await;
    proxy.wait_serving().await;
    proxy
}

fn head(path: &str, tenant: &str, timeout: &str) -> Request<()> {
    let head = Request::post(format!("http://h{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
        .header("x-scope-orgid", tenant);
    head.body(()).unwrap()
}

async fn open(caller: &mut Caller, path: &str, tenant: &str) -> Call {
    caller.send(head(path, tenant, "60S"), false).await.unwrap()
}

async fn ended(mut call: Call) -> Reply {
    // It may be answered, and its stream reset, before that.
    _ = call.request.send_data(Bytes::from_static(&[0; 5]), true);
    read(call.response.await.unwrap()).await.unwrap()
}

async fn denied(proxy: &Proxy, reason: &str) -> f64 {
    let name = "upbeat_denied_total";
    proxy.metric(&format!("{name}{{listener=\"otlp\",reason=\"{reason}\"}}")).await
}

/// When a call that was shed is to come back.
fn delay(reply: &Reply) -> Duration {
    assert_eq!(reply.code(), 8);
    let details = reply.head.headers()["grpc-status-details-bin"].as_bytes();
    retry_delay(details).expect("OTLP wants a RetryInfo")
}

#[tokio::test]
async fn calls_at_a_time_are_bounded_and_each_end_of_one_makes_room_for_one_more() {
    let echo = Echo::start().await;
    let proxy =
        proxy(&echo, "{ tenant: { max_in_flight: 2 }, address: { max_in_flight: 3 } }").await;
    let mut callers = Vec::new();
    for _ in 0..2 {
        callers.push(Caller::connect(proxy.address("otlp")).await);
    }
    let open_streams = async |count| {
        let what = format!("{count} in flight");
        eventually(&what, async || echo.seen().open.load(SeqCst) == count).await;
    };
    for way in ["end", "status", "retry", "reset", "timeout", "close", "end"] {
        let first = open(&mut callers[0], HANG, "a").await;
        open_streams(1).await;
        // The second one ends in this way; the connection is one of its own.
        let mut other = Caller::connect(proxy.address("otlp")).await;
        let path = if way == "timeout" || way == "reset" || way == "close" { HANG } else { UNARY };
        let timeout = if way == "timeout" { "200m" } else { "60S" };
        let second = other.send(head(path, "a", timeout), false).await.unwrap();
        open_streams(2).await;
        let third = ended(open(&mut callers[1], UNARY, "a").await).await;
        let wait = delay(&third);
        assert!(
            wait >= Duration::from_millis(500) && wait <= Duration::from_millis(1500),
            "{wait:?}"
        );
        let words = third.status().unwrap().message.into_owned();
        assert_eq!(words, "too many calls of this tenant at a time", "{way}");
        // Another tenant has room; but the address has no more then.
        let more = open(&mut callers[1], HANG, "b").await;
        open_streams(3).await;
        let shed = ended(open(&mut callers[1], UNARY, "c").await).await;
        assert_eq!(shed.status().unwrap().message, "too many calls of this address at a time");
        drop(more);
        open_streams(2).await;
        match way {
            "reset" => drop(second),
            "close" => drop((second, other)),
            "timeout" => assert_eq!(ended(second).await.code(), 4),
            _ => assert_eq!(ended(second).await.code(), 0),
        }
        open_streams(1).await;
        if way == "status" || way == "retry" {
            let code = if way == "retry" { Code::Unavailable } else { Code::NotFound };
            echo.say(Status::new(code, "no"));
            assert_eq!(ended(open(&mut callers[1], UNARY, "a").await).await.code(), code as u8);
            echo.say_what_paths_say();
        }
        // There is room for one more, and for one only.
        let next = open(&mut callers[1], HANG, "a").await;
        open_streams(2).await;
        assert_eq!(ended(open(&mut callers[0], UNARY, "a").await).await.code(), 8, "{way}");
        drop((first, next));
        open_streams(0).await;
    }
    let retried = r#"upbeat_retries_total{listener="otlp",upstream="otlp",reason="status"}"#;
    assert!(proxy.metric(retried).await >= 1.0);
    assert_eq!(denied(&proxy, "tenant_in_flight").await, 14.0);
    assert_eq!(denied(&proxy, "address_in_flight").await, 7.0);
    drop(callers);
    proxy.stop().await;
}

#[tokio::test]
async fn bytes_beyond_the_rate_are_owed_and_the_call_that_brings_them_is_not_cut() {
    let echo = Echo::start().await;
    let limits = "{ tenant: { bytes_per_second: 400kB, bytes_burst: 100kB } }";
    let proxy = proxy(&echo, limits).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let large = vec![0; 2_000_000];
    let mut message = vec![0];
    message.extend((large.len() as u32).to_be_bytes());
    message.extend(large);
    let mut call = open(&mut caller, UNARY, "a").await;
    let answer = async { read(call.response.await.unwrap()).await.unwrap() };
    let sending = async {
        echo::send(&mut call.request, message.clone().into()).await.unwrap();
        call.request.send_data(Bytes::new(), true).unwrap();
    };
    let (whole, ()) = tokio::join!(answer, sending);
    assert_eq!((whole.code(), whole.body == message), (0, true));
    // Five seconds' worth are owed, less what came back while it was sent, and some jitter.
    let wait = delay(&ended(open(&mut caller, UNARY, "a").await).await);
    assert!(wait > Duration::from_millis(500) && wait < Duration::from_secs(7), "{wait:?}");
    assert_eq!(denied(&proxy, "tenant_bytes").await, 1.0);
    assert_eq!(ended(open(&mut caller, UNARY, "b").await).await.code(), 0);
    let address = proxy.address("otlp");
    eventually("it is paid", async || {
        let mut caller = Caller::connect(address).await;
        ended(open(&mut caller, UNARY, "a").await).await.code() == 0
    })
    .await;
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn a_reload_leaves_what_clients_have_used_unless_it_changes_their_bounds() {
    let echo = Echo::start().await;
    let name = format!("upbeat-quotas-{}.yaml", std::process::id());
    let file: PathBuf = std::env::temp_dir().join(name);
    let write = |text: &str| {
        let new = file.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, &file).unwrap();
    };
    let limits = "{ tenant: { calls_per_second: 1, burst: 600 }, address: { max_in_flight: 2 } }";
    let first = yaml(echo.address(), limits);
    write(&first);
    let proxy = Proxy::follow(&file).await;
    eventually("SERVING", async || get(proxy.admin(), "/readyz").await.0 == 200).await;
    let applied = "upbeat_config_reloads_total{result=\"applied\"}";
    let reload = async |text: &str| {
        let before = proxy.metric(applied).await;
        write(text);
        eventually("applied", async || proxy.metric(applied).await == before + 1.0).await;
    };
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let hanging = open(&mut caller, HANG, "b").await;
    let mut left = 0;
    while ended(open(&mut caller, UNARY, "a").await).await.code() == 0 {
        left += 1;
        assert!(left < 900, "600 and one a second");
    }
    let keys = r#"upbeat_limited_keys{listener="otlp",per="tenant"}"#;
    assert_eq!(proxy.metric(keys).await, 2.0);
    let other = first.replace("idle: 60s", "idle: 61s");
    reload(&other).await;
    // One a second may have come back, and no 600.
    let mut codes = Vec::new();
    for _ in 0..20 {
        codes.push(ended(open(&mut caller, UNARY, "a").await).await.code());
    }
    assert!(codes.contains(&8), "{codes:?}");
    assert_eq!(proxy.metric(keys).await, 2.0);
    let more = open(&mut caller, HANG, "b").await;
    eventually("two in flight", async || echo.seen().open.load(SeqCst) == 2).await;
    assert_eq!(ended(open(&mut caller, UNARY, "b").await).await.code(), 8);
    // Another rate counts anew, and what is not changed beside it does not.
    reload(&other.replace("burst: 600", "burst: 500")).await;
    drop(more);
    eventually("one in flight", async || echo.seen().open.load(SeqCst) == 1).await;
    for _ in 0..20 {
        assert_eq!(ended(open(&mut caller, UNARY, "a").await).await.code(), 0);
    }
    let more = open(&mut caller, HANG, "b").await;
    eventually("two in flight", async || echo.seen().open.load(SeqCst) == 2).await;
    assert_eq!(ended(open(&mut caller, UNARY, "b").await).await.code(), 8);
    drop((hanging, more, caller));
    proxy.stop().await;
    fs::remove_file(file).unwrap();
}
