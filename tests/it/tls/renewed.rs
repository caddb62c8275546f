//! What an upstream trusts, changed while the process runs: health says what new connections see.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
    time::Instant,
};

use super::{MESSAGE, UNARY, files};
use crate::fixture::{
    caller::Caller, certs::Authority, echo::Echo, eventually, program::Running, proxy::Proxy,
};

/// One that follows its file, and trusts what is in `trust`.
fn yaml(endpoint: SocketAddr, check: &str, trust: &Path) -> String {
    format!(
        r#"
listeners: [{{ name: otlp, address: "127.0.0.1:0", upstream: otlp }}]
upstreams:
  otlp:
    endpoints: ["{endpoint}"]
    probe: {{ interval: 400ms, timeout: 390ms, checks: [{check}] }}
    tls: {{ ca_file: {trust:?}, server_name: localhost }}
admin: {{ address: "127.0.0.1:0" }}
reload: {{ interval: 50ms }}
drain: {{ delay: 0s, timeout: 2s }}
workers: 2
"#
    )
}

/// Writes the configuration to a file of this name.
fn file(name: &str, text: &str) -> String {
    let path = format!("{}/{name}.yaml", env!("CARGO_TARGET_TMPDIR"));
    fs::write(&path, text).unwrap();
    path
}

const CHECKS: [&str; 3] =
    ["{ otlp: {} }", "{ grpc: { watch: true } }", "{ http: { path: /healthz } }"];

#[tokio::test]
async fn probes_see_that_an_endpoint_is_not_trusted_any_more_whatever_they_kept() {
    let (ca, other) = (Authority::new("renewed", "ca"), Authority::new("renewed", "other"));
    let echo = Echo::start().await;
    let back = super::start(echo.address(), &files(&ca.pair("localhost"))).await;
    let trust = ca.file().with_file_name("trust.pem");
    for check in CHECKS {
        fs::copy(ca.file(), &trust).unwrap();
        let text = yaml(back.address("tls"), check, &trust);
        let proxy = Proxy::follow(Path::new(&file("tls-renewed", &text))).await;
        proxy.wait_serving().await;
        fs::copy(other.file(), &trust).unwrap();
        proxy.wait_not_serving().await;
        let told = format!("{:?}", proxy.status().await.upstreams);
        assert!(told.contains("invalid peer certificate: UnknownIssuer"), "{check}: {told}");
        fs::copy(ca.file(), &trust).unwrap();
        proxy.wait_serving().await;
        proxy.stop().await;
    }
    back.stop().await;
}

#[tokio::test]
async fn a_renewal_that_is_fine_moves_every_probe_once_and_changes_no_health() {
    let (ca, other) = (Authority::new("moved", "ca"), Authority::new("moved", "other"));
    let echo = Echo::start().await;
    let back = super::start(echo.address(), &files(&ca.pair("localhost"))).await;
    let trust = ca.file().with_file_name("trust.pem");
    fs::copy(ca.file(), &trust).unwrap();
    let text = yaml(back.address("tls"), &CHECKS.join(", "), &trust);
    let proxy = Proxy::follow(Path::new(&file("tls-moved", &text))).await;
    proxy.wait_serving().await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
    let accepted =
        async || back.metric("upbeat_connections_accepted_total{listener=\"tls\"}").await as usize;
    // Of each check, of the Watch, and of the calls.
    eventually("all connections", async || accepted().await == 5).await;
    let both = [ca.file(), other.file()].map(|file| fs::read_to_string(file).unwrap()).concat();
    fs::write(&trust, both).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while accepted().await < 9 {
        assert!(Instant::now() < deadline, "the probes stay where they were");
        assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
    }
    let probes = async || {
        let labels = format!("upstream=\"otlp\",endpoint=\"{}\"", back.address("tls"));
        proxy.metric(&format!("upbeat_probes_total{{{labels},result=\"passed\"}}")).await
    };
    let before = probes().await;
    eventually("more probes", async || probes().await >= before + 2.0).await;
    assert_eq!(accepted().await, 9);
    let status = proxy.status().await;
    let history = &status.upstreams[0].endpoints[0].history;
    assert_eq!(history.len(), 1, "{history:?}");
    proxy.stop().await;
    back.stop().await;
}

#[tokio::test]
async fn a_handshake_that_fails_is_told_once_for_each_cause_and_not_each_time() {
    let ca = Authority::new("told", "ca");
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = socket.local_addr().unwrap();
    let (seen, talks) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let inside = (Arc::clone(&seen), Arc::clone(&talks));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            // A TCP check says nothing.
            if stream.read(&mut [0; 4096]).await.unwrap_or(0) > 0 {
                if inside.1.load(SeqCst) {
                    _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                }
                inside.0.fetch_add(1, SeqCst);
            }
        }
    });
    let text = yaml(endpoint, "{ tcp: {} }", &ca.file()) + "log: { format: json }\n";
    let mut running = Running::start(&["run", "--config", &file("tls-told", &text)]);
    let address = running.logged("listening").await["address"].as_str().unwrap().parse().unwrap();
    // One for each worker.
    let mut callers = [Caller::connect(address).await, Caller::connect(address).await];
    for (talking, most) in [(false, 8), (true, 16)] {
        talks.store(talking, SeqCst);
        while seen.load(SeqCst) < most {
            for caller in &mut callers {
                assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 14);
            }
        }
    }
    running.signal("TERM");
    let mut told = Vec::new();
    while let Some(line) = running.stderr.next_line().await.unwrap() {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        if line["message"] == "TLS with an endpoint failed" {
            assert_eq!((&line["level"], &line["upstream"]), (&"WARN".into(), &"otlp".into()));
            assert_eq!(line["endpoint"], *endpoint.to_string());
            told.push(line["reason"].as_str().unwrap().to_owned());
        }
    }
    // Where both workers fail as the cause changes, the first one may come again.
    assert!((2..=4).contains(&told.len()), "{told:?}");
    assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), 2, "{told:?}");
}
