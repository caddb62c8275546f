//! The command line: arguments → tracing → configuration → exit code.

mod admin;
mod check;
mod cloud;
mod probe;
mod status;
mod tls;

use std::{
    future::Future,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Parser, Subcommand, error::ErrorKind};
use tracing::warn;

use crate::{
    app::{App, Certificates, Ending, Inherited},
    config::{self, Config},
    demo, log, net,
    shutdown::Shutdown,
    watchdog,
};

/// A gRPC-aware reverse proxy for Tempo distributors that answers health checks from what it
/// probes.
#[derive(Debug, Parser)]
#[command(name = "upbeat", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run two built-in distributors and the proxy in front of them
    Demo(demo::Options),
    /// Run the proxy
    Run(Run),
    /// Report every problem of a configuration; exit 78 if there is one
    Check(check::Options),
    /// Ask a server for its health: exit 0 serving, 1 usage, 2 connect, 3 rpc, 4 not serving
    Probe(probe::Options),
    /// Show the board of a running proxy
    Status(status::Options),
    /// Print the load balancer's side of a configuration, and where the two disagree
    Cloud(cloud::Options),
    /// Print the JSON Schema of the configuration
    Schema,
}

#[derive(Debug, clap::Args)]
struct File {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "config/upbeat.yaml")]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Run {
    #[command(flatten)]
    file: File,
    /// Take the listening sockets over from the process that runs, which drains once this one
    /// serves. It is found by its admin address, and belongs to the same user
    #[arg(long)]
    take_over: bool,
}

/// Runs the command that the process was started with.
///
/// Exit codes: 0 clean; 1 a failure, or a drain that was cut; 2 usage; 70 a fault of Upbeat's own, such
/// as a panic; 78 bad configuration. `probe` has those of grpc_health_probe.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    match arguments.command {
        Command::Demo(options) => {
            begin(&config::Log::default());
            ending(block_on(demo::run(options)))
        }
        Command::Run(options) => run(&options),
        Command::Check(options) => check::run(&options),
        Command::Probe(options) => block_on(probe::run(options)),
        Command::Status(options) => match block_on(status::run(&options)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Command::Cloud(options) => cloud::run(&options),
        Command::Schema => {
            say(&format!("{:#}\n", config::schema()));
            ExitCode::SUCCESS
        }
    }
}

/// Help and version are no mistakes; of the rest, `probe` counts its usage as 1.
fn usage(error: &clap::Error) -> ExitCode {
    // Nothing is left to tell if standard error is closed.
    _ = error.print();
    let probing = std::env::args_os().nth(1).is_some_and(|command| command == "probe");
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ if probing => ExitCode::from(1),
        _ => ExitCode::from(2),
    }
}

fn run(options: &Run) -> ExitCode {
    let path = options.file.config.as_path();
    let config = match load(path) {
        Ok(config) => config,
        Err(problems) => return bad_configuration(path, &problems),
    };
    begin(&config.log);
    let connections: u32 = config.listeners.iter().map(|it| it.limits.max_connections).sum();
    if let Some(files) = net::raise_descriptors()
        && files < u64::from(connections)
    {
        let hint = "raise the hard limit of open files, or lower limits.max_connections";
        warn!(files, connections, hint, "fewer files than connections may be open");
    }
    ending(block_on(async {
        let inherited = match options.take_over {
            true => Inherited::from_process(config.admin.address).await,
            false => Inherited::from_systemd(),
        };
        let inherited = inherited.context("cannot take over the listening sockets")?;
        let app = App::bind_beside(config, inherited)?.follow(path.to_owned());
        let shutdown = Shutdown::new();
        tokio::select! {
            ending = app.run(shutdown.clone()) => ending,
            Err(error) = shutdown.follow_signals() => Err(error.into()),
        }
    }))
}

/// A configuration whose files of certificates and keys are of use too.
fn load(path: &Path) -> Result<Config, config::Problems> {
    let config = Config::load(path)?;
    Certificates::read(&config)?;
    Ok(config)
}

fn bad_configuration(path: &Path, problems: &config::Problems) -> ExitCode {
    let count = problems.0.len();
    let plural = if count == 1 { "" } else { "s" };
    eprintln!("{}: {count} problem{plural}\n{problems}", path.display());
    ExitCode::from(78)
}

/// Starts the log, and has a panic end the process.
fn begin(log: &config::Log) {
    if let Err(error) = log::start(log) {
        eprintln!("upbeat: no log is written: {error}");
    }
    watchdog::end_on_panic();
}

fn ending(ending: anyhow::Result<Ending>) -> ExitCode {
    match ending {
        Ok(ending) => {
            log::flush();
            if ending == Ending::Clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    log::end(&format!("upbeat: {error:#}"));
    ExitCode::FAILURE
}

/// Writes to standard output. Whoever closed it wants no more, which is no failure.
fn say(text: &str) {
    _ = io::stdout().write_all(text.as_bytes());
}

/// The control thread's runtime: the caller's thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system grants an event queue");
    let output = runtime.block_on(future);
    // A name that is looked up, or a file that is read, may hang: nobody waits for them any more.
    runtime.shutdown_background();
    output
}
