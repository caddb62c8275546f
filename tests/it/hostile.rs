//! Endpoints that are hostile, each in one way, beside a well one on the same worker: no call hangs
//! past its deadline, calls to the well endpoint and other clients are unhurt, memory stays bounded,
//! and what is wrong is counted.

mod peer;
mod way;

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use self::{
    peer::Hostile,
    way::Way::{self, *},
};
use crate::fixture::{
    caller::{Caller, get, read},
    echo::Echo,
    eventually,
};

/// The proxy as a process of its own, so that its memory is told apart.
struct Process {
    child: Child,
    config: PathBuf,
    log: PathBuf,
    otlp: SocketAddr,
    admin: SocketAddr,
}

impl Process {
    async fn start(hostile: SocketAddr, well: SocketAddr) -> Self {
        let config = std::env::temp_dir().join(format!("upbeat-hostile-{}.yaml", hostile.port()));
        let log = config.with_extension("log");
        let probe = "probe: { interval: 300ms, timeout: 290ms, checks: [{ tcp: {} }] }";
        let yaml = format!(
            r#"
listeners:
  - name: otlp
    address: "127.0.0.1:0"
    upstream: well
    routes: [{{ match: {{ prefix: /test.Hostile/ }}, upstream: hostile }}]
upstreams:
  hostile: {{ endpoints: ["{hostile}"], {probe} }}
  well: {{ endpoints: ["{well}"], {probe} }}
admin: {{ address: "127.0.0.1:0" }}
log: {{ format: json }}
drain: {{ delay: 0s, timeout: 1s }}
workers: 1
"#
        );
        fs::write(&config, yaml).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_upbeat"))
            .args(["run".as_ref(), "--config".as_ref(), config.as_os_str()])
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let address = |message: &str| {
            let text = fs::read_to_string(&log).unwrap();
            let mut lines = text.lines().filter_map(|it| serde_json::from_str(it).ok());
            let line: serde_json::Value =
                lines.find(|it: &serde_json::Value| it["message"] == message)?;
            line["address"].as_str()?.parse::<SocketAddr>().ok()
        };
        let listening = ["listening", "admin listening"];
        eventually("it listens", async || listening.iter().all(|it| address(it).is_some())).await;
        let [otlp, admin] = listening.map(|it| address(it).unwrap());
        let process = Self { child, config, log, otlp, admin };
        eventually("SERVING", async || get(otlp, "/").await.0 == 200).await;
        process
    }

    /// Bytes of its memory, now or at their most: `VmRSS` or `VmHWM`.
    fn memory(&self, name: &str) -> usize {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    }

    /// What it says in its log.
    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.log).unwrap();
        let line = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
        text.lines().map(|it| line(it)["message"].as_str().unwrap().to_owned()).collect()
    }

    /// What the metrics say of the hostile endpoint that is wrong, and is not 0.
    async fn counted(&self) -> BTreeMap<String, f64> {
        let (_, body) = get(self.admin, "/metrics").await;
        let of_hostile = |line: &&str| {
            line.contains(r#"upstream="hostile""#)
                && WRONG.iter().any(|name| line.starts_with(name))
        };
        let of = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            let value = value.parse::<f64>().ok().filter(|value| *value > 0.0)?;
            let (name, labels) = name.split_once('{')?;
            let labels = labels.trim_end_matches('}').split(',');
            let told = |it: &&str| it.starts_with("reason") || it.starts_with("code");
            let labels: Vec<_> = labels.filter(told).collect();
            Some((format!("{name} {}", labels.join(" ")), value))
        };
        let mut all = BTreeMap::<_, f64>::new();
        for (name, value) in body.lines().filter(of_hostile).filter_map(of) {
            *all.entry(name).or_default() += value;
        }
        all
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        _ = fs::remove_file(&self.config);
        _ = fs::remove_file(&self.log);
    }
}

/// How calls ended.
#[derive(Debug, Default)]
struct Ends {
    /// By status, or by what came in its place.
    ends: BTreeMap<String, usize>,
    took: Vec<Duration>,
}

impl Ends {
    fn take(&mut self, end: String, took: Duration) {
        *self.ends.entry(end).or_default() += 1;
        self.took.push(took);
    }

    fn join(mut self, other: Self) -> Self {
        for (end, count) in other.ends {
            *self.ends.entry(end).or_default() += count;
        }
        self.took.extend(other.took);
        self
    }

    fn at(&self, share: f64) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        took[((took.len() - 1) as f64 * share) as usize]
    }
}

/// One call after the other until then, each with a deadline.
async fn calls(
    caller: &tokio::sync::Mutex<Caller>,
    path: &str,
    size: usize,
    until: Instant,
    pause: Duration,
) -> Ends {
    let mut ends = Ends::default();
    while Instant::now() < until {
        let started = Instant::now();
        let request = Request::post(format!("http://upbeat{path}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .header("grpc-timeout", format!("{}m", DEADLINE.as_millis()))
            .body(())
            .unwrap();
        let sent = caller.lock().await.send(request, false).await;
        let whole = async {
            let mut call = sent?;
            let message = [&[0], &(size as u32).to_be_bytes()[..], &vec![7; size]].concat();
            _ = call.request.send_data(Bytes::from(message), true);
            read(call.response.await?).await
        };
        let end = match timeout(HANGS, whole).await {
            Err(_) => "hangs".to_owned(),
            Ok(Ok(reply)) => reply.status().map_or("no status", |it| it.code.name()).to_owned(),
            Ok(Err(error)) if error.is_reset() => format!("reset {:?}", error.reason().unwrap()),
            Ok(Err(error)) => format!("connection lost: {error}"),
        };
        ends.take(end, started.elapsed());
        sleep(pause).await;
    }
    ends
}

/// One client's connection: calls to the hostile endpoint, and beside them some to the well one.
async fn client(otlp: SocketAddr, hostile: bool, until: Instant) -> [Ends; 2] {
    let caller = tokio::sync::Mutex::new(Caller::connect(otlp).await);
    let well = calls(&caller, "/test.Echo/Unary", 1000, until, Duration::from_millis(10));
    if !hostile {
        return [Ends::default(), well.await];
    }
    let pause = Duration::from_millis(30);
    let bad = |size| calls(&caller, "/test.Hostile/Call", size, until, pause);
    let (a, b, c, well) = tokio::join!(bad(10), bad(10), bad(20_000), well);
    [a.join(b).join(c), well]
}

/// Has an endpoint be hostile for a while; what was not as it must be.
async fn suffer(way: Way) -> Vec<String> {
    let (hostile, well) = (Hostile::start(way).await, Echo::start().await);
    let process = Process::start(hostile.address, well.address()).await;
    let before = process.memory("VmRSS");
    let until = Instant::now() + LONG;
    let mut clients = JoinSet::new();
    for hostile in [true, true, false] {
        clients.spawn(client(process.otlp, hostile, until));
    }
    let (mut bad, mut good) = (Ends::default(), Ends::default());
    for [of_hostile, of_well] in clients.join_all().await {
        (bad, good) = (bad.join(of_hostile), good.join(of_well));
    }
    let grown = process.memory("VmHWM").saturating_sub(before) >> 10;
    let counted = process.counted().await;
    let log = process.log();
    let connections = hostile.connections.load(std::sync::atomic::Ordering::SeqCst);
    eprintln!(
        "{way:?}: {:?}, at most {:?}; beside it {:?}, p50 {:?}, p99 {:?}; {grown} KiB, {connections} connections; {counted:?}; {} lines: {:?}",
        bad.ends,
        bad.at(1.0),
        good.ends,
        good.at(0.5),
        good.at(0.99),
        log.len(),
        log.iter().collect::<std::collections::BTreeSet<_>>(),
    );
    let mut wrong = Vec::new();
    let mut check = |holds: bool, what: String| {
        if !holds {
            wrong.push(format!("{way:?}: {what}"));
        }
    };
    check(good.ends.keys().eq(["OK"]), format!("beside it {:?}", good.ends));
    check(good.at(0.9) < DEADLINE, format!("beside it {:?}", good.at(0.9)));
    let hurt =
        |end: &&String| *end == "hangs" || end.starts_with("connection") || *end == "no status";
    check(!bad.ends.keys().any(|end| hurt(&end)), format!("{:?}", bad.ends));
    check(grown < 64 << 10, format!("{grown} KiB"));
    // Each is counted by what its client saw.
    for (end, count) in &bad.ends {
        let name = if end.starts_with("reset") { "RESET" } else { end };
        let told = counted.get(&format!(r#"upbeat_requests_total code="{name}""#));
        check(told.is_some_and(|it| *it as usize >= *count), format!("{end}: {count} as {told:?}"));
    }
    if let Some(reason) = way.ended_by() {
        let name = format!(r#"upbeat_upstream_connections_ended_total reason="{reason}""#);
        check(counted.contains_key(&name), format!("{reason} is not in {counted:?}"));
        let told = log.iter().any(|line| line == "connection to an endpoint ended");
        check(told, format!("{log:?}"));
    }
    check(log.len() < 100, format!("{} lines in the log", log.len()));
    check(way.serves() || !bad.ends.contains_key("OK"), format!("{:?}", bad.ends));
    wrong
}

async fn suffer_all(ways: &[Way]) {
    let mut wrong = Vec::new();
    for way in ways {
        wrong.extend(suffer(*way).await);
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test]
async fn goaway() {
    suffer_all(&[GoAwayAtOnce, GoAwayUntaken, GoAwayCalm, GoAwayTaken, GoAwayStays, GoAwayFlood])
        .await;
}

#[tokio::test]
async fn resets() {
    suffer_all(&[Refuses, ResetAfterHead, ResetAfterData, ResetAfterMessage, ResetFlood]).await;
}

#[tokio::test]
async fn ends_of_connections() {
    suffer_all(&[HalfClosed, ResetsMidFrame, ResetsAtOnce, ClosesAtOnce]).await;
}

#[tokio::test]
async fn settings() {
    suffer_all(&[NoStreams, SettingsNever, TinyFrames, VastWindow, NoWindow]).await;
    suffer_all(&[Shrinking, SettingsLate, Tables]).await;
}

#[tokio::test]
async fn silence_and_slowness() {
    suffer_all(&[
        Swallows,
        Silent,
        SlowFrames,
        SlowMessage,
        Interim,
        HalfHead,
        ByteWindow,
        SmallHeads,
    ])
    .await;
}

#[tokio::test]
async fn what_is_no_http2() {
    suffer_all(&[Garbage, Http1, UpdateOfZero, UpdateOfZeroForAll, UpdateOfMuch, Pushes]).await;
    suffer_all(&[WrongStream, DataFirst, UnlawfulHead, FalseLength, NoStatus]).await;
}

#[tokio::test]
async fn heads() {
    suffer_all(&[EndlessHead, EmptyContinuations, VastHead, HeadBomb, NewNames]).await;
}

#[tokio::test]
async fn floods() {
    suffer_all(&[
        PingFlood,
        SettingsFlood,
        PriorityFlood,
        UnknownFlood,
        UpdateFlood,
        EmptyData,
        InterimFlood,
    ])
    .await;
    suffer_all(&[PastWindow, Endless, VastMessage, AfterEnd]).await;
}

/// For how long each is suffered.
const LONG: Duration = Duration::from_secs(3);
const DEADLINE: Duration = Duration::from_millis(1200);
/// A deadline that is not kept, on a machine that is busy too.
const HANGS: Duration = Duration::from_secs(6);
/// Metrics that tell what an endpoint does wrong.
const WRONG: [&str; 7] = [
    "upbeat_upstream_connections_ended",
    "upbeat_upstream_connect_failures",
    "upbeat_ejections",
    "upbeat_timeouts",
    "upbeat_retries",
    "upbeat_streams_cut",
    "upbeat_requests_total",
];
