//! PROXY headers to endpoints: here another proxy, which wants them and tells who is in them.

use std::{net::SocketAddr, sync::atomic::Ordering::SeqCst};

use tokio::net::{TcpSocket, TcpStream};

use crate::fixture::{
    caller::Caller,
    certs::{Authority, Pair},
    echo::Echo,
    eventually,
    proxy::{Proxy, beside_open, serving},
};

const UNARY: &str = "/test.Echo/Unary";
const MESSAGE: &[u8] = &[0, 0, 0, 0, 1, 7];

/// The proxy behind, which takes no connection without a header.
async fn behind(echo: &Echo, tls: &str) -> Proxy {
    let keys =
        "proxy_protocol: required, proxy_protocol_from: [\"127.0.0.1\"], x_forwarded_for: true";
    serving(Proxy::start(&beside_open(echo.address(), &format!("{keys}, {tls}"))).await).await
}

/// The proxy in front, which says for whom it connects.
async fn before(endpoint: SocketAddr, keys: &str) -> Proxy {
    let config = format!(
        r#"
listeners:
  - {{ name: otlp, address: "127.0.0.1:0", upstream: next }}
upstreams:
  next:
    endpoints: ["{endpoint}"]
    probe: {{ interval: 300ms, timeout: 290ms, checks: [{{ grpc: {{}} }}, {{ http: {{ path: /healthz }} }}] }}
    {keys}
admin: {{ address: "127.0.0.1:0" }}
drain: {{ delay: 0s, timeout: 2s }}
workers: 1
"#
    );
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    proxy
}

async fn connect(source: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// What the endpoint hears of where a call comes from.
async fn heard(caller: &mut Caller, echo: &Echo) -> String {
    assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
    let metadata = echo.seen().metadata.lock().unwrap();
    metadata["x-forwarded-for"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn endpoints_hear_where_each_client_comes_from() {
    for version in ["v1", "v2"] {
        let echo = Echo::start().await;
        let behind = behind(&echo, "").await;
        let endpoint = behind.address("otlp");
        let proxy = before(endpoint, &format!("proxy_protocol: {version}")).await;
        let address = proxy.address("otlp");
        let name =
            format!("upbeat_upstream_connections{{upstream=\"next\",endpoint=\"{endpoint}\"}}");
        let mut callers = Vec::new();
        for source in ["127.0.0.7", "127.0.0.8", "127.0.0.8"] {
            let caller = Caller::over(connect(source, address).await, address).await.unwrap();
            callers.push((source, caller));
        }
        for _ in 0..3 {
            for (source, caller) in &mut callers {
                assert_eq!(heard(caller, &echo).await, *source, "{version}");
            }
        }
        assert_eq!(proxy.metric(&name).await, 3.0, "one for each connection of a client");
        // They end with their clients, and so does what is left of them.
        callers.truncate(1);
        eventually("two are closed", async || proxy.metric(&name).await == 1.0).await;
        assert_eq!(heard(&mut callers[0].1, &echo).await, "127.0.0.7");
        drop(callers);
        eventually("all are closed", async || proxy.metric(&name).await == 0.0).await;
        proxy.stop().await;
        behind.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_its_connection_is_made_leaves_nothing_behind() {
    let echo = Echo::start().await;
    let behind = behind(&echo, "").await;
    let endpoint = behind.address("otlp");
    let proxy = before(endpoint, "proxy_protocol: v2").await;
    let address = proxy.address("otlp");
    for _ in 0..50 {
        let mut caller = Caller::connect(address).await;
        let mut call = caller.open(UNARY).await.unwrap();
        call.request.send_data(MESSAGE.into(), true).unwrap();
    }
    let name = format!("upbeat_upstream_connections{{upstream=\"next\",endpoint=\"{endpoint}\"}}");
    eventually("all are closed", async || {
        proxy.metric("upbeat_connections{listener=\"otlp\"}").await == 0.0
            && proxy.metric(&name).await == 0.0
    })
    .await;
    assert_eq!(echo.seen().open.load(SeqCst), 0);
    proxy.stop().await;
    behind.stop().await;
}

#[tokio::test]
async fn the_header_stands_before_tls() {
    let (echo, ca) = (Echo::start().await, Authority::new("announced", "ca"));
    let Pair { cert, key } = ca.pair("localhost");
    let behind = behind(&echo, &format!("tls: {{ cert_file: {cert:?}, key_file: {key:?} }}")).await;
    let tls = format!("tls: {{ ca_file: {:?}, server_name: localhost }}", ca.file());
    let keys = format!("proxy_protocol: v2\n    {tls}");
    let proxy = before(behind.address("otlp"), &keys).await;
    let address = proxy.address("otlp");
    let mut caller = Caller::over(connect("127.0.0.9", address).await, address).await.unwrap();
    assert_eq!(heard(&mut caller, &echo).await, "127.0.0.9");
    proxy.stop().await;
    behind.stop().await;
}
