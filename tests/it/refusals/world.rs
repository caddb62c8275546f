//! The real program with a listener for each row, and endpoints behind it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    process::Child,
    task::JoinSet,
    time::timeout,
};
use upbeat::grpc::retry_delay;

use super::{Act, Row};
use crate::fixture::{
    caller::{Call, Caller, Reply, get, read},
    certs::Authority,
    echo::Echo,
    eventually,
    program::Running,
};

pub(super) struct World {
    pub(super) rows: Vec<Row>,
    addresses: HashMap<String, SocketAddr>,
    admin: SocketAddr,
    lines: Arc<Mutex<Vec<Value>>>,
    ca: Authority,
    other: Authority,
    echo: Echo,
    wrong: Echo,
    folder: PathBuf,
    child: Child,
    _reader: JoinSet<()>,
}

impl World {
    /// Starts the program; `rows` is told the keys of a listener that wants certificates.
    pub(super) async fn start(rows: impl Fn(&str) -> Vec<Row>) -> Self {
        let folder = std::env::temp_dir().join(format!("upbeat-refusals-{}", fastrand::u64(..)));
        std::fs::create_dir(&folder).unwrap();
        let test = folder.file_name().unwrap().to_str().unwrap();
        let (ca, other) = (Authority::new(test, "ca"), Authority::new(test, "other"));
        let echo = Echo::start().await;
        let wrong = Echo::with_tls(ca.server(&ca.pair("other.test"), false)).await;
        let pair = ca.pair("localhost");
        let rows = rows(&format!(
            "tls: {{ cert_file: {:?}, key_file: {:?}, client_ca_file: {:?}, crl_files: [{:?}] }}",
            pair.cert,
            pair.key,
            ca.file(),
            ca.revoke(4)
        ));
        let config = folder.join("upbeat.yaml");
        std::fs::write(&config, yaml(&rows, &echo, &wrong, &ca)).unwrap();
        let run = Running::start(&["run", "--config", config.to_str().unwrap()]);
        let Running { child, mut stderr, .. } = run;
        let lines = Arc::new(Mutex::new(Vec::<Value>::new()));
        let (mut reader, heard) = (JoinSet::new(), Arc::clone(&lines));
        reader.spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                heard.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        let told = |message| named(&lines.lock().unwrap(), message);
        eventually("the start", async || told("listening").len() == rows.len()).await;
        eventually("admin", async || !told("admin listening").is_empty()).await;
        let address = |line: &Value| line["address"].as_str().unwrap().parse().unwrap();
        let name = |line: &Value| line["listener"].as_str().unwrap().to_owned();
        let addresses = told("listening").iter().map(|it| (name(it), address(it))).collect();
        let admin = address(&told("admin listening")[0]);
        eventually("SERVING", async || get(admin, "/readyz").await.0 == 200).await;
        let _reader = reader;
        Self { rows, addresses, admin, lines, ca, other, echo, wrong, folder, child, _reader }
    }

    /// Does what a row says. What its client sees, which no endpoint must have heard of.
    pub(super) async fn act(&self, index: usize) -> String {
        let address = self.addresses[&name(index)];
        match &self.rows[index].act {
            Act::Call(before, metadata) => {
                let mut caller = Caller::connect(address).await;
                for _ in 0..*before {
                    let reply = ended(open(&mut caller, UNARY, metadata).await).await;
                    assert_eq!(reply.code(), 0);
                }
                self.unheard(async {
                    shown(&ended(open(&mut caller, UNARY, metadata).await).await)
                })
                .await
            }
            Act::Beside(metadata) => {
                let mut caller = Caller::connect(address).await;
                let _first = open(&mut caller, HANG, metadata).await;
                eventually("it hangs", async || self.echo.seen().open.load(SeqCst) == 1).await;
                self.unheard(async {
                    shown(&ended(open(&mut caller, UNARY, metadata).await).await)
                })
                .await
            }
            act => self.unheard(self.connect(act, address)).await,
        }
    }

    async fn connect(&self, act: &Act, address: SocketAddr) -> String {
        let mut client = match act {
            Act::Tls(name, _) => {
                let pair = match *name {
                    "" => None,
                    "wrong" => Some(self.other.pair("wrong")),
                    "late" => Some(self.ca.issue("late", 3, true)),
                    "gone" => Some(self.ca.issue("gone", 4, false)),
                    name => Some(self.ca.issue(name, 2, false)),
                };
                self.ca.client(pair.as_ref())
            }
            Act::Distrust => self.other.client(Some(&self.ca.pair("good"))),
            _ => self.ca.client(Some(&self.ca.pair("good"))),
        };
        let stream = match act {
            Act::From(source, bytes) => {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
                let mut stream = socket.connect(address).await.unwrap();
                // It may be closed already.
                _ = stream.write_all(&[bytes, ASK].concat()).await;
                return end(stream).await;
            }
            Act::Stall => {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(&[0x16]).await.unwrap();
                return end(stream).await;
            }
            Act::Alpn => {
                client.protocols = vec!["spdy/3"];
                client.connect(address).await
            }
            Act::Tls(_, server) => {
                client.name = server;
                client.connect(address).await
            }
            _ => client.connect(address).await,
        };
        match stream {
            // In TLS 1.3 a client hears what is said of its certificate afterwards.
            Ok(stream) => end(stream).await,
            Err(error) => error.to_string(),
        }
    }

    /// Does something of which no endpoint may hear.
    async fn unheard(&self, act: impl Future<Output = String>) -> String {
        let heard = || {
            [&self.echo, &self.wrong].map(|echo| {
                let seen = echo.seen();
                (seen.connections.load(SeqCst), seen.streams.load(SeqCst))
            })
        };
        let before = heard();
        let seen = act.await;
        assert_eq!(heard(), before, "{seen}");
        seen
    }

    /// The line that the log has of a row.
    pub(super) async fn line(&self, index: usize) -> String {
        let row = &self.rows[index];
        let wanted = |line: &&Value| {
            let text = line.to_string();
            let listener = line["listener"].as_str().is_none_or(|it| it == name(index));
            listener && row.logs.iter().all(|words| text.contains(words))
        };
        let found = || self.lines.lock().unwrap().iter().find(wanted).cloned();
        eventually(row.what, async || found().is_some()).await;
        let mut line = found().unwrap();
        if line["level"] == "WARN" && line["listener"].is_string() {
            let client = line["client"].as_str().unwrap();
            assert!(client.starts_with("127.0.") || client == "192.0.2.1", "{line}");
        }
        let fields = line.as_object_mut().unwrap();
        fields.retain(|key, _| !["timestamp", "target", "listener"].contains(&key.as_str()));
        let field = |(key, value): (&String, &Value)| match value {
            Value::String(text) => format!("{key}={text}"),
            value => format!("{key}={value}"),
        };
        fields.iter().map(field).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn lines_of(&self, message: &str) -> Vec<Value> {
        named(&self.lines.lock().unwrap(), message)
    }

    fn metric(&self, index: usize) -> String {
        let wrong = self.wrong.address().to_string();
        self.rows[index].counts.replace("NAME", &name(index)).replace("WRONG", &wrong)
    }

    /// What a row's metric says.
    pub(super) async fn counted(&self, index: usize) -> f64 {
        let (_, body) = get(self.admin, "/metrics").await;
        let metric = self.metric(index);
        let line = body.lines().find_map(|line| line.strip_prefix(&metric)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a row's metric is above what it was; its name.
    pub(super) async fn counts_on(&self, index: usize, before: f64) -> String {
        eventually(self.rows[index].what, async || self.counted(index).await > before).await;
        self.rows[index].counts.replace("listener=\"NAME\",", "")
    }

    /// Stops the program, whose log must have no secret, and whose endpoints had no call but those
    /// that were to pass.
    pub(super) async fn end(mut self, passed: usize) {
        assert_eq!(self.echo.seen().streams.load(SeqCst), passed);
        self.child.kill().await.unwrap();
        let all = format!("{:?}", self.lines.lock().unwrap());
        for secret in ["t0ken", "s3cret"] {
            assert!(!all.contains(secret), "{all}");
        }
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

fn name(index: usize) -> String {
    format!("row-{index}")
}

fn yaml(rows: &[Row], echo: &Echo, wrong: &Echo, ca: &Authority) -> String {
    let listener = |(index, row): (usize, &Row)| {
        let upstream = if row.keys.contains("upstream:") { "" } else { "upstream: otlp, " };
        let name = name(index);
        format!("  - {{ name: {name}, address: \"127.0.0.1:0\", {upstream}{} }}\n", row.keys)
    };
    let listeners: String = rows.iter().enumerate().map(listener).collect();
    format!(
        r#"
listeners:
{listeners}
upstreams:
  otlp:
    endpoints: ["{}"]
    probe: {{ interval: 300ms, timeout: 290ms, checks: [{{ tcp: {{}} }}] }}
  wrong:
    endpoints: ["{}"]
    tls: {{ ca_file: {:?} }}
    probe: {{ interval: 10s, timeout: 9s, checks: [{{ grpc: {{}} }}] }}
health: {{ services: {{ "": {{ all: [otlp] }} }} }}
admin: {{ address: "127.0.0.1:0" }}
limits: {{ handshake_timeout: 1s }}
log: {{ format: json, level: info }}
workers: 1
"#,
        echo.address(),
        wrong.address(),
        ca.file()
    )
}

fn named(lines: &[Value], message: &str) -> Vec<Value> {
    lines.iter().filter(|line| line["message"] == message).cloned().collect()
}

async fn open(caller: &mut Caller, path: &str, metadata: &[(&str, &str)]) -> Call {
    let mut request = Request::post(format!("http://upbeat{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in metadata {
        request = request.header(*name, *value);
    }
    caller.send(request.body(()).unwrap(), false).await.unwrap()
}

async fn ended(mut call: Call) -> Reply {
    // It may be answered, and its stream reset, before that.
    _ = call.request.send_data(Bytes::from_static(&[0; 5]), true);
    read(call.response.await.unwrap()).await.unwrap()
}

/// A status in words, with when to come back.
fn shown(reply: &Reply) -> String {
    let status = reply.status().unwrap();
    let text = format!("grpc-status {} {}", status.code as u8, status.message);
    let details = reply.head.headers().get("grpc-status-details-bin");
    match details.and_then(|details| retry_delay(details.as_bytes())) {
        Some(delay) => format!("{text}, RetryInfo {:.1} s", delay.as_secs_f64()),
        None => text,
    }
}

/// How a connection ends on which nothing is answered.
async fn end(mut stream: impl AsyncRead + Unpin) -> String {
    let mut reply = Vec::new();
    let ended = timeout(Duration::from_secs(20), stream.read_to_end(&mut reply)).await;
    match ended.expect("still open after 5 s") {
        Ok(_) if reply.is_empty() => "connection closed".to_owned(),
        Ok(_) => format!("answered: {}", String::from_utf8_lossy(&reply)),
        Err(error) if error.get_ref().is_none() => format!("connection closed ({})", error.kind()),
        Err(error) => error.to_string(),
    }
}

const UNARY: &str = "/test.Echo/Unary";
const HANG: &str = "/test.Echo/Hang";
const ASK: &[u8] = b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
