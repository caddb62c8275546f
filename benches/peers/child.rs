//! The parts of the benchmark that run as processes of their own, so that each has its core: this
//! same program with a hidden argument.

use clap::Subcommand;

use crate::{backend, load, splice};

/// A part that runs in a process of its own.
#[derive(Debug, Subcommand)]
pub(crate) enum Child {
    /// The backend behind every subject.
    #[command(hide = true)]
    Backend,
    /// The load, as JSON, for one cell and one subject.
    #[command(hide = true)]
    Load { task: String },
    /// The copying proxy that knows no HTTP.
    #[command(hide = true)]
    Splice { listen: u16, backend: u16 },
}

impl Child {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Backend => backend::serve(),
            Self::Load { task } => load::run(&serde_json::from_str(task)?),
            Self::Splice { listen, backend } => splice::serve(*listen, *backend),
        }
    }
}
