//! Who is answered by the admin server.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};
use upbeat::config::Config;

use crate::fixture::{
    caller::get,
    certs::{Authority, Client, Pair},
    echo::Echo,
    eventually,
    program::{Running, upbeat},
    proxy::{self, Proxy},
    refusing,
};

const PAGES: [&str; 5] = ["/metrics", "/status", "/simulate?down=otlp", "/config", "/nowhere"];

/// A configuration whose admin server has these keys too.
pub(super) fn yaml(endpoint: SocketAddr, keys: &str) -> String {
    let address = r#"admin: { address: "127.0.0.1:0""#;
    let all = proxy::yaml(&[endpoint], "{ tcp: {} }", "reload: { interval: 20ms }");
    all.replace(address, &format!("{address}, {keys}"))
}

pub(super) fn tls(pair: &Pair, more: &str) -> String {
    format!("tls: {{ cert_file: {:?}, key_file: {:?}, {more} }}", pair.cert, pair.key)
}

/// An empty directory.
pub(super) fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("admin-{name}"));
    _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// Whole or not at all, as a Secret is swapped.
fn write(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

/// GET with these values of `authorization`.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    proofs: &[&str],
) -> hyper::Result<Response<String>> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let mut request = Request::get(path).header(header::HOST, "upbeat");
    for proof in proofs {
        request = request.header(header::AUTHORIZATION, *proof);
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await?;
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes().to_vec();
    Ok(Response::from_parts(head, String::from_utf8(body).unwrap()))
}

async fn plain(proxy: &Proxy, path: &str, proofs: &[&str]) -> Response<String> {
    ask(TcpStream::connect(proxy.admin()).await.unwrap(), path, proofs).await.unwrap()
}

/// The same over TLS; none where the server does not take the client.
async fn over_tls(client: &Client, proxy: &Proxy, path: &str, proofs: &[&str]) -> Option<u16> {
    let stream = client.connect(proxy.admin()).await.ok()?;
    Some(ask(stream, path, proofs).await.ok()?.status().as_u16())
}

fn client(ca: &Authority, own: Option<&Pair>) -> Client {
    let mut client = ca.client(own);
    client.protocols = vec!["h2", "http/1.1"];
    client
}

#[tokio::test]
async fn with_tokens_all_but_what_an_orchestrator_asks_needs_one() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(&yaml(echo.address(), "tokens: [old-one, new-one]")).await;
    proxy.wait_serving().await;
    for page in PAGES {
        for proofs in [
            &[][..],
            &["Bearer other-one"],
            &["Bearer old-on"],
            &["Basic old-one"],
            &["old-one"],
            &["Bearer old-one", "Bearer old-one"],
        ] {
            let refused = plain(&proxy, page, proofs).await;
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{page} {proofs:?}");
            assert_eq!(
                refused.headers()[header::WWW_AUTHENTICATE],
                "Bearer realm=\"upbeat admin\""
            );
            assert_eq!(refused.body(), "", "{page}");
        }
        for proof in ["Bearer old-one", "bearer new-one"] {
            let expected = if page == "/nowhere" { 404 } else { 200 };
            assert_eq!(plain(&proxy, page, &[proof]).await.status(), expected, "{page}");
        }
    }
    for page in ["/livez", "/readyz"] {
        assert_eq!(plain(&proxy, page, &[]).await.status(), StatusCode::OK, "{page}");
    }
    let metrics = plain(&proxy, "/metrics", &["Bearer new-one"]).await.into_body();
    for (reason, count) in [("no_credentials", 5), ("bad_credentials", 20), ("many_credentials", 5)]
    {
        let line =
            format!("upbeat_denied_total{{listener=\"admin\",reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_file_of_tokens_that_was_not_read_lets_nobody_in() {
    let proxy = Proxy::start(&yaml(refusing(), "token_file: /nowhere/token")).await;
    for proofs in [&[][..], &["Bearer "], &["Bearer x"]] {
        assert_eq!(plain(&proxy, "/status", proofs).await.status(), 401, "{proofs:?}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn with_required_certificates_nobody_else_is_heard() {
    let (ca, other) = (Authority::new("admin-mtls", "ca"), Authority::new("admin-mtls", "other"));
    let (server, good) = (ca.pair("localhost"), ca.issue("client", 2, false));
    let (revoked, foreign) = (ca.issue("client", 3, false), other.pair("client"));
    let expired = ca.issue("client", 4, true);
    let more = format!("client_ca_file: {:?}, crl_files: [{:?}]", ca.file(), ca.revoke(3));
    let proxy = Proxy::start(&yaml(refusing(), &tls(&server, &more))).await;
    for page in PAGES.into_iter().chain(["/livez"]) {
        let answered = over_tls(&client(&ca, Some(&good)), &proxy, page, &[]).await;
        assert_eq!(answered, Some(if page == "/nowhere" { 404 } else { 200 }), "{page}");
        for (own, what) in [
            (None, "none"),
            (Some(&foreign), "foreign"),
            (Some(&revoked), "revoked"),
            (Some(&expired), "expired"),
        ] {
            let refused = over_tls(&client(&ca, own), &proxy, page, &[]).await;
            assert_eq!(refused, None, "{page} {what}");
        }
    }
    let stream = client(&ca, Some(&good)).connect(proxy.admin()).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
    let cleartext = ask(TcpStream::connect(proxy.admin()).await.unwrap(), "/livez", &[]).await;
    assert!(cleartext.is_err(), "{cleartext:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_token_will_do_where_certificates_are_optional_and_a_certificate_too() {
    let ca = Authority::new("admin-either", "ca");
    let (server, good) = (ca.pair("localhost"), ca.issue("client", 2, false));
    let more = format!("client_ca_file: {:?}, client_auth: optional", ca.file());
    let keys = format!("{}, tokens: [one]", tls(&server, &more));
    let proxy = Proxy::start(&yaml(refusing(), &keys)).await;
    for (own, proofs, status) in [
        (None, &[][..], 401),
        (None, &["Bearer two"], 401),
        (None, &["Bearer one"], 200),
        (Some(&good), &[], 200),
        (Some(&good), &["Bearer two"], 200),
    ] {
        let answered = over_tls(&client(&ca, own), &proxy, "/status", proofs).await;
        assert_eq!(answered, Some(status), "{} {proofs:?}", own.is_some());
    }
    assert_eq!(over_tls(&client(&ca, None), &proxy, "/livez", &[]).await, Some(200));
    proxy.stop().await;
}

#[tokio::test]
async fn clients_that_are_silent_hold_up_no_other_and_are_closed() {
    let ca = Authority::new("admin-silent", "ca");
    let proxy = Proxy::start(&yaml(refusing(), &tls(&ca.pair("localhost"), ""))).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(proxy.admin()).await.unwrap());
    }
    // The first record of a handshake, and not even that.
    silent[0].write_all(b"\x16\x03\x01").await.unwrap();
    let client = client(&ca, None);
    let answered =
        timeout(Duration::from_millis(4500), over_tls(&client, &proxy, "/livez", &[])).await;
    assert_eq!(answered, Ok(Some(200)));
    for stream in &mut silent {
        let read = timeout(Duration::from_secs(20), stream.read(&mut [0])).await;
        assert!(!matches!(read.expect("closed"), Ok(1..)));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn one_address_does_not_take_all_places() {
    let proxy = Proxy::start(&yaml(refusing(), "tokens: [one]")).await;
    let from = async |address: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(address.parse().unwrap()).unwrap();
        socket.connect(proxy.admin()).await.unwrap()
    };
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(from("127.0.0.1:0").await);
    }
    let closed = timeout(Duration::from_secs(4), from("127.0.0.1:0").await.read(&mut [0])).await;
    assert!(!matches!(closed.expect("at once"), Ok(1..)));
    let other = ask(from("127.0.0.2:0").await, "/livez", &[]).await.unwrap();
    assert_eq!(other.status(), StatusCode::OK);
    proxy.stop().await;
}

#[tokio::test]
async fn tokens_and_certificates_that_change_are_taken_over_and_bad_ones_are_not() {
    let ca = Authority::new("admin-reload", "ca");
    let (first, second) = (ca.issue("localhost", 1, false), ca.issue("localhost", 2, false));
    let live = ca.issue("localhost", 3, false);
    let copy = |from: &Pair| {
        fs::copy(&from.key, &live.key).unwrap();
        fs::copy(&from.cert, &live.cert).unwrap();
    };
    copy(&first);
    let directory = directory("reload");
    let (tokens, config) = (directory.join("token"), directory.join("upbeat.yaml"));
    write(&tokens, "first\n");
    fs::write(&config, yaml(refusing(), &format!("{}, token_file: {tokens:?}", tls(&live, ""))))
        .unwrap();
    let proxy = Proxy::follow(&config).await;
    let client = client(&ca, None);
    let status = async |token: &str| {
        over_tls(&client, &proxy, "/status", &[&format!("Bearer {token}")]).await.unwrap()
    };
    let metrics = async |token: &str| {
        let stream = client.connect(proxy.admin()).await.unwrap();
        ask(stream, "/metrics", &[&format!("Bearer {token}")]).await.unwrap().into_body()
    };
    assert_eq!((status("first").await, status("second").await), (200, 401));
    write(&tokens, "first\nsecond\n");
    eventually("the second token is known", async || status("second").await == 200).await;
    assert_eq!(status("first").await, 200);
    write(&tokens, "second\n");
    eventually("the first token is no more", async || status("first").await == 401).await;
    let refused = r#"upbeat_config_reloads_total{result="refused"} 1"#;
    write(&tokens, "\n");
    eventually("refused", async || metrics("second").await.contains(refused)).await;
    write(&tokens, "second\n");

    let shown = async || {
        let stream = client.connect(proxy.admin()).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    assert_eq!(shown().await, first.read().0[0]);
    copy(&second);
    eventually("the new certificate", async || shown().await == second.read().0[0]).await;
    let expiry = format!(
        "upbeat_tls_certificate_expiry_timestamp_seconds{{listener=\"admin\",upstream=\"\",file=\"{}\"}}",
        live.cert.display()
    );
    let metrics = metrics("second").await;
    assert!(metrics.contains(&expiry), "{metrics}");
    assert!(metrics.contains("upbeat_denied_total{listener=\"admin\","), "counted on: {metrics}");
    proxy.stop().await;
}

#[tokio::test]
async fn an_open_connection_goes_by_the_tokens_of_now() {
    let directory = directory("open");
    let config = directory.join("upbeat.yaml");
    write(&config, &yaml(refusing(), "tokens: [first]"));
    let proxy = Proxy::follow(&config).await;
    let stream = TcpStream::connect(proxy.admin()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let mut status = async || {
        let mut request = Request::get("/status").body(Empty::<Bytes>::new()).unwrap();
        let headers: &mut HeaderMap = request.headers_mut();
        headers.insert(header::AUTHORIZATION, "Bearer first".parse().unwrap());
        headers.insert(header::HOST, "upbeat".parse().unwrap());
        sender.ready().await.unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        response.into_body().collect().await.unwrap();
        status
    };
    assert_eq!(status().await, 200);
    write(&config, &yaml(refusing(), "tokens: [second]"));
    let second = async || plain(&proxy, "/status", &["Bearer second"]).await.status() == 200;
    eventually("the second one is known", second).await;
    assert_eq!(status().await, 401);
    proxy.stop().await;
}

#[tokio::test]
async fn tokens_are_told_nowhere() {
    let directory = directory("secrets");
    let (tokens, config) = (directory.join("token"), directory.join("upbeat.yaml"));
    fs::write(&tokens, "t0ken-of-file\n").unwrap();
    let keys = format!("tokens: [t0ken-of-text], token_file: {tokens:?}");
    let log = "\nlog: { format: json, level: debug }\n";
    let text = yaml(refusing(), &keys) + log;
    write(&config, &text);
    let mut run = Running::start(&["run", "--config", config.to_str().unwrap()]);
    let line = run.logged("admin listening").await;
    let admin: SocketAddr = line["address"].as_str().unwrap().parse().unwrap();
    let mut all = String::new();
    for page in PAGES {
        let stream = TcpStream::connect(admin).await.unwrap();
        let answer = ask(stream, page, &["Bearer t0ken-of-file"]).await.unwrap();
        if page == "/config" {
            let shown: Value = serde_json::from_str(answer.body()).unwrap();
            assert_eq!(shown["admin"]["tokens"], "***");
        }
        all += answer.body();
        let stream = TcpStream::connect(admin).await.unwrap();
        ask(stream, page, &["Bearer t0ken-unknown"]).await.unwrap();
    }
    write(&tokens, "t0ken-of-change\n");
    let changed = run.logged("configuration changed").await;
    assert_eq!((&changed["key"], &changed["to"]), (&"admin.tokens".into(), &"***".into()));
    write(&config, &text.replace("[t0ken-of-text]", "[t0ken-of-list, t0ken-more]"));
    all += &run.logged("configuration changed").await.to_string();
    run.signal("TERM");
    while let Ok(Some(line)) = run.stderr.next_line().await {
        all += &line;
    }
    assert!(!all.contains("t0ken"), "{all}");
    let shown = format!("{:?}", Config::parse(&text, |_| None).unwrap().admin);
    assert!(shown.contains("Tokens(1)") && !shown.contains("t0ken"), "{shown}");
}

#[tokio::test]
async fn an_admin_server_that_others_reach_does_not_start_unguarded() {
    let open = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/bad/admin_open.yaml");
    for command in ["check", "run"] {
        let ended = upbeat(&[command, "--config", open]).await;
        assert_eq!(ended.code, Some(78), "{command}");
        let words = "admin.address: 0.0.0.0:9901 can be reached from other machines";
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
    let address = r#"address: "127.0.0.1:0""#;
    let at = |to: &str, keys: &str| {
        let text = yaml(refusing(), keys);
        text.replace(&format!("admin: {{ {address}"), &format!("admin: {{ address: \"{to}\""))
    };
    let mutual = "tls: { cert_file: a, key_file: b, client_ca_file: c }";
    for to in ["127.0.0.2:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
        assert!(Config::parse(&at(to, ""), |_| None).is_ok(), "{to}");
    }
    for to in ["0.0.0.0:0", "[::]:0", "10.0.0.1:0", "[fe80::1]:0", "[::ffff:10.0.0.1]:0"] {
        assert!(Config::parse(&at(to, ""), |_| None).is_err(), "{to}");
        for keys in ["tokens: [a]", "token_file: a", mutual] {
            assert!(Config::parse(&at(to, keys), |_| None).is_ok(), "{to} {keys}");
        }
    }
}

#[tokio::test]
async fn without_keys_of_its_own_the_admin_server_answers_all() {
    let proxy = Proxy::start(&proxy::yaml(&[refusing()], "{ tcp: {} }", "")).await;
    for page in ["/metrics", "/status", "/config"] {
        assert_eq!(get(proxy.admin(), page).await.0, StatusCode::OK, "{page}");
    }
    proxy.stop().await;
}
