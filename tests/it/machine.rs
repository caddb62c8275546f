//! Faults of the machine under the real binary: each does no harm or ends the process loudly, and
//! none leaves green health behind.

mod child;
mod files;
mod log;
mod memory;
mod process;
mod stopped;
mod threads;

use std::{net::SocketAddr, time::Duration};

use tokio::time::timeout;

use self::process::Process;
use crate::{fixture::eventually, truth::Dialects};

/// A configuration with one listener in front of `endpoint`, and `more` sections.
fn config(endpoint: SocketAddr, more: &str) -> String {
    format!(
        r#"
listeners: [{{ name: otlp, address: "127.0.0.1:0", upstream: otlp }}]
upstreams:
  otlp:
    endpoints: ["{endpoint}"]
    probe: {{ interval: 300ms, timeout: 290ms, checks: [{{ tcp: {{}} }}] }}
admin: {{ address: "127.0.0.1:0" }}
drain: {{ delay: 0s, timeout: 2s }}
workers: 2
log: {{ format: json }}
{more}
"#
    )
}

/// Waits until every dialect says `serving`, on connections that are made anew each time.
async fn told_by_all(process: &Process, serving: bool) {
    let word = if serving { "SERVING" } else { "NOT_SERVING" };
    let asked = eventually(word, async || {
        let mut dialects = Dialects::at(process.address("otlp")).await;
        dialects.check().await == serving
            && dialects.others().await.iter().all(|(_, says)| *says == serving)
            && process.is_ready().await == serving
    });
    timeout(PATIENCE, asked).await.expect("an answer");
}

/// For what takes a moment.
const PATIENCE: Duration = Duration::from_secs(30);
