//! Who may connect, as another configuration has it: what is open goes by it too.

use tokio::io::AsyncRead;

use super::*;
use crate::fixture::certs::Authority;

fn guarded(endpoint: SocketAddr, guard: &str) -> String {
    let text = config(&[("otlp", ANY, "otlp")], &[("otlp", &[endpoint])], "");
    text.replace("upstream: otlp }", &format!("upstream: otlp, {guard} }}"))
}

/// Whether a caller is told to go, and soon.
async fn told_to_go(caller: &mut Caller) -> bool {
    let going = async {
        loop {
            match caller.unary(UNARY, MESSAGE).await {
                Ok(reply) => assert_eq!(reply.code(), 0),
                Err(error) => return error.is_go_away(),
            }
        }
    };
    timeout(Duration::from_secs(20), going).await.unwrap_or(false)
}

#[tokio::test]
async fn a_connection_that_would_not_be_let_in_any_more_is_told_to_go() {
    let (echo, ca) = (Echo::start().await, Authority::new("reload-access", "ca"));
    let own = ca.pair("localhost");
    let tls = format!("tls: {{ cert_file: {:?}, key_file: {:?} }}", own.cert, own.key);
    for (name, guard) in [("allow", "allow: [127.0.0.9]"), ("tls", &*tls)] {
        let live = Live::start(&format!("access-{name}"), &guarded(echo.address(), "")).await;
        let mut caller = live.caller().await;
        assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
        live.reload(&guarded(echo.address(), "allow: [127.0.0.0/8]"), "applied").await;
        assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
        live.reload(&guarded(echo.address(), guard), "applied").await;
        assert!(told_to_go(&mut caller).await, "{guard}");
        live.stop().await;
    }
}

#[tokio::test]
async fn connections_with_certificates_that_are_checked_otherwise_now_end_one_after_the_other() {
    let (echo, ca) = (Echo::start().await, Authority::new("reload-revoked", "ca"));
    let (own, client) = (ca.pair("localhost"), ca.pair("agent.test"));
    let tls = |more: &str| {
        let ca = ca.file();
        format!(
            "tls: {{ cert_file: {:?}, key_file: {:?}, client_ca_file: {ca:?}{more} }}",
            own.cert, own.key
        )
    };
    let live = Live::start("access-revoked", &guarded(echo.address(), &tls(""))).await;
    let address = live.proxy.address("otlp");
    let mut callers = Vec::new();
    for _ in 0..200 {
        let stream = ca.client(Some(&client)).connect(address).await.unwrap();
        callers.push(Caller::over(stream, address).await.unwrap());
    }
    let list = format!(", crl_files: [{:?}]", ca.revoke(1));
    live.reload(&guarded(echo.address(), &tls(&list)), "applied").await;
    let mut ended = 0;
    let first = async {
        while ended == 0 {
            for caller in &mut callers {
                ended += u32::from(caller.unary(UNARY, MESSAGE).await.is_err());
            }
        }
    };
    timeout(Duration::from_secs(20), first).await.unwrap();
    assert!(ended < 100, "{ended} of 200 at once");
    live.stop().await;
}

/// Asks for health on a connection that stays; what was said, which is nothing where it ended.
async fn asked(stream: &mut (impl AsyncRead + AsyncWriteExt + Unpin)) -> String {
    let mut reply = vec![0; 4096];
    _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let read = timeout(Duration::from_secs(20), stream.read(&mut reply)).await.expect("an end");
    String::from_utf8_lossy(&reply[..read.unwrap_or(0)]).to_ascii_lowercase()
}

#[tokio::test]
async fn http1_connections_end_with_their_next_question() {
    let (echo, ca) = (Echo::start().await, Authority::new("reload-http1", "ca"));
    let (own, agent) = (ca.pair("localhost"), ca.pair("agent.test"));
    let tls = |more: &str| {
        let files = format!("cert_file: {:?}, key_file: {:?}", own.cert, own.key);
        format!("tls: {{ {files}, client_ca_file: {:?}{more} }}", ca.file())
    };
    let live = Live::start("access-http1", &guarded(echo.address(), &tls(""))).await;
    let mut client = ca.client(Some(&agent));
    client.protocols = vec!["http/1.1"];
    let mut stream = client.connect(live.proxy.address("otlp")).await.unwrap();
    let listed = tls(&format!(", crl_files: [{:?}]", ca.revoke(1)));
    assert!(!asked(&mut stream).await.contains("connection: close"));
    live.reload(&guarded(echo.address(), &listed), "applied").await;
    assert!(asked(&mut stream).await.contains("connection: close"));
    assert_eq!(asked(&mut stream).await, "");

    live.reload(&guarded(echo.address(), "allow: [127.0.0.0/8]"), "applied").await;
    let mut stream = TcpStream::connect(live.proxy.address("otlp")).await.unwrap();
    assert!(asked(&mut stream).await.starts_with("http/1.1 200"));
    live.reload(&guarded(echo.address(), "allow: [127.0.0.9]"), "applied").await;
    assert_eq!(asked(&mut stream).await, "");
    live.stop().await;
}
