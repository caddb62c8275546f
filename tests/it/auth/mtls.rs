//! Clients that are known by their certificates.

use super::*;
use crate::fixture::certs::{Authority, Pair};

const KNOWN: &str = "mtls: { identities: [{ san: 'spiffe://prod/ns/a/sa/agent', tenant: team-a }, \
    { san: 'spiffe://prod/ns/b/*', tenant: team-b }, { san: agent.test, tenant: team-c }] }";

/// TLS on the listener, for clients with a certificate and for those without.
fn tls(ca: &Authority) -> String {
    let own = ca.pair("localhost");
    let (cert, key, ca) = (own.cert.display(), own.key.display(), ca.file());
    let files =
        format!("cert_file: '{cert}', key_file: '{key}', client_ca_file: '{}'", ca.display());
    format!("tls: {{ {files}, client_auth: optional }}")
}

async fn caller(proxy: &Proxy, ca: &Authority, own: Option<&Pair>) -> Caller {
    let address = proxy.address("otlp");
    let stream = ca.client(own).connect(address).await.unwrap();
    Caller::over(stream, address).await.unwrap()
}

#[tokio::test]
async fn what_a_certificate_names_says_the_tenant_and_one_that_is_not_known_is_forbidden() {
    let (echo, ca) = (Echo::start().await, Authority::new("mtls", "ca"));
    let proxy = proxy(echo.address(), &format!("{}, auth: {{ {KNOWN} }}", tls(&ca))).await;
    for (name, tenant) in [
        ("spiffe://prod/ns/a/sa/agent", "team-a"),
        ("spiffe://prod/ns/b/sa/agent", "team-b"),
        ("agent.test", "team-c"),
    ] {
        let mut caller = caller(&proxy, &ca, Some(&ca.pair(name))).await;
        for said in [&[][..], &[(ORG, "forged")], &[(ORG, "x"), (ORG, "y")], &[A]] {
            assert_eq!(caller.tell(UNARY, said).await.unwrap().code(), 0, "{name} {said:?}");
            assert_eq!(echo.heard(ORG), [tenant], "{name} {said:?}");
        }
        // Nobody but endpoints looks at it here.
        assert_eq!(echo.heard("authorization"), [A.1]);
    }
    let before = echo.seen().streams.load(SeqCst);
    for name in ["spiffe://prod/ns/a/sa/other", "spiffe://prod/ns/b", "other.test", "*.test"] {
        let mut caller = caller(&proxy, &ca, Some(&ca.pair(name))).await;
        let reply = caller.tell(UNARY, &[(ORG, "team-a")]).await.unwrap();
        assert_eq!(reply.code(), 7, "{name}");
    }
    assert_eq!(denied(&proxy, "unknown_certificate").await, 4.0);
    let mut nobody = caller(&proxy, &ca, None).await;
    for said in [&[][..], &[A]] {
        assert_eq!(nobody.tell(UNARY, said).await.unwrap().code(), 16);
    }
    assert_eq!(denied(&proxy, "no_credentials").await, 2.0);
    assert_eq!(echo.seen().streams.load(SeqCst), before);
    proxy.stop().await;
}

#[tokio::test]
async fn a_call_with_credentials_is_judged_by_them_alone() {
    let (echo, ca) = (Echo::start().await, Authority::new("mtls-both", "ca"));
    let proxy = proxy(echo.address(), &format!("{}, {AUTH}, {KNOWN} }}", tls(&ca))).await;
    let mut known = caller(&proxy, &ca, Some(&ca.pair("agent.test"))).await;
    let mut other = caller(&proxy, &ca, Some(&ca.pair("other.test"))).await;
    let mut nobody = caller(&proxy, &ca, None).await;
    assert_eq!(known.tell(UNARY, &[]).await.unwrap().code(), 0);
    assert_eq!(echo.heard(ORG), ["team-c"]);
    assert_eq!(other.tell(UNARY, &[]).await.unwrap().code(), 7);
    assert_eq!(nobody.tell(UNARY, &[]).await.unwrap().code(), 16);
    for caller in [&mut known, &mut other, &mut nobody] {
        assert_eq!(caller.tell(UNARY, &[B]).await.unwrap().code(), 0);
        assert_eq!(echo.heard(ORG), ["team-b"]);
        assert_eq!(echo.heard("authorization"), [""; 0]);
        let wrong = ("authorization", "Bearer wrong");
        assert_eq!(caller.tell(UNARY, &[wrong]).await.unwrap().code(), 16);
        assert_eq!(caller.tell(UNARY, &[B, B]).await.unwrap().code(), 16);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_open_connection_goes_by_who_is_known_now() {
    let (echo, ca) = (Echo::start().await, Authority::new("mtls-reload", "ca"));
    let directory = directory("mtls-reload");
    let config = directory.join("upbeat.yaml");
    let with = |keys: &str| {
        let keys = format!("{}, {keys}", tls(&ca));
        beside_open(echo.address(), &keys) + "reload: { interval: 20ms }\n"
    };
    fs::write(&config, with(&format!("auth: {{ {KNOWN} }}"))).unwrap();
    let proxy = serving(Proxy::follow(&config).await).await;
    let mut known = caller(&proxy, &ca, Some(&ca.pair("agent.test"))).await;
    assert_eq!(known.tell(UNARY, &[]).await.unwrap().code(), 0);
    assert_eq!(echo.heard(ORG), ["team-c"]);
    let applied = r#"upbeat_config_reloads_total{result="applied"}"#;
    for (number, (keys, code, heard)) in [
        ("auth: { mtls: { identities: [{ san: agent.test, tenant: team-d }] } }", 0, "team-d"),
        ("auth: { mtls: { identities: [{ san: b.test, tenant: team-d }] } }", 7, "team-d"),
        ("x_forwarded_for: true", 0, "said"),
        ("auth: { mtls: { identities: [{ san: agent.test, tenant: team-e }] } }", 0, "team-e"),
    ]
    .into_iter()
    .enumerate()
    {
        write(&config, &with(keys));
        let reloads = number as f64 + 1.0;
        eventually("applied", async || proxy.metric(applied).await == reloads).await;
        assert_eq!(known.tell(UNARY, &[(ORG, "said")]).await.unwrap().code(), code, "{keys}");
        assert_eq!(echo.heard(ORG), [heard], "{keys}");
    }
    drop(known);
    proxy.stop().await;
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn health_checks_may_be_asked_for_a_certificate_in_both_protocols() {
    let (echo, ca) = (Echo::start().await, Authority::new("mtls-health", "ca"));
    let keys = format!("{}, auth: {{ {KNOWN}, health: true }}", tls(&ca));
    let proxy = proxy(echo.address(), &keys).await;
    let (known, other) = (ca.pair("agent.test"), ca.pair("other.test"));
    for (own, code, status) in
        [(Some(&known), 0, "200"), (Some(&other), 7, "403"), (None, 16, "403")]
    {
        let mut caller = caller(&proxy, &ca, own).await;
        assert_eq!(caller.tell(CHECK, &[]).await.unwrap().code(), code);
        let mut client = ca.client(own);
        client.protocols = vec!["http/1.1"];
        let mut stream = client.connect(proxy.address("otlp")).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
    }
    proxy.stop().await;
}
