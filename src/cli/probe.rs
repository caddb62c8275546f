//! `upbeat probe`: one health check from the command line, with grpc_health_probe's exit codes.

use std::{process::ExitCode, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, uri::PathAndQuery};

use super::tls::Tls;
use crate::{
    config::{self, GrpcCheck, HttpCheck},
    probe::{Check, Failure, Target},
};

/// Arguments of `upbeat probe`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Host and port
    #[arg(value_parser = host_and_port)]
    address: String,
    /// The service to ask for; by default the server as a whole
    #[arg(long, default_value = "", hide_default_value = true)]
    service: String,
    /// Metadata to send along, such as x-scope-orgid=health
    #[arg(long, value_name = "NAME=VALUE", value_parser = metadata)]
    metadata: Vec<(HeaderName, HeaderValue)>,
    /// GET this path instead, and expect 200
    #[arg(long, value_name = "PATH", conflicts_with_all = ["service", "metadata", "otlp"])]
    http: Option<PathAndQuery>,
    /// Send an empty OTLP Export instead
    #[arg(long, conflicts_with_all = ["service", "metadata"])]
    otlp: bool,
    #[command(flatten)]
    tls: Tls,
    /// How long to wait for the connection, and then for the answer
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

fn host_and_port(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    match port {
        Some(_) => Ok(text.to_owned()),
        None => Err("expected a host and a port, such as localhost:4317".to_owned()),
    }
}

fn metadata(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let name = name.parse().map_err(|_| format!("{name:?} is not a header name"))?;
    let value = value.parse().map_err(|_| format!("{value:?} is not a header value"))?;
    Ok((name, value))
}

/// Exit 0 serving, 2 connect, 3 rpc, 4 not serving.
pub(super) async fn run(options: Options) -> ExitCode {
    match probe(options).await {
        Ok(()) => {
            super::say("SERVING\n");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(match failure {
                Failure::Connect(_) | Failure::Refused(_) | Failure::Local(_) => 2,
                Failure::Rpc(_) => 3,
                Failure::NotServing(_) | Failure::Answered(_) => 4,
            })
        }
    }
}

async fn probe(options: Options) -> Result<(), Failure> {
    let addresses: Vec<_> = tokio::net::lookup_host(&options.address)
        .await
        .map_err(|error| Failure::Connect(format!("{}: {error}", options.address)))?
        .collect();
    // Apart from the check, so that a server that takes no connection is told from one that does
    // not answer. Of several addresses, the first that takes one is asked.
    let mut outcome = Err(Failure::Connect(format!("{}: no address", options.address)));
    let mut reached = None;
    for address in addresses {
        let tcp = config::Check::Tcp { port: None };
        outcome = Check::new(&tcp, address, options.timeout, None).run().await;
        if outcome.is_ok() {
            reached = Some(address);
            break;
        }
    }
    let Some(address) = reached else {
        return outcome;
    };
    let tls = options.tls.connector(&options.address).map_err(Failure::Local)?;
    let target = Target::new(address, tls);
    let check = if options.otlp {
        config::Check::Otlp { port: None, plain: false }
    } else if let Some(path) = options.http {
        config::Check::Http(HttpCheck { port: None, path, status: StatusCode::OK, plain: false })
    } else {
        let metadata: HeaderMap = options.metadata.into_iter().collect();
        // The name that was typed, for servers that tell virtual hosts apart.
        let authority = options.address.parse().ok();
        let service = options.service;
        config::Check::Grpc(GrpcCheck {
            port: None,
            service,
            metadata,
            authority,
            watch: config::Watch::Never,
            plain: false,
        })
    };
    Check::new(&check, target, options.timeout, None).run().await
}
