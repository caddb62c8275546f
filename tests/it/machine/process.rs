//! The real binary, with its standard error in the test's hands.

use std::{
    collections::HashMap,
    fs,
    io::{self, PipeWriter, Write},
    net::SocketAddr,
    os::fd::OwnedFd,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::unix::pipe::Receiver,
    process::Child,
    time::timeout,
};

use crate::fixture::{caller::get, eventually, program::command};

/// `upbeat run`. Its standard error is a pipe that is read only where a test asks for a line.
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) file: String,
    pub(super) stderr: Lines<BufReader<Receiver>>,
    /// The end that the process writes to.
    pipe: PipeWriter,
    addresses: HashMap<String, SocketAddr>,
}

impl Process {
    /// Starts it by a file of this name, and reads what it says up to the addresses.
    pub(super) async fn start(name: &str, config: &str) -> Self {
        let file = format!("{}/{name}.yaml", env!("CARGO_TARGET_TMPDIR"));
        fs::write(&file, config).unwrap();
        let (reader, pipe) = io::pipe().unwrap();
        let mut command = command(&["run", "--config", &file]);
        let child = command.stderr(Stdio::from(pipe.try_clone().unwrap())).spawn().unwrap();
        // It holds that end too, as long as it lives.
        drop(command);
        let stderr = Receiver::from_owned_fd(OwnedFd::from(reader)).unwrap();
        let stderr = BufReader::new(stderr).lines();
        let mut process = Self { child, file, stderr, pipe, addresses: HashMap::new() };
        while !process.addresses.contains_key("admin") {
            let line = process.line().await;
            let line: Value = serde_json::from_str(&line).unwrap();
            let Some(address) = line["address"].as_str() else { continue };
            let name = line["listener"].as_str().unwrap_or("admin").to_owned();
            process.addresses.insert(name, address.parse().unwrap());
        }
        process
    }

    pub(super) fn address(&self, listener: &str) -> SocketAddr {
        self.addresses[listener]
    }

    /// The next line of standard error.
    pub(super) async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.stderr.next_line()).await.expect("a line").unwrap();
        line.expect("the test holds the other end")
    }

    /// The next line that says so.
    pub(super) async fn says(&mut self, message: &str) -> String {
        loop {
            let line = self.line().await;
            if line.contains(message) {
                return line;
            }
        }
    }

    /// All that it says to its end, which has come.
    pub(super) async fn rest(self) -> String {
        let Self { mut stderr, pipe, .. } = self;
        drop(pipe);
        let mut rest = String::new();
        while let Some(line) = stderr.next_line().await.unwrap() {
            rest = rest + &line + "\n";
        }
        rest
    }

    /// Closes the end of standard error that is read.
    pub(super) fn close(&mut self) {
        let (reader, _) = io::pipe().unwrap();
        let other = Receiver::from_owned_fd(OwnedFd::from(reader)).unwrap();
        self.stderr = BufReader::new(other).lines();
    }

    /// Writes into standard error until nothing more fits.
    pub(super) fn fill(&mut self) {
        rustix::io::ioctl_fionbio(&self.pipe, true).unwrap();
        for chunk in [4096, 1] {
            while self.pipe.write(&vec![b'\n'; chunk]).is_ok() {}
        }
        rustix::io::ioctl_fionbio(&self.pipe, false).unwrap();
    }

    pub(super) async fn is_ready(&self) -> bool {
        get(self.address("admin"), "/readyz").await.0 == 200
    }

    /// One sample of the metrics, by its whole name with labels; 0 where it is not there.
    pub(super) async fn metric(&self, name: &str) -> f64 {
        let (_, body) = get(self.address("admin"), "/metrics").await;
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap()
    }

    /// Stops all its threads, of which one that has the core goes on for a moment after the signal.
    pub(super) async fn halt(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.pid());
        let stopped = |task: io::Result<fs::DirEntry>| {
            let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            stat.rsplit(") ").next().unwrap().starts_with('T')
        };
        eventually("all threads are stopped", async || fs::read_dir(&tasks).unwrap().all(stopped))
            .await;
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// How it ends by itself.
    pub(super) async fn ends(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap()
    }

    /// Drains; nothing must be cut.
    pub(super) async fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.ends().await.code(), Some(0));
    }
}

/// For what takes a moment.
const PATIENCE: Duration = Duration::from_secs(20);
