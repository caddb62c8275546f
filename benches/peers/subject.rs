//! The proxies that are measured.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde::Serialize;

use crate::{
    cell::{Cell, Mode, What},
    fill::Filling,
    process::Process,
    request::Request,
};

/// A proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub(crate) enum Subject {
    Upbeat,
    Nghttpx,
    Haproxy,
    Nginx,
    Envoy,
    Caddy,
    /// The bound, which copies bytes and knows no HTTP.
    L4,
}

impl Subject {
    pub(crate) const ALL: [Self; 7] = [
        Self::Upbeat,
        Self::Nghttpx,
        Self::Haproxy,
        Self::Nginx,
        Self::Envoy,
        Self::Caddy,
        Self::L4,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Upbeat => "Upbeat",
            Self::Nghttpx => "nghttpx",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Envoy => "Envoy",
            Self::Caddy => "Caddy",
            Self::L4 => "L4 copy",
        }
    }

    /// Whether others are compared with it.
    pub(crate) fn is_peer(self) -> bool {
        !matches!(self, Self::Upbeat | Self::L4)
    }

    /// Whether it can do what a cell asks for: two answer health checks by themselves, and to
    /// one by gRPC Envoy's filter says status 2, UNKNOWN, since it knows HTTP only.
    pub(crate) fn takes(self, cell: &Cell) -> bool {
        match cell.request {
            Request::Check => self == Self::Upbeat,
            Request::Get => self == Self::Upbeat || self == Self::Envoy && grows(self, cell),
            Request::Export { .. } | Request::Echo { .. } => {
                grows(self, cell) && !(cell.tls && self == Self::L4)
            }
        }
    }

    /// Its configuration, with marks for what differs from run to run.
    fn template(self) -> (&'static str, &'static str) {
        match self {
            Self::Upbeat => ("upbeat.yaml", include_str!("config/upbeat.yaml")),
            Self::Nghttpx => ("nghttpx.conf", include_str!("config/nghttpx.conf")),
            Self::Haproxy => ("haproxy.cfg", include_str!("config/haproxy.cfg")),
            Self::Nginx => ("nginx.conf", include_str!("config/nginx.conf")),
            Self::Envoy => ("envoy.yaml", include_str!("config/envoy.yaml")),
            Self::Caddy => ("Caddyfile", include_str!("config/Caddyfile")),
            Self::L4 => ("none", ""),
        }
    }

    fn arguments(self, file: &Path, port: u16, backend: u16) -> Vec<String> {
        let file = file.display().to_string();
        let arguments: &[&str] = match self {
            Self::Upbeat => &["run", "--config", &file],
            Self::Nghttpx => &["--conf", &file],
            Self::Haproxy => &["-db", "-q", "-f", &file],
            Self::Nginx => &["-e", "stderr", "-c", &file],
            Self::Envoy => {
                &["-c", &file, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
            }
            // Go sees the one core that it is pinned to, and so runs on one.
            Self::Caddy => &["run", "--adapter", "caddyfile", "--config", &file],
            Self::L4 => &["splice", &port.to_string(), &backend.to_string()],
        };
        arguments.iter().map(|argument| (*argument).to_owned()).collect()
    }

    /// The program, or `None` where it is not installed.
    pub(crate) fn program(self, upbeat: &Path) -> Option<PathBuf> {
        match self {
            Self::Upbeat => Some(upbeat.to_owned()),
            Self::L4 => env::current_exe().ok(),
            // PyPI's script for Envoy is Python around the program; the program is what counts.
            Self::Envoy => installed("lib/python3*/site-packages/envoy/_bin/envoy", "envoy"),
            Self::Caddy => installed("bin/caddy", "caddy"),
            Self::Nghttpx | Self::Haproxy | Self::Nginx => {
                installed("-", &self.name().to_lowercase())
            }
        }
    }
}

/// Looks in what `benches/install` and `tests/peers/install` made, then in the system.
fn installed(in_venv: &str, name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let venvs = ["benches/.installed/venv", "tests/peers/.installed/venv"];
    let local = venvs.iter().flat_map(|venv| expand(&root.join(venv), in_venv));
    let path = env::var_os("PATH").unwrap_or_default();
    let system = env::split_paths(&path).chain(["/usr/sbin".into()]).map(|at| at.join(name));
    local.chain(system.collect::<Vec<_>>()).find(|file| file.is_file())
}

/// The path behind a pattern with at most one `*`.
fn expand(root: &Path, pattern: &str) -> Option<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return Some(root.join(pattern)) };
    let (directory, prefix) = before.rsplit_once('/')?;
    let mut entries = fs::read_dir(root.join(directory)).ok()?;
    let entry = entries.find_map(|entry| {
        let entry = entry.ok()?;
        entry.file_name().to_str()?.starts_with(prefix).then_some(entry)
    })?;
    Some(entry.path().join(after.trim_start_matches('/')))
}

/// A subject as it can be started.
#[derive(Debug, Serialize)]
pub(crate) struct Installed {
    pub(crate) subject: Subject,
    #[serde(skip)]
    program: PathBuf,
    /// What it says of itself.
    pub(crate) version: String,
}

impl Installed {
    pub(crate) fn find(subject: Subject, upbeat: &Path) -> Option<Self> {
        let program = subject.program(upbeat)?;
        let argument = match subject {
            Subject::Haproxy | Subject::Nginx => "-v",
            Subject::Caddy => "version",
            _ => "--version",
        };
        let version = if subject == Subject::L4 {
            "of this benchmark".to_owned()
        } else {
            version(&program, argument).unwrap_or_default()
        };
        Some(Self { subject, program, version })
    }

    /// Starts it on a core, behind the words of `before`.
    pub(crate) fn start(&self, setup: &Setup, before: &[String]) -> anyhow::Result<Running> {
        let Setup { core, directory, folder, cell, backend } = *setup;
        let port = free_port()?;
        fs::create_dir_all(directory)?;
        let (name, template) = self.subject.template();
        let file = directory.join(name);
        let [directory_said, folder] = [directory, folder].map(|it| it.display().to_string());
        let filling = Filling { cell, port, backend, directory: &directory_said, folder: &folder };
        fs::write(&file, filling.fill(template))?;
        let mut command = before.to_vec();
        command.push(self.program.display().to_string());
        command.extend(self.subject.arguments(&file, port, backend));
        Ok(Running { process: Process::start(core, &command, directory)?, port })
    }
}

/// What a run gives a subject.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) core: usize,
    pub(crate) directory: &'a Path,
    /// Where the certificate is.
    pub(crate) folder: &'a Path,
    pub(crate) cell: &'a Cell,
    pub(crate) backend: u16,
}

/// A subject that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) port: u16,
}

impl Cell {
    /// The backend's port for this cell.
    pub(crate) fn backend(&self, ports: crate::backend::Ports) -> u16 {
        if self.mode == Mode::Echo { ports.echo } else { ports.unary }
    }
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// The first line that has a digit; nginx writes it to standard error.
fn version(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| line.contains(|letter: char| letter.is_ascii_digit()))?;
    let line = line.replace(&program.display().to_string(), "");
    Some(line.trim().chars().take(90).collect())
}

/// Whether a subject's template has marks for what a cell grows, and descriptors for it.
fn grows(subject: Subject, cell: &Cell) -> bool {
    /// A bound on what a process may open; the copying proxy needs two for each connection.
    const PAIRS: usize = 8000;
    match cell.growth.map(|growth| growth.of) {
        None => subject != Subject::L4 || cell.connections < PAIRS,
        Some(What::Endpoints | What::Connections) => subject != Subject::L4,
        // Others would send calls to what is down, or have no such thing.
        Some(What::HalfDown | What::Routes | What::Workers) => subject == Subject::Upbeat,
    }
}

/// Builds the program as it is released: beside a benchmark, cargo builds it with what the tests
/// add to its dependencies.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let arguments =
        ["build", "--release", "--locked", "--bin", "upbeat", "--manifest-path", manifest];
    let status = Command::new(cargo).args(arguments).status().context("cargo")?;
    ensure!(status.success(), "Upbeat does not build");
    Ok(env!("CARGO_BIN_EXE_upbeat").into())
}
