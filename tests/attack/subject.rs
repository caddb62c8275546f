//! The proxy that is attacked: ours, started for one row, or another one that runs already.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::{
    process::Child,
    runtime::Handle,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    crowd,
    fixture::{
        caller::get,
        program::{Running, program},
        usage::Tree,
    },
    raw::request,
    victim::UNARY,
};

/// A proxy that listens.
pub(crate) struct Subject {
    addresses: HashMap<String, SocketAddr>,
    pub(crate) pid: u32,
    process: Option<Process>,
    terminated: bool,
}

/// Ours, which ends when dropped.
struct Process {
    child: Child,
    log: Log,
    _reader: JoinSet<()>,
}

/// The lines of a log, as JSON.
type Log = Arc<Mutex<Vec<Value>>>;

impl Subject {
    /// Another proxy, which runs already.
    pub(crate) fn running(address: SocketAddr, pid: u32) -> Self {
        let addresses = HashMap::from([("otlp".to_owned(), address)]);
        Self { addresses, pid, process: None, terminated: false }
    }

    /// Starts ours with a configuration, with at most so many descriptors, and waits until it
    /// says SERVING. `behind` is where it is started and its log is read.
    pub(crate) async fn start(
        binary: &Path,
        yaml: &str,
        descriptors: Option<usize>,
        behind: &Handle,
    ) -> anyhow::Result<Self> {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR"));
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, SeqCst);
        let file = file.join(format!("attack-{}-{number}.yaml", std::process::id()));
        std::fs::write(&file, yaml)?;
        let log = Log::default();
        let (inside, sockets) = (Arc::clone(&log), 1 + yaml.matches("- { name: ").count());
        let limit = descriptors.map_or_else(String::new, |most| format!("ulimit -n {most};"));
        let script = format!("{limit} exec {} run --config {}", binary.display(), file.display());
        let mut reader = JoinSet::new();
        // There, since a process inherits the priority of the thread that starts it.
        let child = behind.spawn(async move { Running::of(program("sh", &["-c", &script])) });
        let Running { child, mut stderr, .. } = child.await?;
        reader.spawn_on(
            async move {
                while let Ok(Some(line)) = stderr.next_line().await {
                    let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                    inside.lock().unwrap().push(line);
                }
            },
            behind,
        );
        let pid = child.id().context("it has ended")?;
        let process = Some(Process { child, log, _reader: reader });
        let mut subject = Self { addresses: HashMap::new(), pid, process, terminated: false };
        subject.wait_serving(sockets).await?;
        _ = std::fs::remove_file(file);
        Ok(subject)
    }

    async fn wait_serving(&mut self, sockets: usize) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && self.lives() {
            for line in self.log() {
                let name = match line["message"].as_str() {
                    Some("listening") => line["listener"].as_str().unwrap_or_default(),
                    Some("admin listening") => "admin",
                    _ => continue,
                };
                let address = line["address"].as_str().unwrap_or_default().parse()?;
                self.addresses.insert(name.to_owned(), address);
            }
            if self.addresses.len() >= sockets
                && get(self.listener("admin"), "/readyz").await.0 == 200
            {
                return Ok(());
            }
            sleep(Duration::from_millis(5)).await;
        }
        bail!("it does not serve: {:#?}", self.log())
    }

    /// Where a listener is, or `admin`.
    pub(crate) fn listener(&self, listener: &str) -> SocketAddr {
        self.addresses[listener]
    }

    /// Whether it was told to end.
    pub(crate) fn is_terminated(&self) -> bool {
        self.terminated
    }

    /// Whether the process lives.
    pub(crate) fn lives(&mut self) -> bool {
        match &mut self.process {
            Some(process) => matches!(process.child.try_wait(), Ok(None)),
            None => Path::new(&format!("/proc/{}", self.pid)).exists(),
        }
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> Vec<Value> {
        self.process.as_ref().map_or_else(Vec::new, |it| it.log.lock().unwrap().clone())
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        Tree::of(self.pid).resident()
    }

    /// The most resident memory that it has had, in KiB.
    pub(crate) fn peak(&self) -> u64 {
        Tree::of(self.pid).peak()
    }

    /// Has the peak begin anew, where the kernel and its rights allow it.
    pub(crate) fn forget_peak(&self) {
        for pid in Tree::of(self.pid).pids() {
            _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }

    /// CPU time so far.
    pub(crate) fn cpu(&self) -> Duration {
        Tree::of(self.pid).cpu()
    }

    /// The sum of a metric's samples whose labels have this text; ours only.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        let (_, text) = get(self.listener("admin"), "/metrics").await;
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && line.contains(label)
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Ends it by SIGTERM; its exit code.
    pub(crate) async fn terminate(&mut self, within: Duration) -> Option<i32> {
        self.terminated = true;
        let Some(process) = &mut self.process else { return None };
        let kill = std::process::Command::new("kill").arg(self.pid.to_string()).status();
        assert!(kill.unwrap().success());
        let ended = tokio::time::timeout(within, process.child.wait()).await;
        ended.ok()?.ok()?.code()
    }
}

/// How long it may take until it serves.
const PATIENCE: Duration = Duration::from_secs(20);

/// Has each worker do what calls need, and give back what they need no more: memory that a process
/// takes for its first calls is no attack's.
pub(crate) async fn warm(address: SocketAddr) -> anyhow::Result<()> {
    let mut clients = crowd::open(address, 8, &[]).await?;
    for client in &mut clients {
        for _ in 0..16 {
            client.unary(&request(UNARY), 16_000);
        }
    }
    crowd::until(&mut clients, Duration::from_secs(5), |it| it.over() == 16).await;
    drop(clients);
    sleep(PURGED).await;
    Ok(())
}

/// Memory that is free goes back to the system within this time.
const PURGED: Duration = Duration::from_secs(12);
