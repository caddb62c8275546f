//! TLS between Upbeat and its endpoints.

use std::{net::SocketAddr, sync::atomic::Ordering::SeqCst};

use http::StatusCode;

use super::{MESSAGE, UNARY, calls, files};
use crate::fixture::{
    caller::{Caller, get},
    certs::Authority,
    echo::Echo,
    eventually,
    program::upbeat,
    proxy::Proxy,
};

fn yaml(endpoint: SocketAddr, check: &str, tls: &str) -> String {
    format!(
        r#"
listeners: [{{ name: otlp, address: "127.0.0.1:0", upstream: otlp }}]
upstreams:
  otlp:
    endpoints: ["{endpoint}"]
    probe: {{ interval: 300ms, timeout: 290ms, checks: [{check}] }}
    tls: {{ {tls} }}
admin: {{ address: "127.0.0.1:0" }}
drain: {{ delay: 0s, timeout: 2s }}
workers: 2
"#
    )
}

const CHECK: &str = "{ grpc: { metadata: { x-scope-orgid: health }, watch: true } }";

async fn one_call(proxy: &Proxy) -> (Vec<u8>, u8) {
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let reply = caller.unary(UNARY, MESSAGE).await.unwrap();
    (reply.body.clone(), reply.code())
}

#[tokio::test]
async fn calls_and_probes_go_to_endpoints_under_tls() {
    let ca = Authority::new("upstream", "ca");
    for (name, tls) in [("127.0.0.1", ""), ("tempo.test", ", server_name: tempo.test")] {
        let echo = Echo::with_tls(ca.server(&ca.pair(name), false)).await;
        let tls = format!("ca_file: {:?}{tls}", ca.file());
        let proxy = Proxy::start(&yaml(echo.address(), CHECK, &tls)).await;
        proxy.wait_serving().await;
        assert_eq!(one_call(&proxy).await, (MESSAGE.to_vec(), 0), "{name}");
        let mut large = vec![0, 0, 0x20, 0, 0];
        large.resize(5 + (0x20 << 16), 7);
        let mut caller = Caller::connect(proxy.address("otlp")).await;
        assert!(caller.unary(UNARY, &large).await.unwrap().body == large);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn endpoints_that_want_a_certificate_are_shown_it() {
    let ca = Authority::new("own", "ca");
    let echo = Echo::with_tls(ca.server(&ca.pair("127.0.0.1"), true)).await;
    let trust = format!("ca_file: {:?}", ca.file());
    let own = format!("{trust}, {}", files(&ca.pair("upbeat")));
    let proxy = Proxy::start(&yaml(echo.address(), CHECK, &own)).await;
    proxy.wait_serving().await;
    assert_eq!(one_call(&proxy).await, (MESSAGE.to_vec(), 0));
    proxy.stop().await;
    let proxy = Proxy::start(&yaml(echo.address(), CHECK, &trust)).await;
    // It learns that after its own side of the handshake, when the endpoint is gone already.
    let told = async || format!("{:?}", proxy.status().await.upstreams);
    eventually("a reason", async || told().await.contains("connection lost")).await;
    let told = told().await;
    assert!(told.contains("received fatal alert: CertificateRequired"), "{told}");
    proxy.stop().await;
}

/// Waits until a probe has failed for its TLS.
async fn distrusts(proxy: &Proxy) {
    let told = async || format!("{:?}", proxy.status().await.upstreams);
    eventually("the reason", async || told().await.contains("TLS with 127.0.0.1")).await;
}

#[tokio::test]
async fn an_endpoint_that_is_not_trusted_gets_no_calls_and_its_fault_is_told() {
    let (ca, other) = (Authority::new("distrust", "ca"), Authority::new("distrust", "other"));
    for (pair, words) in [
        (other.pair("127.0.0.1"), "invalid peer certificate"),
        (ca.pair("other.test"), "not valid for name"),
        (ca.issue("127.0.0.1", 9, true), "expired"),
    ] {
        let echo = Echo::with_tls(ca.server(&pair, false)).await;
        let tls = format!("ca_file: {:?}", ca.file());
        let proxy = Proxy::start(&yaml(echo.address(), CHECK, &tls)).await;
        distrusts(&proxy).await;
        let told = format!("{:?}", proxy.status().await.upstreams);
        assert!(told.contains(words), "{words}: {told}");
        proxy.stop().await;
        // By its checks alone it would be well.
        let proxy = Proxy::start(&yaml(echo.address(), "{ tcp: {} }", &tls)).await;
        proxy.wait_serving().await;
        let mut caller = Caller::connect(proxy.address("otlp")).await;
        let reply = caller.unary(UNARY, MESSAGE).await.unwrap();
        assert_eq!(reply.code(), 14);
        let told = reply.status().unwrap().message.into_owned();
        assert!(told.contains("TLS failed"), "{told}");
        assert_eq!(echo.seen().streams.load(SeqCst), 0);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn endpoints_may_be_known_by_a_uri() {
    let (ca, other) = (Authority::new("uri", "ca"), Authority::new("uri", "other"));
    let (good, wrong) = ("spiffe://a/tempo", "spiffe://a/other");
    for (pair, serves) in [
        (ca.pair(good), true),
        (ca.pair(wrong), false),
        (ca.pair("127.0.0.1"), false),
        (other.pair(good), false),
        (ca.issue(good, 2, true), false),
    ] {
        let echo = Echo::with_tls(ca.server(&pair, false)).await;
        let tls = format!("ca_file: {:?}, expect_san: [\"spiffe://b/c\", {good:?}]", ca.file());
        let proxy = Proxy::start(&yaml(echo.address(), CHECK, &tls)).await;
        match serves {
            true => {
                proxy.wait_serving().await;
                assert_eq!(one_call(&proxy).await, (MESSAGE.to_vec(), 0));
            }
            false => distrusts(&proxy).await,
        }
        proxy.stop().await;
    }
}

#[tokio::test]
async fn checks_go_under_tls_or_not_as_each_says() {
    let ca = Authority::new("checks", "ca");
    let (tls, plain) =
        (Echo::with_tls(ca.server(&ca.pair("127.0.0.1"), false)).await, Echo::start().await);
    let trust = format!("ca_file: {:?}", ca.file());
    let more = format!(
        "{CHECK}, {{ grpc: {{ metadata: {{ x-scope-orgid: a }}, port: {}, tls: false }} }}",
        plain.address().port()
    );
    let front = Proxy::start(&yaml(tls.address(), &more, &trust)).await;
    front.wait_serving().await;
    front.stop().await;
    // Its GET is answered by a listener that speaks TLS.
    let section = files(&ca.pair("127.0.0.1"));
    let back = super::start(plain.address(), &section).await;
    let get_it = "{ http: { path: /healthz } }";
    let proxy = Proxy::start(&yaml(back.address("tls"), get_it, &trust)).await;
    proxy.wait_serving().await;
    assert_eq!(one_call(&proxy).await, (MESSAGE.to_vec(), 0));
    assert_eq!(get(proxy.admin(), "/readyz").await.0, StatusCode::OK);
    proxy.stop().await;
    let mut client = ca.client(None);
    client.name = "127.0.0.1";
    let address = back.address("tls");
    assert!(calls(client.connect(address).await, address).await);
    back.stop().await;
}

#[tokio::test]
async fn probe_asks_under_tls() {
    let ca = Authority::new("probe", "ca");
    let echo = Echo::start().await;
    let back = super::start(echo.address(), &files(&ca.pair("tempo.test"))).await;
    let address = back.address("tls").to_string();
    let file = ca.file();
    let trust = ["--tls", "--ca", file.to_str().unwrap()];
    let named = ["--server-name", "tempo.test"];
    let asked = async |more: &[&str]| {
        let ended = upbeat(&[&["probe", &address], more].concat()).await;
        (ended.code, ended.stdout, ended.stderr)
    };
    let serving = (Some(0), "SERVING\n".to_owned(), String::new());
    assert_eq!(asked(&[&trust[..], &named].concat()).await, serving);
    let path = ["--http", "/healthz"];
    assert_eq!(asked(&[&trust[..], &named, &path].concat()).await, serving);
    let (code, _, words) = asked(&trust).await;
    assert!(code == Some(2) && words.contains("not valid for name"), "{code:?} {words}");
    let (code, _, words) = asked(&["--tls", "--ca", "/nowhere.pem"]).await;
    assert!(code == Some(2) && words.contains("/nowhere.pem cannot be read"), "{code:?} {words}");
    assert_eq!(asked(&["--ca", "x"]).await.0, Some(1));
    back.stop().await;
}
