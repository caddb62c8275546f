//! Who may connect.

use std::{io, net::SocketAddr, sync::atomic::Ordering::SeqCst, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::fixture::{echo::Echo, proxy::Proxy};

/// A proxy whose listener has these keys too. It never calls itself healthy to one who may not ask.
async fn proxy(echo: &Echo, keys: &str) -> Proxy {
    let config = format!(
        r#"
listeners:
  - {{ name: otlp, address: "127.0.0.1:0", upstream: otlp, {keys} }}
  - {{ name: open, address: "127.0.0.1:0" }}
upstreams:
  otlp:
    endpoints: ["{}"]
    probe: {{ interval: 100ms, timeout: 90ms, checks: [{{ tcp: {{}} }}] }}
admin: {{ address: "127.0.0.1:0" }}
drain: {{ delay: 0s, timeout: 2s }}
workers: 2
"#,
        echo.address()
    );
    Proxy::start(&config).await
}

/// A connection from another address of this host.
async fn from(source: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

const ASK: &[u8] = b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

/// What is answered to `bytes`; nothing where the connection is closed at once.
async fn said(mut stream: TcpStream, bytes: &[u8]) -> io::Result<String> {
    let mut reply = String::new();
    let asking = async {
        stream.write_all(bytes).await?;
        stream.read_to_string(&mut reply).await
    };
    let end = timeout(Duration::from_secs(5), asking).await.expect("still open after 5 s");
    end.map(|_| reply)
}

/// Whether a connection from `source` is served.
async fn served(source: &str, proxy: &Proxy, before: &[u8]) -> bool {
    let stream = from(source, proxy.address("otlp")).await;
    let reply = said(stream, &[before, ASK].concat()).await;
    reply.is_ok_and(|reply| reply.starts_with("HTTP/1.1 200"))
}

async fn refused(proxy: &Proxy, reason: &str) -> f64 {
    let name = "upbeat_connections_refused_total";
    proxy.metric(&format!("{name}{{listener=\"otlp\",reason=\"{reason}\"}}")).await
}

#[tokio::test]
async fn one_from_outside_the_allowed_ranges_is_closed_unread_and_counted() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "allow: [127.0.1.0/24, 127.0.0.7, gcp-health-checks]").await;
    for (source, is_in) in
        [("127.0.1.9", true), ("127.0.0.7", true), ("127.0.0.8", false), ("127.0.2.1", false)]
    {
        assert_eq!(served(source, &proxy, b"").await, is_in, "{source}");
    }
    assert_eq!(refused(&proxy, "address").await, 2.0);
    // Closed without a byte from it, too.
    let mut silent = from("127.0.0.8", proxy.address("otlp")).await;
    let end = timeout(Duration::from_secs(2), silent.read(&mut [0])).await;
    assert!(end.expect("it is closed").is_ok_and(|read| read == 0));
    assert_eq!(refused(&proxy, "address").await, 3.0);
    // The other listener is not concerned.
    let reply = said(from("127.0.0.8", proxy.address("open")).await, ASK).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert_eq!(echo.seen().streams.load(SeqCst), 0);
    proxy.stop().await;
}
