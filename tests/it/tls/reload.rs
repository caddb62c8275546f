//! Certificates that change while the process runs, and those that are of no use.

use std::{fs, path::Path};

use rcgen::date_time_ymd;
use rustls::{
    HandshakeKind,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::TlsConnector;

use super::{calls, files, yaml};
use crate::fixture::{
    certs::{Authority, Pair},
    echo::Echo,
    eventually,
    program::{Running, upbeat},
    proxy::Proxy,
};

fn copy(from: &Pair, to: &Pair) {
    fs::copy(&from.cert, &to.cert).unwrap();
    fs::copy(&from.key, &to.key).unwrap();
}

fn file(name: &str, text: &str) -> String {
    let path = format!("{}/{name}.yaml", env!("CARGO_TARGET_TMPDIR"));
    fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn a_certificate_that_is_renewed_is_shown_and_one_that_does_not_fit_is_not() {
    let (echo, ca) = (Echo::start().await, Authority::new("reload", "ca"));
    let (first, second) = (ca.issue("localhost", 1, false), ca.issue("localhost", 2, false));
    let live = ca.issue("localhost", 3, false);
    copy(&first, &live);
    let config = yaml(echo.address(), &files(&live)) + "reload: { interval: 50ms }\n";
    let proxy = Proxy::follow(Path::new(&file("tls-reload", &config))).await;
    proxy.wait_serving().await;
    let address = proxy.address("tls");
    let shown = async || -> CertificateDer<'static> {
        let stream = ca.client(None).connect(address).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let count = async |result| {
        proxy.metric(&format!("upbeat_config_reloads_total{{result=\"{result}\"}}")).await
    };
    assert_eq!(shown().await, first.read().0[0]);
    let before = ca.client(None).connect(address).await;

    fs::copy(&second.cert, &live.cert).unwrap();
    eventually("a pair that does not fit", async || count("refused").await == 1.0).await;
    assert_eq!(shown().await, first.read().0[0]);
    copy(&second, &live);
    eventually("a pair that does", async || count("applied").await == 1.0).await;
    assert_eq!(shown().await, second.read().0[0]);
    assert!(calls(before, address).await, "what is connected stays");
    proxy.stop().await;
}

#[tokio::test]
async fn sessions_are_resumed_until_something_of_their_certificates_changes() {
    let (echo, ca) = (Echo::start().await, Authority::new("resume", "ca"));
    let (second, live) = (ca.issue("localhost", 2, false), ca.issue("localhost", 3, false));
    let config = yaml(echo.address(), &files(&live)) + "reload: { interval: 50ms }\n";
    let path = file("tls-resume", &config);
    let proxy = Proxy::follow(Path::new(&path)).await;
    proxy.wait_serving().await;
    let connector = TlsConnector::from(ca.client(None).config());
    let kind = async || {
        let stream = TcpStream::connect(proxy.address("tls")).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        // Tickets come before what is answered.
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        stream.read_u8().await.unwrap();
        stream.get_ref().1.handshake_kind().unwrap()
    };
    let applied = async |count| {
        let name = "upbeat_config_reloads_total{result=\"applied\"}";
        eventually("a reload", async || proxy.metric(name).await == count).await;
    };
    assert_eq!(kind().await, HandshakeKind::Full);
    assert_eq!(kind().await, HandshakeKind::Resumed);
    let first = "  - { name: a, address: \"127.0.0.1:0\", upstream: otlp }\n  - { name: otlp";
    fs::write(&path, config.replace("  - { name: otlp", first)).unwrap();
    applied(1.0).await;
    assert_eq!(kind().await, HandshakeKind::Resumed, "another listener has come");
    copy(&second, &live);
    applied(2.0).await;
    assert_eq!(kind().await, HandshakeKind::Full, "another certificate");
    assert_eq!(kind().await, HandshakeKind::Resumed);
    proxy.stop().await;
}

#[tokio::test]
async fn the_end_of_a_certificate_is_counted_and_told_when_it_is_near() {
    let (echo, ca) = (Echo::start().await, Authority::new("expiry", "ca"));
    let (good, late) = (ca.pair("localhost"), ca.issue("localhost", 2, true));
    let section = format!("{}, certificates: [{{ {} }}]", files(&good), files(&late));
    let config = yaml(echo.address(), &section);
    let proxy = super::start(echo.address(), &section).await;
    for (pair, year) in [(&good, 4096), (&late, 2020)] {
        let file = pair.cert.display();
        let labels = format!("{{listener=\"tls\",upstream=\"\",file=\"{file}\"}}");
        let name = format!("upbeat_tls_certificate_expiry_timestamp_seconds{labels}");
        let end = date_time_ymd(year, 1, 1).unix_timestamp();
        assert_eq!(proxy.metric(&name).await, end as f64, "{year}");
    }
    proxy.stop().await;
    let path = file("tls-expiry", &(config + "log: { format: json }\n"));
    let mut running = Running::start(&["run", "--config", &path]);
    let line = running.logged("a certificate ends soon, or has ended").await;
    assert_eq!((&line["listener"], &line["level"]), (&"tls".into(), &"WARN".into()));
    assert_eq!(line["file"], *late.cert.display().to_string());
    assert!(line["days"].as_i64().unwrap() < 0);
}

#[tokio::test]
async fn files_of_no_use_are_told_with_their_key_and_line() {
    let ca = Authority::new("files", "ca");
    let (one, two) = (ca.issue("localhost", 1, false), ca.issue("localhost", 2, false));
    let rest = r#"
upstreams:
  otlp:
    endpoints: ["127.0.0.1:14317"]
    probe: { checks: [{ otlp: {} }] }
    tls: { ca_file: /nowhere/ca.pem, server_name: "no name" }
"#;
    let mixed = Pair { cert: one.cert.clone(), key: two.key.clone() };
    let swapped = Pair { cert: one.key.clone(), key: one.cert.clone() };
    let text = format!(
        "listeners:\n  - name: a\n    address: \"127.0.0.1:0\"\n    tls: {{ {} }}\n  - name: b\n    address: \"127.0.0.1:0\"\n    tls: {{ {} }}{rest}",
        files(&mixed),
        files(&swapped)
    );
    let path = file("tls-files", &text);
    let lines = [
        format!("{path}: 5 problems"),
        format!(
            "listeners[0].tls.key_file: {} is not the key of the certificate in {}, line 4",
            two.key.display(),
            one.cert.display()
        ),
        format!(
            "listeners[1].tls.cert_file: {} has no certificate in PEM, line 7",
            one.key.display()
        ),
        format!(
            "listeners[1].tls.key_file: {} has no private key in PEM, line 7",
            one.cert.display()
        ),
        "upstreams.otlp.tls.ca_file: /nowhere/ca.pem cannot be read: No such file or directory (os error 2), line 12".to_owned(),
        "upstreams.otlp.tls.server_name: \"no name\" is neither a DNS name nor an IP address, line 12".to_owned(),
    ];
    for command in ["check", "run"] {
        let ended = upbeat(&[command, "--config", &path]).await;
        assert_eq!(ended.code, Some(78), "{command}");
        assert_eq!(ended.stderr, lines.join("\n") + "\n", "{command}");
    }
}
