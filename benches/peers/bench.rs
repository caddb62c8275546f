//! The measurement: every cell, every subject, in turns.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};

use crate::{
    backend::Ports,
    cell::{Cell, Mode, Span},
    clock::now,
    load::{Count, Task},
    options::Options,
    outcome::Outcome,
    process::Process,
    report::{Report, Row},
    subject::{Installed, Running, Setup, Subject},
};

/// What all runs share.
pub(crate) struct Bench {
    directory: PathBuf,
    core: usize,
    load_core: usize,
    program: String,
    ports: Ports,
    _backend: Process,
}

impl Bench {
    /// Starts the backend.
    pub(crate) fn start(options: &Options) -> anyhow::Result<Self> {
        let [core, load_core] = options.cores;
        let name = format!("peers-{}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&directory)?;
        let program = env::current_exe()?.display().to_string();
        let command = [program.clone(), "backend".to_owned()];
        let mut backend = Process::start(load_core, &command, &directory)?;
        let ports = backend.reported(Duration::from_secs(5)).context("the backend")?;
        Ok(Self { directory, core, load_core, program, ports, _backend: backend })
    }

    /// Runs all that the options ask for.
    pub(crate) fn run(&self, options: &Options) -> anyhow::Result<Report> {
        let extent = options.extent();
        let upbeat = options.upbeat()?;
        let mut report = Report::new(options, Installed::find, &upbeat);
        let mut cells = extent.cells();
        cells.retain(|cell| options.wants(&cell.name));
        ensure!(!cells.is_empty(), "no cell has any of these words in its name");
        let began = now();
        for (number, cell) in cells.iter().enumerate() {
            let share = (number + 1) as f64 / cells.len() as f64;
            let mut runs = vec![Vec::new(); report.installed.len()];
            for round in 0..extent.rounds() {
                if round > 0 && began.elapsed() > extent.limit().mul_f64(share) {
                    eprintln!("     no time for round {} of this cell", round + 1);
                    break;
                }
                for (subject, runs) in report.installed.iter().zip(&mut runs) {
                    if !subject.subject.takes(cell) {
                        continue;
                    }
                    let name = subject.subject.name();
                    eprintln!("{:>4.0?} {}: {name} {}", began.elapsed(), cell.name, round + 1);
                    let run = self.measure(subject, cell, extent.span());
                    runs.push(run.unwrap_or_else(|error| {
                        eprintln!("     {name}: {error:#}");
                        Outcome::failed(&format!("{error:#}"))
                    }));
                }
            }
            let subjects = report.installed.iter().map(|installed| installed.subject);
            let measured = subjects.zip(runs).filter(|(_, runs)| !runs.is_empty());
            let rows: Vec<_> =
                measured.map(|(subject, runs)| Row::new(cell, subject, runs)).collect();
            report.rows.extend(rows);
        }
        report.seconds = began.elapsed().as_secs();
        Ok(report)
    }

    /// One run of a cell against a subject.
    fn measure(&self, subject: &Installed, cell: &Cell, span: Span) -> anyhow::Result<Outcome> {
        let running = self.ready(subject, cell, &[])?;
        self.load(&running, cell, span, None)
    }

    /// Starts a subject and waits for its first good answer.
    pub(crate) fn ready(
        &self,
        subject: &Installed,
        cell: &Cell,
        before: &[String],
    ) -> anyhow::Result<Running> {
        /// An emulator is slow.
        const LIMIT: Duration = Duration::from_secs(20);
        let directory = self.directory.join(subject.subject.name().replace(' ', "-"));
        let backend = cell.backend(self.ports);
        let setup = Setup { core: self.core, directory: &directory, cell, backend };
        let mut running = subject.start(&setup, before)?;
        let probe = Cell { connections: 1, streams: 1, ..cell.clone() };
        let mode = if cell.mode == Mode::Echo { Mode::Echo } else { Mode::Closed };
        let probe = Cell { mode, ..probe };
        let count = Count { calls: 1, within: Duration::from_secs(2) };
        let span = Span { warm: Duration::ZERO, window: Duration::ZERO };
        let end = now() + LIMIT;
        loop {
            let answer = self.load(&running, &probe, span, Some(count));
            match answer {
                Ok(outcome) if outcome.error_count() == 0 => return Ok(running),
                _ if !running.process.is_running() => {
                    bail!("it ended at its start: {}", running.process.complaint())
                }
                _ if now() > end => bail!("no good answer within {LIMIT:?}: {answer:?}"),
                _ => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Runs a load against a subject.
    pub(crate) fn load(
        &self,
        running: &Running,
        cell: &Cell,
        span: Span,
        count: Option<Count>,
    ) -> anyhow::Result<Outcome> {
        let (port, pid) = (running.port, running.process.pid());
        let task = Task { cell: cell.clone(), port, pid, span, count };
        let command =
            [self.program.clone(), "load".to_owned(), serde_json::to_string(&task)?].to_vec();
        let mut load = Process::start(self.load_core, &command, &self.directory)?;
        load.reported(task.limit()).context("the load")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
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

/// The one subject that `benches/instructions` looks at.
pub(crate) fn upbeat(program: &Path) -> anyhow::Result<Installed> {
    Installed::find(Subject::Upbeat, program).context("Upbeat")
}
