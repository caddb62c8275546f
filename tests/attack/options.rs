//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;

/// Attacks a proxy beside a victim: `cargo test --release --test attack -- [OPTIONS]`.
#[derive(Debug, Parser)]
#[command(name = "attack")]
pub(crate) struct Options {
    /// Only rows that have one of these words; what `cargo test WORD` passes on.
    words: Vec<String>,
    /// Only these rows, such as `1,22,A3`.
    #[arg(long, value_delimiter = ',', value_name = "ROWS")]
    only: Vec<String>,
    /// Rows that take minutes too, with the defaults' own times, and the whole of each load.
    #[arg(long)]
    pub(crate) slow: bool,
    /// Holds times too, which a debug build on a busy machine does not: of an optimised `--binary`.
    /// A release build does so by itself.
    #[arg(long)]
    strict: bool,
    /// Prints the rows and ends.
    #[arg(long)]
    pub(crate) list: bool,
    /// Writes everything that was measured.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Attacks this program instead of the one that cargo has built.
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Option<PathBuf>,
    /// Attacks a proxy that runs here, in front of `--backend-port`; only rows that need no keys
    /// of their own.
    #[arg(long, value_name = "ADDRESS", requires = "backend_port", requires = "pid")]
    pub(crate) target: Option<SocketAddr>,
    /// Where that proxy expects its backend, which is started here.
    #[arg(long, value_name = "PORT")]
    pub(crate) backend_port: Option<u16>,
    /// That proxy's process, whose memory is read.
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,
    /// That proxy's name in the table.
    #[arg(long, value_name = "NAME", default_value = "upbeat")]
    pub(crate) peer: String,
    /// What libtest takes, for `cargo test -- --nocapture` and its like.
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
}

impl Options {
    /// Whether this row is to be run, as far as the options name rows.
    pub(crate) fn wants(&self, id: &str, words: &str) -> bool {
        let named = self.only.is_empty() || self.only.iter().any(|only| only == id);
        named && (self.words.is_empty() || self.words.iter().any(|word| words.contains(word)))
    }

    /// Whether times count.
    pub(crate) fn is_strict(&self) -> bool {
        self.strict || !cfg!(debug_assertions)
    }

    /// Whether rows were asked for by name.
    pub(crate) fn names_rows(&self) -> bool {
        !self.only.is_empty()
    }
}
