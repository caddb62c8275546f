//! The command line.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Parser;

use crate::{
    cell::Cell,
    child::Child,
    extent::Extent,
    growth,
    subject::{self, Subject},
};

/// Upbeat and other proxies at the same work: `cargo bench --bench peers -- [OPTIONS]`.
#[derive(Debug, Parser)]
#[command(name = "peers", version)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) part: Option<Part>,
    /// A short look, of three minutes at most (the default).
    #[arg(long, conflicts_with = "full")]
    fast: bool,
    /// All cells and longer windows, for 25 minutes at most.
    #[arg(long)]
    full: bool,
    /// Only these subjects.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) peers: Vec<Subject>,
    /// Only cells with one of these words in their name; "growth" and "memory" are more cells.
    #[arg(long, value_delimiter = ',', value_name = "WORDS")]
    cells: Vec<String>,
    /// Writes everything that was measured, each run too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draws CPU time a request.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Measures this program instead of the one that `cargo build --release` makes.
    #[arg(long, value_name = "FILE")]
    upbeat: Option<PathBuf>,
    /// The proxy's core, and that of the load and the backend.
    #[arg(long, value_parser = cores, default_value = "0,1", value_name = "A,B")]
    pub(crate) cores: [usize; 2],
    /// What cargo adds by itself.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

/// What this program can be beside the measurement of all.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Part {
    /// Counts Upbeat's instructions a request, by valgrind.
    Instructions,
    #[command(flatten)]
    Child(Child),
}

impl Options {
    pub(crate) fn extent(&self) -> Extent {
        if self.full { Extent::Full } else { Extent::Fast }
    }

    /// What is measured. What grows takes a minute and more of its own: where it is asked for by
    /// name, or where all is.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        let mut cells = self.extent().cells();
        if self.full || !self.cells.is_empty() {
            cells.extend(growth::cells());
        }
        cells.retain(|cell| self.wants(&cell.name));
        cells
    }

    fn wants(&self, cell: &str) -> bool {
        self.cells.is_empty() || self.cells.iter().any(|word| cell.contains(word))
    }

    /// The program that is measured as Upbeat.
    pub(crate) fn upbeat(&self) -> anyhow::Result<PathBuf> {
        let Some(path) = &self.upbeat else { return subject::build() };
        ensure!(path.is_file(), "{} is no file", path.display());
        Ok(path.canonicalize()?)
    }
}

fn cores(text: &str) -> Result<[usize; 2], String> {
    let parse = |core: &str| core.parse().map_err(|_| format!("{core:?} is no number"));
    let (proxy, load) = text.split_once(',').ok_or("expected two numbers, such as 0,1")?;
    Ok([parse(proxy)?, parse(load)?])
}
