//! What came out: tables, a picture, a file.

mod growth;
mod picture;
mod table;

use std::{fs, path::Path};

use serde::Serialize;

use crate::{
    cell::Cell,
    options::Options,
    outcome::Outcome,
    subject::{Installed, Subject},
};

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// `fast` or `full`.
    extent: &'static str,
    kernel: String,
    processor: String,
    pub(crate) seconds: u64,
    pub(crate) installed: Vec<Installed>,
    /// Subjects that were asked for and that `benches/install` has not installed.
    missing: Vec<Subject>,
    pub(crate) rows: Vec<Row>,
}

/// One cell and one subject.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    cell: Cell,
    subject: Subject,
    /// All runs folded into one.
    outcome: Outcome,
    runs: Vec<Outcome>,
}

impl Row {
    pub(crate) fn new(cell: &Cell, subject: Subject, runs: Vec<Outcome>) -> Self {
        Self { cell: cell.clone(), subject, outcome: Outcome::fold(&runs), runs }
    }

    /// What the cell is about: CPU time of a request, or memory of a connection.
    fn cost(&self) -> Option<f64> {
        self.outcome.kib_per_connection.or(self.outcome.cpu_micros)
    }

    /// Whether the figures stand for the work that was asked for.
    fn is_sound(&self) -> bool {
        self.outcome.error_count() * 1000 <= self.outcome.requests
    }
}

impl Report {
    /// A report without rows, of the subjects that are there.
    pub(crate) fn new(
        options: &Options,
        find: fn(Subject, &Path) -> Option<Installed>,
        upbeat: &Path,
    ) -> Self {
        let wanted = Subject::ALL
            .into_iter()
            .filter(|subject| options.peers.is_empty() || options.peers.contains(subject));
        let (mut installed, mut missing) = (Vec::new(), Vec::new());
        for subject in wanted {
            match find(subject, upbeat) {
                Some(found) => installed.push(found),
                None => missing.push(subject),
            }
        }
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        Self {
            extent: options.extent().name(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: model.unwrap_or_default().trim_start_matches(['\t', ' ', ':']).to_owned(),
            seconds: 0,
            installed,
            missing,
            rows: Vec::new(),
        }
    }

    /// The rows of each cell.
    fn cells(&self) -> impl Iterator<Item = &[Row]> {
        self.rows.chunk_by(|one, next| one.cell.name == next.cell.name)
    }
}

/// The lowest cost among the peers that did the work without errors.
fn best(rows: &[Row]) -> Option<f64> {
    let peers = rows.iter().filter(|row| row.subject.is_peer() && row.is_sound());
    peers.filter_map(Row::cost).filter(|cost| *cost > 0.0).min_by(f64::total_cmp)
}
