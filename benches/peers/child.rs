//! The parts of the benchmark that run as processes of their own, so that each has its core: this
//! same program with a hidden argument.

use std::{
    io::{self, Read, Write},
    net::Ipv4Addr,
    thread,
};

use clap::Subcommand;
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::{Builder, Runtime},
};

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

/// One thread, as each part has.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Listens, for as many at once as a proxy may connect.
pub(crate) fn listen(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((address, port).into())?;
    socket.listen(4096)
}

/// Tells the parent, by a line of JSON.
pub(crate) fn report(what: &impl Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(what)?)?;
    out.flush()?;
    Ok(())
}

/// Ends this process when the parent has ended, however that was: its end of standard input closes.
pub(crate) fn end_with_parent() {
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}
