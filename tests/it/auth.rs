//! Who may call, and for which tenant.

mod guessing;
mod jwt;
mod mtls;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::Ordering::SeqCst,
    time::Duration,
};

use http::{HeaderMap, Request, StatusCode};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use upbeat::{config::Config, probe::Channel};

use crate::fixture::{
    caller::{Caller, Reply, get},
    echo::Echo,
    eventually,
    program::{Running, upbeat},
    proxy::{CHECK, Proxy, beside_open, serving},
};

const UNARY: &str = "/test.Echo/Unary";
const AUTH: &str = "auth: { bearer: { tokens: [{ token: t0ken-a, tenant: team-a }, \
    { token: t0ken-b, tenant: team-b }] }, \
    basic: { users: [{ user: ann, password: pa55word, tenant: team-a }] }";

async fn proxy(endpoint: SocketAddr, keys: &str) -> Proxy {
    serving(Proxy::start(&beside_open(endpoint, keys)).await).await
}

/// An empty directory.
fn directory(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("upbeat-{name}-{}", std::process::id()));
    _ = fs::remove_dir_all(&directory);
    fs::create_dir(&directory).unwrap();
    directory
}

async fn tell(proxy: &Proxy, metadata: &[(&str, &str)]) -> Reply {
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    caller.tell(UNARY, metadata).await.unwrap()
}

async fn denied(proxy: &Proxy, reason: &str) -> f64 {
    let name = "upbeat_denied_total";
    proxy.metric(&format!("{name}{{listener=\"otlp\",reason=\"{reason}\"}}")).await
}

const A: (&str, &str) = ("authorization", "Bearer t0ken-a");
const B: (&str, &str) = ("authorization", "Bearer t0ken-b");
const ORG: &str = "x-scope-orgid";

#[tokio::test]
async fn calls_that_prove_nothing_end_at_once_and_no_backend_hears_of_them() {
    let echo = Echo::start().await;
    let proxy = proxy(echo.address(), &format!("{AUTH} }}, tenant: {{ allow: [team-a] }}")).await;
    let cases = [
        (&[][..], 16, "no_credentials"),
        (&[(ORG, "team-a")], 16, "no_credentials"),
        (&[("authorization", "Bearer wrong")], 16, "bad_credentials"),
        (&[("authorization", "t0ken-a")], 16, "bad_credentials"),
        (&[("authorization", "Basic YW5uOndyb25n")], 16, "bad_credentials"),
        (&[A, A], 16, "many_credentials"),
        (&[B], 7, "other_tenant"),
    ];
    for (metadata, code, reason) in cases {
        let before = denied(&proxy, reason).await;
        let reply = tell(&proxy, metadata).await;
        assert_eq!(reply.code(), code, "{metadata:?}");
        assert_eq!(reply.head.status(), StatusCode::OK);
        assert_eq!(denied(&proxy, reason).await, before + 1.0, "{reason}");
    }
    assert_eq!(echo.seen().streams.load(SeqCst), 0);
    let status = proxy.status().await;
    assert_eq!(status.upstreams[0].endpoints[0].in_flight, 0);
    let refused = r#"upbeat_requests_total{listener="otlp",upstream="",service="other",method="other",code="UNAUTHENTICATED"}"#;
    assert_eq!(proxy.metric(refused).await, 6.0);
    proxy.stop().await;
}

#[tokio::test]
async fn endpoints_hear_the_proved_tenant_alone_and_no_credentials() {
    let echo = Echo::start().await;
    let proxy = proxy(echo.address(), &format!("{AUTH} }}")).await;
    let forged: [&[(&str, &str)]; 3] = [&[], &[(ORG, "team-b")], &[(ORG, "team-b"), (ORG, "x")]];
    for more in forged {
        for (proof, tenant) in
            [(A, "team-a"), (B, "team-b"), (("authorization", "Basic YW5uOnBhNTV3b3Jk"), "team-a")]
        {
            let reply = tell(&proxy, &[&[proof], more, &[("x-other", "1")]].concat()).await;
            assert_eq!(reply.code(), 0, "{proof:?}");
            assert_eq!(echo.heard(ORG), [tenant]);
            assert_eq!(echo.heard("authorization"), [""; 0]);
            assert_eq!(echo.heard("x-other"), ["1"]);
        }
    }
    proxy.stop().await;
}

#[tokio::test]
async fn credentials_are_passed_on_where_that_is_asked_for() {
    let echo = Echo::start().await;
    let proxy = proxy(echo.address(), &format!("{AUTH}, forward_credentials: true }}")).await;
    assert_eq!(tell(&proxy, &[A]).await.code(), 0);
    assert_eq!(echo.heard("authorization"), ["Bearer t0ken-a"]);
    proxy.stop().await;
}

#[tokio::test]
async fn without_auth_a_listener_takes_the_tenants_that_it_names() {
    let echo = Echo::start().await;
    let proxy = proxy(echo.address(), "tenant: { allow: [team-a, team-c] }").await;
    for (metadata, code, reason) in [
        (&[][..], 16, "no_tenant"),
        (&[(ORG, "team-b")], 7, "other_tenant"),
        (&[(ORG, "")], 7, "other_tenant"),
        (&[(ORG, "team-a|team-c")], 7, "other_tenant"),
        (&[(ORG, "team-a"), (ORG, "team-a")], 7, "many_tenants"),
        (&[(ORG, "team-a"), (ORG, "team-b")], 7, "many_tenants"),
    ] {
        let before = denied(&proxy, reason).await;
        assert_eq!(tell(&proxy, metadata).await.code(), code, "{metadata:?}");
        assert_eq!(denied(&proxy, reason).await, before + 1.0);
    }
    assert_eq!(echo.seen().streams.load(SeqCst), 0);
    // What nobody asks for is passed on.
    assert_eq!(tell(&proxy, &[(ORG, "team-c"), A]).await.code(), 0);
    assert_eq!(
        (echo.heard(ORG), echo.heard("authorization")),
        (vec!["team-c".into()], vec![A.1.into()])
    );
    proxy.stop().await;

    let proxy = self::proxy(echo.address(), "tenant: { default: team-d }").await;
    for (said, heard) in [(&[][..], "team-d"), (&[(ORG, "any")], "any")] {
        assert_eq!(tell(&proxy, said).await.code(), 0);
        assert_eq!(echo.heard(ORG), [heard]);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn routes_see_the_tenant_that_was_proved() {
    let (a, b) = (Echo::start().await, Echo::start().await);
    let config = beside_open(a.address(), &format!("{AUTH} }}, routes: [{{ match: {{ metadata: {{ x-scope-orgid: team-b }} }}, upstream: b }}]"))
        .replace("upstreams:", &format!("upstreams:\n  b: {{ endpoints: ['{}'], probe: {{ interval: 300ms, timeout: 290ms, checks: [{{ tcp: {{}} }}] }} }}", b.address()));
    let proxy = serving(Proxy::start(&config).await).await;
    let counts = || [&a, &b].map(|echo| echo.seen().streams.load(SeqCst));
    assert_eq!(tell(&proxy, &[A, (ORG, "team-b")]).await.code(), 0);
    assert_eq!(counts(), [1, 0]);
    assert_eq!(tell(&proxy, &[B, (ORG, "team-a")]).await.code(), 0);
    assert_eq!(counts(), [1, 1]);
    proxy.stop().await;
}

const CHALLENGE: &str = "www-authenticate: bearer realm=\"upbeat\", basic realm=\"upbeat\"";

async fn check(proxy: &Proxy, path: &str, metadata: &HeaderMap) -> i32 {
    let mut channel = Channel::new(proxy.address("otlp"), None, Duration::from_secs(5));
    let reply = channel.unary(path, metadata, bytes::Bytes::from_static(&[0; 5])).await.unwrap();
    reply.status.code as i32
}

async fn http1(proxy: &Proxy, head: &str) -> String {
    let mut stream = TcpStream::connect(proxy.address("otlp")).await.unwrap();
    let ask = format!("{head} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n");
    stream.write_all(format!("{ask}\r\n").as_bytes()).await.unwrap();
    let mut reply = String::new();
    let read = timeout(Duration::from_secs(20), stream.read_to_string(&mut reply)).await;
    read.expect("answered").unwrap();
    reply
}

#[tokio::test]
async fn health_checks_need_no_credentials_unless_they_are_to() {
    let echo = Echo::start().await;
    let open = proxy(echo.address(), &format!("{AUTH} }}")).await;
    let closed = proxy(echo.address(), &format!("{AUTH}, health: true }}")).await;
    let paths = [CHECK, "/grpc.health.v1.Health/List"];
    for path in paths {
        assert_eq!(check(&open, path, &HeaderMap::new()).await, 0, "{path}");
        assert_eq!(check(&closed, path, &HeaderMap::new()).await, 16, "{path}");
        let mut proof = HeaderMap::new();
        proof.insert("authorization", A.1.parse().unwrap());
        assert_eq!(check(&closed, path, &proof).await, 0, "{path}");
    }
    assert_eq!(check(&open, "/AWS.ALB/healthcheck", &HeaderMap::new()).await, 12);
    assert_eq!(check(&closed, "/AWS.ALB/healthcheck", &HeaderMap::new()).await, 16);
    for (proxy, code) in [(&open, "200"), (&closed, "401")] {
        for path in ["/", "/healthz", CHECK] {
            let reply = http1(proxy, &format!("GET {path}")).await;
            assert!(reply.starts_with(&format!("HTTP/1.1 {code}")), "{path}: {reply}");
            let asked = reply.to_ascii_lowercase().contains(CHALLENGE);
            assert_eq!(asked, code == "401", "{path}: {reply}");
        }
        assert!(http1(proxy, "GET /livez").await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(denied(&closed, "no_credentials").await, 6.0);
    let mut caller = Caller::connect(closed.address("otlp")).await;
    let get = Request::get(format!("http://{}/healthz", closed.address("otlp")));
    let response = caller.send(get.body(()).unwrap(), true).await.unwrap().response.await.unwrap();
    assert_eq!(response.status(), 401);
    let asked = response.headers()["www-authenticate"].to_str().unwrap();
    assert!(CHALLENGE.ends_with(&asked.to_ascii_lowercase()), "{asked}");
    open.stop().await;
    closed.stop().await;
}

#[tokio::test]
async fn a_file_of_tokens_that_changes_is_taken_over_and_a_broken_one_is_not() {
    let echo = Echo::start().await;
    let directory = directory("tokens");
    let tokens = directory.join("tokens.yaml");
    fs::write(&tokens, "first: team-a\n").unwrap();
    let config = directory.join("upbeat.yaml");
    let keys = format!("auth: {{ bearer: {{ tokens_file: '{}' }} }}", tokens.display());
    let reload = "reload: { interval: 20ms }\n";
    fs::write(&config, beside_open(echo.address(), &keys) + reload).unwrap();
    let proxy = serving(Proxy::follow(&config).await).await;
    let code = async |token: &str| {
        let proof = format!("Bearer {token}");
        tell(&proxy, &[("authorization", &proof)]).await.code()
    };
    assert_eq!((code("first").await, code("second").await), (0, 16));
    write(&tokens, "second: team-b\n");
    eventually("taken over", async || code("second").await == 0).await;
    assert_eq!(code("first").await, 16);
    assert_eq!(echo.heard(ORG), ["team-b"]);
    write(&tokens, "second: 5\n");
    let refused = r#"upbeat_config_reloads_total{result="refused"}"#;
    eventually("refused", async || proxy.metric(refused).await == 1.0).await;
    assert_eq!(code("second").await, 0);
    proxy.stop().await;
    fs::remove_dir_all(directory).unwrap();
}

/// Whole or not at all, as a ConfigMap is swapped.
fn write(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn a_file_that_is_missing_or_broken_is_told_by_check_without_its_secrets() {
    let directory = directory("check");
    let tokens = directory.join("tokens.yaml");
    let config = directory.join("upbeat.yaml");
    let keys = format!("auth: {{ bearer: {{ tokens_file: '{}' }} }}", tokens.display());
    fs::write(&config, beside_open("127.0.0.1:1".parse().unwrap(), &keys)).unwrap();
    for (text, words) in [
        (None, "cannot be read: "),
        (Some("s3cret: 5"), "entry 1: expected a token and its tenant, both in quotes, line 3"),
        (Some("s3cret: [a"), "is no valid YAML"),
    ] {
        if let Some(text) = text {
            fs::write(&tokens, text).unwrap();
        }
        let ended = upbeat(&["check", "--config", config.to_str().unwrap()]).await;
        let said = ended.stdout + &ended.stderr;
        assert_eq!(ended.code, Some(78), "{said}");
        let told = format!("listeners[0].auth.bearer.tokens_file: {}: {words}", tokens.display());
        assert!(said.contains(&told), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn no_log_and_no_page_has_a_secret_and_the_log_says_why_a_call_was_denied() {
    let echo = Echo::start().await;
    let directory = directory("secrets");
    let config = directory.join("upbeat.yaml");
    let keys = format!("{AUTH} }}").replace("ann, password", "eve, sha256: \
        2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b, tenant: e }, { user: ann, password");
    let text = beside_open(echo.address(), &keys) + "log: { format: json, level: debug }\n";
    fs::write(&config, &text).unwrap();
    let mut run = Running::start(&["run", "--config", config.to_str().unwrap()]);
    let address = |line: serde_json::Value| -> SocketAddr {
        line["address"].as_str().unwrap().parse().unwrap()
    };
    let otlp = address(run.logged("listening").await);
    let admin = address(run.logged("admin listening").await);
    eventually("SERVING", async || get(otlp, "/").await.0 == 200).await;
    let mut caller = Caller::connect(otlp).await;
    let bad = ("authorization", "Bearer t0ken-x");
    assert_eq!(caller.tell(UNARY, &[bad]).await.unwrap().code(), 16);
    let line = run.logged("call denied").await;
    assert_eq!((&line["reason"], &line["listener"]), (&json!("bad_credentials"), &json!("otlp")));
    assert_eq!(line["client"], "127.0.0.1");
    assert!(!line.to_string().contains("t0ken"), "{line}");
    assert_eq!(caller.tell(UNARY, &[A]).await.unwrap().code(), 0);
    let mut all = String::new();
    for page in ["/config", "/status", "/metrics"] {
        all += &get(admin, page).await.1;
    }
    assert!(
        all.contains("\"tenant\":\"team-a\"") || all.contains("\"tenant\": \"team-a\""),
        "{all}"
    );
    drop(caller);
    run.signal("TERM");
    while let Ok(Some(line)) = run.stderr.next_line().await {
        all += &line;
    }
    for secret in ["t0ken", "pa55word", "2bb80d", "YW5uO"] {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
    let parsed = Config::parse(&text, |_| None).unwrap();
    let shown = format!("{:?}", parsed.listeners);
    assert!(!shown.contains("t0ken") && !shown.contains("pa55word"), "{shown}");
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_tenant_that_calls_too_often_is_bidden_to_come_back_and_the_others_are_not() {
    let echo = Echo::start().await;
    let keys = format!("{AUTH} }}, limits_per: {{ tenant: {{ calls_per_second: 1, burst: 3 }} }}");
    let proxy = proxy(echo.address(), &keys).await;
    let mut shed = None;
    for _ in 0..10 {
        let reply = tell(&proxy, &[A]).await;
        if reply.code() != 0 {
            shed = Some(reply);
            break;
        }
    }
    let shed = shed.expect("ten calls at once are more than three and one a second");
    assert_eq!(shed.code(), 8);
    let details = shed.head.headers()["grpc-status-details-bin"].as_bytes();
    let delay = upbeat::grpc::retry_delay(details).expect("OTLP wants a RetryInfo");
    assert!(delay <= Duration::from_secs(2), "{delay:?}");
    assert_eq!(denied(&proxy, "tenant_rate").await, 1.0);
    // A user of the same tenant has no bucket of its own.
    let basic = ("authorization", "Basic YW5uOnBhNTV3b3Jk");
    let before = echo.seen().streams.load(SeqCst);
    assert!([tell(&proxy, &[basic]).await.code(), tell(&proxy, &[A]).await.code()].contains(&8));
    assert!(echo.seen().streams.load(SeqCst) <= before + 1);
    assert_eq!(tell(&proxy, &[B]).await.code(), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn an_address_that_guesses_is_shed_before_its_credentials_are_looked_at() {
    let echo = Echo::start().await;
    let keys = format!("{AUTH} }}, limits_per: {{ address: {{ calls_per_second: 1, burst: 2 }} }}");
    let proxy = proxy(echo.address(), &keys).await;
    let mut codes = Vec::new();
    for _ in 0..6 {
        codes.push(tell(&proxy, &[("authorization", "Bearer guess")]).await.code());
    }
    assert_eq!(codes[..2], [16, 16]);
    assert!(codes[2..].contains(&8), "{codes:?}");
    assert!(denied(&proxy, "address_rate").await >= 1.0);
    assert_eq!(echo.seen().streams.load(SeqCst), 0);
    proxy.stop().await;
}
