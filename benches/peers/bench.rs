//! The measurement: every cell, every subject, in turns.

use std::{
    env, fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use crate::{
    backend::Ports,
    cell::{Cell, Mode, Span},
    clock::now,
    extent::Extent,
    load::{Count, Task},
    options::Options,
    outcome::Outcome,
    process::Process,
    report::{Report, Row},
    subject::{Installed, Running, Setup, Subject},
    tls,
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
        tls::certify(&directory)?;
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
        let cells = options.cells();
        ensure!(!cells.is_empty(), "no cell has any of these words in its name");
        let began = now();
        let mut done = 0;
        for group in
            cells.chunk_by(|one, next| one.series().is_some_and(|it| Some(it) == next.series()))
        {
            done += group.len();
            let limit = extent.limit().mul_f64(done as f64 / cells.len() as f64);
            report.rows.extend(self.group(group, &report.installed, extent, began, limit));
        }
        report.seconds = began.elapsed().as_secs();
        Ok(report)
    }

    /// Runs cells that are to be compared, in turns.
    fn group(
        &self,
        cells: &[Cell],
        subjects: &[Installed],
        extent: Extent,
        began: Instant,
        limit: Duration,
    ) -> Vec<Row> {
        let pairs: Vec<_> = cells
            .iter()
            .flat_map(|cell| subjects.iter().map(move |subject| (cell, subject)))
            .filter(|(cell, subject)| subject.subject.takes(cell))
            .collect();
        let mut runs = vec![Vec::new(); pairs.len()];
        for round in 0..extent.rounds() {
            if round > 0 && began.elapsed() > limit {
                eprintln!("     no time for round {} of this cell", round + 1);
                break;
            }
            for ((cell, subject), runs) in pairs.iter().zip(&mut runs) {
                let name = subject.subject.name();
                eprintln!("{:>4.0?} {}: {name} {}", began.elapsed(), cell.name, round + 1);
                let run = self.measure(subject, cell, extent.span_of(cell));
                runs.push(run.unwrap_or_else(|error| {
                    eprintln!("     {name}: {error:#}");
                    Outcome::failed(&format!("{error:#}"))
                }));
            }
        }
        let rows = pairs.into_iter().zip(runs);
        rows.map(|((cell, subject), runs)| Row::new(cell, subject.subject, runs)).collect()
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
        let (backend, folder) = (cell.backend(self.ports), &self.directory);
        let setup = Setup { core: self.core, directory: &directory, folder, cell, backend };
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
        let folder = self.directory.clone();
        let task = Task { cell: cell.clone(), port, pid, folder, span, count };
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

/// The one subject that `benches/instructions` looks at.
pub(crate) fn upbeat(program: &Path) -> anyhow::Result<Installed> {
    Installed::find(Subject::Upbeat, program).context("Upbeat")
}
