//! Who may connect, and who may say for whom it does.

use std::{io, net::SocketAddr, sync::atomic::Ordering::SeqCst, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::fixture::{
    caller::Caller,
    echo::Echo,
    eventually,
    proxy::{Proxy, beside_open, serving},
};

/// A proxy whose listener has these keys too.
async fn proxy(echo: &Echo, keys: &str) -> Proxy {
    with(echo, keys, "").await
}

async fn with(echo: &Echo, keys: &str, more: &str) -> Proxy {
    serving(Proxy::start(&(beside_open(echo.address(), keys) + more)).await).await
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
    let end = timeout(Duration::from_secs(20), asking).await.expect("still open after 5 s");
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
    let end = timeout(Duration::from_secs(20), silent.read(&mut [0])).await;
    assert!(end.expect("it is closed").is_ok_and(|read| read == 0));
    assert_eq!(refused(&proxy, "address").await, 3.0);
    // The other listener is not concerned.
    let reply = said(from("127.0.0.8", proxy.address("open")).await, ASK).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert_eq!(echo.seen().streams.load(SeqCst), 0);
    proxy.stop().await;
}

const TOLD: &str = "proxy_protocol: required, proxy_protocol_from: [127.0.9.0/24]";

/// A header of version 2 for a client in IPv4, with an extension behind the addresses.
fn v2(client: [u8; 4]) -> Vec<u8> {
    let begin = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10";
    let rest = [127, 0, 0, 1, 0, 1, 0, 2, 4, 0, 1, 0];
    [&begin[..], &client, &rest].concat()
}

fn v1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 127.0.0.1 1 2\r\n").into_bytes()
}

#[tokio::test]
async fn a_required_header_is_read_of_trusted_senders_and_all_others_are_closed() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, TOLD).await;
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for (source, header, is_served) in [
        ("127.0.9.1", v1("192.0.2.1"), true),
        ("127.0.9.1", v2([192, 0, 2, 1]), true),
        ("127.0.9.1", local.to_vec(), true),
        ("127.0.9.1", b"PROXY UNKNOWN\r\n".to_vec(), true),
        ("127.0.9.1", Vec::new(), false),
        ("127.0.9.1", b"PROXY TCP4 192.0.2.1\r\n".to_vec(), false),
        ("127.0.8.1", v1("192.0.2.1"), false),
        ("127.0.8.1", Vec::new(), false),
    ] {
        let is = served(source, &proxy, &header).await;
        assert_eq!(is, is_served, "{source} {:?}", String::from_utf8_lossy(&header));
    }
    eventually("counted", async || refused(&proxy, "proxy_protocol").await == 4.0).await;
    proxy.stop().await;
}

#[tokio::test]
async fn an_optional_header_is_missed_by_nobody_and_believed_of_nobody_else() {
    let echo = Echo::start().await;
    let keys = TOLD.replace("required", "optional") + ", allow: [192.0.2.0/24, 127.0.9.0/24]";
    let proxy = proxy(&echo, &keys).await;
    for (source, header, is_served) in [
        ("127.0.9.1", v1("192.0.2.1"), true),
        ("127.0.9.1", Vec::new(), true),
        // Whom it names, and not who names it, must be allowed.
        ("127.0.9.1", v1("198.51.100.1"), false),
        ("127.0.9.1", v2([198, 51, 100, 1]), false),
        // Nobody may let itself in.
        ("127.0.8.1", v1("192.0.2.1"), false),
    ] {
        let is = served(source, &proxy, &header).await;
        assert_eq!(is, is_served, "{source} {:?}", String::from_utf8_lossy(&header));
    }
    eventually("counted", async || refused(&proxy, "address").await == 3.0).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_header_comes_in_pieces_and_not_for_ever() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, &TOLD.replace("required", "optional")).await;
    for header in [v1("192.0.2.1"), v2([192, 0, 2, 1]), Vec::new()] {
        let mut stream = from("127.0.9.1", proxy.address("otlp")).await;
        stream.set_nodelay(true).unwrap();
        let (last, before) =
            [&header[..], ASK].concat().split_last().map(|(it, all)| (*it, all.to_vec())).unwrap();
        for byte in before {
            stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let reply = said(stream, &[last]).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    }
    proxy.stop().await;
    let proxy = with(&echo, TOLD, "limits: { handshake_timeout: 200ms }").await;
    for part in [&b""[..], b"PROXY TCP4 192.0.2.1", &v2([192, 0, 2, 1])[..20]] {
        let mut stream = from("127.0.9.1", proxy.address("otlp")).await;
        stream.write_all(part).await.unwrap();
        let end = timeout(Duration::from_secs(20), stream.read(&mut [0])).await;
        // A reset ends it as well as a close.
        assert!(end.expect("it is closed").map_or(true, |read| read == 0), "{part:?}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn connections_are_counted_by_the_address_that_is_told() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, &format!("{TOLD}, max_connections_per_address: 1")).await;
    let address = proxy.address("otlp");
    let open = async |client: &str| {
        let mut stream = from("127.0.9.1", address).await;
        stream.write_all(&v1(client)).await.unwrap();
        Caller::after(stream).await
    };
    let unary = "/test.Echo/Unary";
    let mut first = open("192.0.2.1").await;
    assert_eq!(first.unary(unary, &[0; 5]).await.unwrap().code(), 0);
    assert!(!served("127.0.9.1", &proxy, &v1("192.0.2.1")).await);
    assert_eq!(refused(&proxy, "per_address").await, 1.0);
    assert_eq!(first.unary(unary, &[0; 5]).await.unwrap().code(), 0);
    let mut other = open("192.0.2.2").await;
    assert_eq!(other.unary(unary, &[0; 5]).await.unwrap().code(), 0);
    drop(first);
    eventually("freed", async || served("127.0.9.1", &proxy, &v1("192.0.2.1")).await).await;
    drop(other);
    proxy.stop().await;
}

#[tokio::test]
async fn endpoints_are_told_the_client_and_not_what_it_says_of_itself() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, &format!("{TOLD}, x_forwarded_for: true")).await;
    let mut stream = from("127.0.9.1", proxy.address("otlp")).await;
    stream.write_all(&v2([192, 0, 2, 9])).await.unwrap();
    let mut caller = Caller::after(stream).await;
    let unary = "/test.Echo/Unary";
    for forged in [&[][..], &[("x-forwarded-for", "10.0.0.1"), ("x-forwarded-for", "10.0.0.2")]] {
        assert_eq!(caller.tell(unary, forged).await.unwrap().code(), 0);
        assert_eq!(echo.heard("x-forwarded-for"), ["192.0.2.9"]);
    }
    drop(caller);
    proxy.stop().await;
}

#[tokio::test]
async fn what_a_client_says_of_itself_is_left_alone_where_nothing_is_asked_for() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    caller.tell("/test.Echo/Unary", &[("x-forwarded-for", "10.0.0.1")]).await.unwrap();
    assert_eq!(echo.heard("x-forwarded-for"), ["10.0.0.1"]);
    drop(caller);
    proxy.stop().await;
}
