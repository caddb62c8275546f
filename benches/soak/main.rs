//! The soak: hours of what happens in operation, in one. Unary calls, streams, large messages, TLS
//! and tenants go through the proxy to three endpoints, processes of their own, that are killed,
//! frozen, slowed and restarted at random, while the configuration is reloaded and the certificate
//! swapped. Memory, descriptors, threads, calls and losses are drawn as an SVG.
//!
//! `cargo bench --bench soak -- --minutes 60 --svg soak.svg`, or `benches/soak/run 60 soak.svg`
//!
//! Ends with 1 where memory or descriptors are not flat, something is left when all calls have
//! ended, or a call was lost that no endpoint had.
//!
//! ```text
//! main                     the command line
//! soak                     starts all parts, and judges
//! proxy  endpoint  calls   the proxy; an endpoint's process; the load
//! torment                  what is done to them
//! samples  picture         what was measured, and how it is drawn
//! fixture                  what tests/it and benches/peers share with it
//! ```

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod endpoint;
mod fixture;
mod picture;
mod proxy;
mod samples;
mod soak;
mod torment;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use tokio::runtime::Builder;

/// Keeps the proxy under load and its endpoints in trouble for a while.
#[derive(Debug, Parser)]
#[command(name = "soak")]
pub(crate) struct Options {
    /// For how long.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Where the picture goes.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Another program than the one that cargo has built.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Repeats what was done in another run.
    #[arg(long)]
    seed: Option<u64>,
    /// What `cargo bench` says.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// An endpoint's process.
    #[command(hide = true)]
    Endpoint { address: SocketAddr, journal: PathBuf },
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Some(Part::Endpoint { address, journal }) = options.part {
        runtime.block_on(endpoint::serve(address, &journal));
        return ExitCode::SUCCESS;
    }
    let wrong = runtime.block_on(soak::run(&options));
    wrong.iter().for_each(|it| println!("WRONG: {it}"));
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
