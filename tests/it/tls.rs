//! TLS as clients meet it on a listener, and as endpoints do.

mod reload;
mod renewed;
mod stapling;
mod swaps;
mod upstream;

use std::{net::SocketAddr, sync::atomic::Ordering::SeqCst, time::Duration};

use bytes::Bytes;
use rustls::{
    ProtocolVersion, SignatureScheme,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use crate::fixture::{
    caller::{Caller, read},
    certs::{Authority, Pair, Stream},
    echo::{self, Echo},
    eventually,
    proxy::Proxy,
};

const UNARY: &str = "/test.Echo/Unary";
const MESSAGE: &[u8] = &[0, 0, 0, 0, 1, 7];

/// A plain listener `otlp`, and `tls` as `section` has it, in front of one endpoint.
fn yaml(endpoint: SocketAddr, section: &str) -> String {
    format!(
        r#"
listeners:
  - {{ name: otlp, address: "127.0.0.1:0", upstream: otlp }}
  - {{ name: tls, address: "127.0.0.1:0", upstream: otlp, tls: {{ {section} }} }}
upstreams:
  otlp:
    endpoints: ["{endpoint}"]
    probe: {{ interval: 10s, timeout: 9s, checks: [{{ tcp: {{}} }}] }}
admin: {{ address: "127.0.0.1:0" }}
drain: {{ delay: 0s, timeout: 2s }}
limits: {{ handshake_timeout: 1s }}
workers: 2
"#
    )
}

fn files(pair: &Pair) -> String {
    format!("cert_file: {:?}, key_file: {:?}", pair.cert, pair.key)
}

async fn start(endpoint: SocketAddr, section: &str) -> Proxy {
    let proxy = Proxy::start(&yaml(endpoint, section)).await;
    proxy.wait_serving().await;
    proxy
}

/// A call by a client of its own; whether it went well.
async fn calls(stream: std::io::Result<Stream>, address: SocketAddr) -> bool {
    let Ok(stream) = stream else { return false };
    let Ok(mut caller) = Caller::over(stream, address).await else { return false };
    match caller.unary(UNARY, MESSAGE).await {
        Ok(reply) => reply.body == MESSAGE && reply.code() == 0,
        Err(_) => false,
    }
}

#[tokio::test]
async fn both_versions_carry_calls_and_health_checks() {
    let (echo, ca) = (Echo::start().await, Authority::new("versions", "ca"));
    let proxy = start(echo.address(), &files(&ca.pair("localhost"))).await;
    let address = proxy.address("tls");
    for (version, expected) in
        [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)]
    {
        let mut client = ca.client(None);
        client.versions = vec![version];
        let stream = client.connect(address).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        assert!(calls(Ok(stream), address).await, "{expected:?}");
        for (protocols, alpn) in [
            (vec!["http/1.1"], Some(&b"http/1.1"[..])),
            (vec!["http/1.1", "h2"], Some(b"h2")),
            (vec![], None),
        ] {
            client.protocols = protocols;
            let stream = client.connect(address).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), alpn);
            assert!(get(stream).await.starts_with("HTTP/1.1 200 OK"), "{alpn:?}");
            // What is spoken is told by its first bytes.
            assert!(calls(client.connect(address).await, address).await, "{alpn:?}");
        }
        client.protocols = vec!["spdy/3"];
        assert!(client.connect(address).await.is_err(), "nothing in common");
    }
    proxy.stop().await;
}

async fn get(mut stream: Stream) -> String {
    let request = b"GET /healthz HTTP/1.1\r\nhost: upbeat\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn large_bodies_pass_whole_in_both_directions_for_slow_readers_too() {
    let (echo, ca) = (Echo::start().await, Authority::new("large", "ca"));
    let proxy = start(echo.address(), &files(&ca.pair("localhost"))).await;
    let address = proxy.address("tls");
    for (length, slow) in [(1, false), (100_000, false), (8 << 20, false), (4 << 20, true)] {
        // Before it connects: a connection that asks nothing for ten seconds is closed.
        let mut sent = vec![0];
        sent.extend(u32::try_from(length).unwrap().to_be_bytes());
        sent.extend((0..length).map(|at| (at % 251) as u8));
        let body = Bytes::from(sent.clone());
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        if slow {
            socket.set_recv_buffer_size(4096).unwrap();
        }
        let stream = ca.client(None).over(socket.connect(address).await.unwrap()).await;
        let mut caller = Caller::over(stream.unwrap(), address).await.unwrap();
        let mut call = caller.open(UNARY).await.unwrap();
        let send = async {
            echo::send(&mut call.request, body).await.unwrap();
            call.request.send_data(Bytes::new(), true).unwrap();
        };
        let receive = async { read(call.response.await.unwrap()).await.unwrap() };
        let ((), reply) = tokio::join!(send, receive);
        assert!(reply.body == sent, "{length} bytes");
        assert_eq!(reply.code(), 0);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn many_calls_at_a_time_share_a_connection() {
    let (echo, ca) = (Echo::start().await, Authority::new("many", "ca"));
    let proxy = start(echo.address(), &files(&ca.pair("localhost"))).await;
    let address = proxy.address("tls");
    let stream = ca.client(None).connect(address).await.unwrap();
    let mut caller = Caller::over(stream, address).await.unwrap();
    for _ in 0..20 {
        let mut waiting = Vec::new();
        for _ in 0..50 {
            let mut call = caller.open(UNARY).await.unwrap();
            call.request.send_data(Bytes::from_static(MESSAGE), true).unwrap();
            waiting.push(call);
        }
        for call in waiting {
            assert_eq!(read(call.response.await.unwrap()).await.unwrap().body, MESSAGE);
        }
    }
    proxy.stop().await;
}

#[tokio::test]
async fn the_name_that_is_asked_for_picks_the_certificate() {
    let (echo, ca) = (Echo::start().await, Authority::new("names", "ca"));
    let pairs = ["localhost", "*.tempo.test", "otel.test"].map(|name| ca.pair(name));
    let [first, second, third] = pairs.each_ref().map(files);
    let section = format!("{first}, certificates: [{{ {second} }}, {{ {third} }}]");
    let proxy = start(echo.address(), &section).await;
    for (name, of) in [("localhost", 0), ("a.tempo.test", 1), ("otel.test", 2)] {
        let mut client = ca.client(None);
        client.name = name;
        let stream = client.connect(proxy.address("tls")).await.unwrap();
        let shown = &stream.get_ref().1.peer_certificates().unwrap()[0];
        assert_eq!(*shown, pairs[of].read().0[0], "{name}");
    }
    let mut client = ca.client(None);
    client.name = "other.test";
    let error = client.connect(proxy.address("tls")).await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_name_has_a_key_for_those_who_know_the_other_kind_alone() {
    let (echo, ca) = (Echo::start().await, Authority::new("kinds", "ca"));
    let pairs = [ca.pair("localhost"), ca.other_pair("localhost"), ca.pair("otel.test")];
    let [first, second, third] = pairs.each_ref().map(files);
    let section = format!("{first}, certificates: [{{ {second} }}, {{ {third} }}]");
    let proxy = start(echo.address(), &section).await;
    let other = Some(SignatureScheme::ED25519);
    for (version, signature, name, of) in [
        (&TLS13, None, "localhost", Some(0)),
        (&TLS13, other, "localhost", Some(1)),
        (&TLS12, other, "localhost", Some(1)),
        // That of another name would help it as little.
        (&TLS13, other, "otel.test", None),
    ] {
        let mut client = ca.client(None);
        (client.versions, client.signature, client.name) = (vec![version], signature, name);
        let stream = client.connect(proxy.address("tls")).await;
        let shown = stream.ok().map(|it| it.get_ref().1.peer_certificates().unwrap()[0].clone());
        assert_eq!(shown, of.map(|of: usize| pairs[of].read().0.remove(0)), "{signature:?} {name}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn clients_need_a_certificate_where_it_is_required_and_a_good_one_where_it_is_not() {
    let (echo, ca) = (Echo::start().await, Authority::new("clients", "ca"));
    let other = Authority::new("clients", "other");
    let (good, expired, revoked) =
        (ca.issue("good", 2, false), ca.issue("late", 3, true), ca.issue("gone", 4, false));
    let wrong = other.pair("wrong");
    let own = files(&ca.pair("localhost"));
    for (auth, anonymous) in [("", false), (", client_auth: optional", true)] {
        let section = format!(
            "{own}, client_ca_file: {:?}, crl_files: [{:?}]{auth}",
            ca.file(),
            ca.revoke(4)
        );
        let proxy = start(echo.address(), &section).await;
        let address = proxy.address("tls");
        for (pair, expected) in [
            (None, anonymous),
            (Some(&good), true),
            (Some(&wrong), false),
            (Some(&expired), false),
            (Some(&revoked), false),
        ] {
            let what = pair.map(|pair| &pair.cert);
            let stream = ca.client(pair).connect(address).await;
            assert_eq!(calls(stream, address).await, expected, "{auth:?} {what:?}");
        }
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_is_refused_reads_why_whatever_it_sends_meanwhile() {
    let (echo, ca) = (Echo::start().await, Authority::new("why", "ca"));
    let own = files(&ca.pair("localhost"));
    let proxy = start(echo.address(), &format!("{own}, client_ca_file: {:?}", ca.file())).await;
    for _ in 0..20 {
        let mut stream = ca.client(None).connect(proxy.address("tls")).await.unwrap();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        stream.write_all(preface).await.unwrap();
        stream.get_ref().0.readable().await.unwrap();
        stream.write_all(&[0; 9]).await.unwrap();
        let error = stream.read_u8().await.unwrap_err();
        assert!(error.to_string().contains("CertificateRequired"), "{error}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn clients_that_stall_are_closed_and_hold_nobody_up() {
    let (echo, ca) = (Echo::start().await, Authority::new("stall", "ca"));
    let config = yaml(echo.address(), &files(&ca.pair("localhost")));
    let one = config.replace("workers: 2", "workers: 1");
    let limits = "limits: { max_connections_per_address: unlimited, handshake_timeout: 5s }";
    let one = one.replace("limits: { handshake_timeout: 1s }", limits);
    let proxy = Proxy::start(&one).await;
    proxy.wait_serving().await;
    let address = proxy.address("tls");
    let (begun, hello) = (Instant::now(), hello(&ca));
    let mut stalling = Vec::new();
    for number in 0..1200 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Nothing, the beginning of a record, or a whole one and then nothing. Of these there are
        // more than could be waited for one after the other.
        match number % 12 {
            0 => {}
            1 => stream.write_all(&[0x16, 3, 1, 2]).await.unwrap(),
            _ => stream.write_all(&hello).await.unwrap(),
        }
        stalling.push(stream);
    }
    // Before any of these is given up.
    let soon = begun + Duration::from_millis(4900);
    let quick = timeout_at(soon, ca.client(None).connect(address)).await;
    assert!(calls(quick.unwrap(), address).await);
    for mut stream in stalling {
        // What it was sent before, at most, and the end.
        let mut said = Vec::new();
        let ended = stream.read_to_end(&mut said);
        _ = timeout(Duration::from_secs(20), ended).await.unwrap();
    }
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(4900) && took < Duration::from_secs(20), "{took:?}");
    proxy.stop().await;
}

/// What a client says first.
fn hello(ca: &Authority) -> Vec<u8> {
    let mut connection = ca.client(None).connection();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn plain_is_refused_at_once_unless_it_may_be() {
    let (echo, ca) = (Echo::start().await, Authority::new("plain", "ca"));
    let pair = files(&ca.pair("localhost"));
    for (section, plain) in [(pair.clone(), false), (format!("{pair}, plain: true"), true)] {
        let proxy = start(echo.address(), &section).await;
        let address = proxy.address("tls");
        assert!(calls(ca.client(None).connect(address).await, address).await);
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET /healthz HTTP/1.1\r\nhost: upbeat\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut said = Vec::new();
        let ended = timeout(Duration::from_secs(20), stream.read_to_end(&mut said));
        _ = ended.await.unwrap();
        assert_eq!(said.starts_with(b"HTTP/1.1 200 OK"), plain);
        assert_eq!(said.is_empty(), !plain);
        if plain {
            let mut caller = Caller::connect(address).await;
            assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().body, MESSAGE);
        }
        proxy.stop().await;
    }
}

#[tokio::test]
async fn the_end_is_told_under_tls_and_a_drain_cuts_nothing() {
    let (echo, ca) = (Echo::start().await, Authority::new("end", "ca"));
    let proxy = start(echo.address(), &files(&ca.pair("localhost"))).await;
    let address = proxy.address("tls");
    let mut raw = ca.client(None).connect(address).await.unwrap();
    raw.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    raw.read_u8().await.unwrap();
    let stream = ca.client(None).connect(address).await.unwrap();
    let mut caller = Caller::over(stream, address).await.unwrap();
    let mut call = caller.open(UNARY).await.unwrap();
    eventually("the call", async || echo.seen().open.load(SeqCst) == 1).await;
    proxy.shutdown.drain.cancel();
    call.request.send_data(Bytes::from_static(MESSAGE), true).unwrap();
    assert_eq!(read(call.response.await.unwrap()).await.unwrap().body, MESSAGE);
    let mut rest = Vec::new();
    // Without close_notify rustls calls the end an error.
    raw.read_to_end(&mut rest).await.unwrap();
    drop((raw, caller));
    proxy.stop().await;
}
