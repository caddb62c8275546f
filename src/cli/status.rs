//! `upbeat status`: the board of a running proxy as a table.

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use crate::admin::Status;

/// Arguments of `upbeat status`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The proxy's admin address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    admin: String,
}

/// Fetches `/status` and prints it.
pub(super) async fn run(options: &Options) -> anyhow::Result<()> {
    let Ok(body) = timeout(TIMEOUT, fetch(&options.admin)).await else {
        bail!("{}: no answer within {TIMEOUT:?}", options.admin);
    };
    let status: Status = serde_json::from_slice(&body?)
        .with_context(|| format!("{}: not an admin server of Upbeat", options.admin))?;
    super::say(&table(&status));
    Ok(())
}

async fn fetch(address: &str) -> anyhow::Result<Bytes> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {address}; is the proxy running?"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request =
        Request::get("/status").header(header::HOST, address).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    ensure!(status == StatusCode::OK, "{address} answered {status}");
    Ok(response.into_body().collect().await?.to_bytes())
}

/// Services first, then the endpoints that they are folded from.
fn table(status: &Status) -> String {
    let mut services = vec![["SERVICE", "STATUS", "SINCE", "WHY"].map(str::to_owned)];
    for service in &status.services {
        let name = if service.service.is_empty() { "\"\" (overall)" } else { &service.service };
        services.push([name, &service.status, &service.since, &service.reason].map(str::to_owned));
    }
    let mut endpoints = vec![["ENDPOINT", "HEALTH", "SINCE", "WHY"].map(str::to_owned)];
    for upstream in &status.upstreams {
        for endpoint in &upstream.endpoints {
            let name = format!("{}/{}", upstream.upstream, endpoint.endpoint);
            let words = [&endpoint.reason, &endpoint.note].map(String::as_str);
            let why = words.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>();
            let rest = [endpoint.health.clone(), endpoint.since.clone(), why.join("; ")];
            let [health, since, reason] = rest;
            endpoints.push([name, health, since, reason]);
        }
    }
    format!("{}\n{}", columns(&services), columns(&endpoints))
}

fn columns(rows: &[[String; 4]]) -> String {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let (a, b, c) = (width(0), width(1), width(2));
    let line = |row: &[String; 4]| {
        let line = format!("{:a$}  {:b$}  {:c$}  {}", row[0], row[1], row[2], row[3]);
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["A", "B", "C", "D"], ["long", "x", "y", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "A     B  C  D\nlong  x  y\n");
    }
}
