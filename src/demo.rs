//! `upbeat demo`: two built-in distributors and the proxy in front of them, so that the main job
//! is seen with nothing installed.

mod control;
mod distributor;
mod otlp;

use std::{fmt::Write, net::SocketAddr, time::Duration};

use anyhow::{Context, bail, ensure};
use http::HeaderMap;
use tokio::{
    task::JoinSet,
    time::{Instant, interval_at},
};
use tracing::warn;

use self::{control::Control, distributor::Distributor};
use crate::{
    app::{App, Ending},
    config::Config,
    grpc::{Code, encode},
    probe::Channel,
    shutdown::Shutdown,
};

/// Arguments of `upbeat demo`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Port of the OTLP listener
    #[arg(long, default_value_t = 4317)]
    otlp_port: u16,
    /// Port of the listener for Tempo's own gRPC
    #[arg(long, default_value_t = 9095)]
    tempo_port: u16,
    /// Port of the listener that answers health checks only
    #[arg(long, default_value_t = 8080)]
    health_port: u16,
    /// Port of the admin server
    #[arg(long, default_value_t = 9901)]
    admin_port: u16,
    /// Port that makes distributors fail
    #[arg(long, default_value_t = 9902)]
    control_port: u16,
}

impl Options {
    fn ports(&self) -> [u16; 5] {
        let Self { otlp_port, tempo_port, health_port, admin_port, control_port } = *self;
        [otlp_port, tempo_port, health_port, admin_port, control_port]
    }
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// A port that is taken, and how to choose another.
pub async fn run(options: Options) -> anyhow::Result<Ending> {
    let mut ports = options.ports();
    ports.sort_unstable();
    let twice = ports.windows(2).any(|pair| pair[0] == pair[1] && pair[0] != 0);
    ensure!(!twice, "a port was given twice\n{OTHERS}");
    let distributors = [
        Distributor::start(1).context("cannot start a distributor")?,
        Distributor::start(2).context("cannot start a distributor")?,
    ];
    let text = configuration(&options, &distributors);
    let config = Config::parse(&text, |_| None).context("the demo's own configuration")?;
    let control = Control::bind(local(options.control_port), distributors);
    let (app, control) = match (App::bind(config), control) {
        (Ok(app), Ok(control)) => (app, control),
        (app, control) => {
            let mut problems: Vec<_> = app.err().iter().map(ToString::to_string).collect();
            problems.extend(control.err().map(|error| {
                let (port, why) = (options.control_port, error.kind());
                format!("cannot listen on 127.0.0.1:{port}: {why}: another process has this port")
            }));
            bail!("{}\n{OTHERS}", problems.join("\n"));
        }
    };
    let traces = app.addresses()?[0].1;
    let admin = app.admin_address()?;
    print!("{}", welcome(&app, traces, admin, control.address()?)?);

    let shutdown = Shutdown::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(control.run());
    tasks.spawn(trickle(traces));
    tokio::select! {
        ending = app.run(shutdown.clone()) => ending,
        Err(error) = shutdown.follow_signals() => Err(error.into()),
        Some(ended) = tasks.join_next() => bail!("a task of the demo ended: {ended:?}"),
    }
}

/// Short intervals and no drain delay: somebody is watching.
fn configuration(options: &Options, distributors: &[Distributor; 2]) -> String {
    let [a, b] = distributors;
    format!(
        r#"
listeners:
  - {{ name: otlp, address: "127.0.0.1:{}", upstream: otlp }}
  - {{ name: tempo, address: "127.0.0.1:{}", upstream: tempo }}
  - {{ name: health, address: "127.0.0.1:{}" }}
upstreams:
  otlp:
    endpoints: ["{}", "{}"]
    probe: {{ interval: 1s, timeout: 500ms, unhealthy_threshold: 2, checks: [{{ otlp: {{}} }}] }}
  tempo:
    endpoints: ["{}", "{}"]
    probe: {{ interval: 1s, timeout: 500ms, unhealthy_threshold: 2, checks: [{{ grpc: {{}} }}] }}
health:
  services:
    opentelemetry.proto.collector.trace.v1.TraceService: {{ all: [otlp] }}
    tempo: {{ all: [tempo] }}
drain: {{ delay: 0s, timeout: 5s }}
admin: {{ address: "127.0.0.1:{}" }}
"#,
        options.otlp_port,
        options.tempo_port,
        options.health_port,
        a.otlp(),
        b.otlp(),
        a.tempo(),
        b.tempo(),
        options.admin_port,
    )
}

/// What runs, and what to type next.
fn welcome(
    app: &App,
    traces: SocketAddr,
    admin: SocketAddr,
    control: SocketAddr,
) -> anyhow::Result<String> {
    let mut text = String::from("\nTwo distributors run, and the proxy in front of them:\n");
    for (name, address) in app.addresses()? {
        writeln!(text, "  {name:7} {address}")?;
    }
    writeln!(text, "  {:7} {admin}", "admin")?;
    write!(
        text,
        "
Ask for health, from another terminal:
  curl -i http://{traces}/grpc.health.v1.Health/Check
  target/release/upbeat probe {traces}
  target/release/upbeat status --admin {admin}
See it flip: both distributors fail for 20 s (/fail/1 or /fail/2 for one of them), and come back:
  curl -X POST http://{control}/fail/all
Ctrl-C ends it.

"
    )?;
    Ok(text)
}

/// Sends one span a second through the proxy.
async fn trickle(proxy: SocketAddr) {
    let mut channel = Channel::new(proxy, None, Duration::from_secs(1));
    // Not before the first probes.
    let second = Duration::from_secs(1);
    let mut ticks = interval_at(Instant::now() + second, second);
    let mut failing = false;
    loop {
        ticks.tick().await;
        let message = encode(&otlp::one_span("demo"));
        let outcome = match channel.unary(otlp::EXPORT, &HeaderMap::new(), message).await {
            Ok(reply) if reply.status.code == Code::Ok => Ok(()),
            Ok(reply) => Err(reply.status.to_string()),
            Err(failure) => Err(failure.to_string()),
        };
        if let Err(error) = &outcome
            && !failing
        {
            warn!(error, "spans are refused");
        }
        failing = outcome.is_err();
    }
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

const OTHERS: &str = "choose other ports with --otlp-port, --tempo-port, --health-port, --admin-port and --control-port";
