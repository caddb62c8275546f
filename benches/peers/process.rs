//! A process on one core, that ends with its owner.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;

use crate::{clock::now, usage::Tree};

/// A running process; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    errors: PathBuf,
    /// Held open: our own parts end when it closes.
    _stdin: Option<ChildStdin>,
}

impl Process {
    /// Starts a command on a core. What it says on standard error goes to a file in `directory`.
    pub(crate) fn start(core: usize, command: &[String], directory: &Path) -> anyhow::Result<Self> {
        let errors = directory.join("stderr");
        // The kernel stops it if this process dies by a signal; it may have many sockets; and
        // other work on the machine gets in its way less, where the user may ask for that (nice
        // goes on without).
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "taskset", "-c", &core.to_string()])
            .args(["prlimit", "--nofile=16384:", "nice", "-n", "-15"])
            .args(command)
            .current_dir(directory)
            .env("HOME", directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors)?)
            .spawn()
            .context("setpriv, taskset, prlimit (util-linux) and nice (coreutils)")?;
        let _stdin = child.stdin.take();
        Ok(Self { child, errors, _stdin })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The last lines of standard error.
    pub(crate) fn complaint(&self) -> String {
        let text = fs::read_to_string(&self.errors).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// What it prints on standard output, as JSON, when it does so in time.
    pub(crate) fn reported<T: DeserializeOwned>(&mut self, limit: Duration) -> anyhow::Result<T> {
        let out = self.child.stdout.take().context("standard output was read before")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(first_line(out)));
        match receiver.recv_timeout(limit) {
            Ok(line) if !line.is_empty() => Ok(serde_json::from_str(&line)?),
            Ok(_) => bail!("it ended without a report: {}", self.complaint()),
            Err(_) => bail!("no report within {limit:?}"),
        }
    }

    /// Asks it to end, and makes it.
    pub(crate) fn stop(&mut self) {
        if !self.is_running() {
            return;
        }
        let tree = Tree::of(self.pid());
        signal("-TERM", self.pid());
        self.wait(&tree, Duration::from_millis(1500));
        if !tree.is_gone() {
            tree.pids().for_each(|pid| signal("-KILL", pid));
            self.wait(&tree, Duration::from_secs(1));
        }
    }

    /// Waits for a natural end, or up to a limit.
    fn wait(&mut self, tree: &Tree, limit: Duration) {
        let end = now() + limit;
        while (self.is_running() || !tree.is_gone()) && now() < end {
            thread::sleep(Duration::from_millis(3));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

fn first_line(out: ChildStdout) -> String {
    let mut line = String::new();
    let _ = BufReader::new(out).read_line(&mut line);
    line
}

fn signal(name: &str, pid: u32) {
    let _ = Command::new("kill").args([name, &pid.to_string()]).stderr(Stdio::null()).status();
}
