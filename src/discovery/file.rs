//! Endpoints in a file: read by its content, so that it may be written anew, moved over, or be a
//! link that is turned to another directory, as Kubernetes does it.

use std::{
    collections::BTreeSet, future::pending, net::SocketAddr, panic::resume_unwind, path::Path,
    time::Duration,
};

use serde::Deserialize;
use serde_yaml::Value;
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::Found;
use crate::config::{self, Endpoint};

/// Reads the file again and again, for as long as it is polled.
pub(super) async fn follow(config: config::File, mut found: Found) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let path = config.path.clone();
        let outcome = match spawn_blocking(move || parse(&read(&path)?)).await {
            Ok(outcome) => outcome,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // The process is about to end.
            Err(_) => return pending().await,
        };
        match outcome {
            Ok(endpoints) => found.publish(endpoints).await,
            Err(why) => found.fail(format!("cannot use {}: {why}", config.path.display())),
        }
    }
}

/// The file's content.
fn read(path: &Path) -> Result<String, String> {
    let content = config::read_bounded(path, LARGEST).map_err(|error| error.to_string())?;
    String::from_utf8(content).map_err(|error| error.to_string())
}

/// One of which more is said than its address.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    address: String,
    #[serde(default)]
    backup: bool,
}

/// The endpoints that the text lists.
fn parse(text: &str) -> Result<BTreeSet<Endpoint>, String> {
    let no_list = |error| format!("not a list of addresses: {error}");
    let items: Option<Vec<Value>> = serde_yaml::from_str(text).map_err(no_list)?;
    let items = items.unwrap_or_default().into_iter().map(|item| {
        let Section { address, backup } = match item {
            Value::Mapping(_) => serde_yaml::from_value(item),
            _ => serde_yaml::from_value(item).map(|address| Section { address, backup: false }),
        }
        .map_err(no_list)?;
        match address.parse::<SocketAddr>() {
            Ok(address) if address.port() > 0 => Ok(Endpoint { backup, address }),
            _ => Err(format!("{address:?} is not an IP address and port, such as 10.0.0.1:4317")),
        }
    });
    let endpoints: BTreeSet<_> = items.collect::<Result<_, String>>()?;
    match endpoints.first() {
        None => Err("it lists no endpoint".to_owned()),
        Some(first) if first.backup => Err("it lists backups only".to_owned()),
        Some(_) => Ok(endpoints),
    }
}

/// How often it is read.
const EVERY: Duration = Duration::from_secs(1);
/// The largest file, in bytes.
const LARGEST: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_and_json_are_read_in_any_order_and_twice_is_once() {
        let yaml = parse("- 10.0.0.2:4317 # b\n- \"10.0.0.1:4317\"\n- 10.0.0.2:4317\n").unwrap();
        let json = parse("[\"10.0.0.1:4317\", \"10.0.0.2:4317\"]").unwrap();
        assert_eq!((&yaml, yaml.len()), (&json, 2));
        assert!(parse("[\"[::1]:4317\"]").unwrap().first().unwrap().address.is_ipv6());
        let backup = "- { address: '10.0.0.1:4317', backup: true }\n- address: 10.0.0.2:4317\n";
        let all = parse(backup).unwrap();
        let words: Vec<_> = all.iter().map(ToString::to_string).collect();
        assert_eq!(words, ["10.0.0.2:4317", "10.0.0.1:4317 (backup)"]);
    }

    #[test]
    fn a_file_that_lists_no_endpoint_says_so() {
        for text in ["", "[]", "# nothing yet\n"] {
            assert_eq!(parse(text).unwrap_err(), "it lists no endpoint", "{text:?}");
        }
        let backup = "- { address: '10.0.0.1:4317', backup: true }";
        assert_eq!(parse(backup).unwrap_err(), "it lists backups only");
        for text in ["a: b", "- [1]", "- 10.0.0.1:4317\n- x: y", "[\"10.0.0.1:4317\""] {
            let why = parse(text).unwrap_err();
            assert!(why.starts_with("not a list of addresses: "), "{why}");
        }
        for text in ["[\"tempo:4317\"]", "[\"10.0.0.1\"]", "[\"10.0.0.1:0\"]"] {
            let why = parse(text).unwrap_err();
            assert!(why.ends_with("is not an IP address and port, such as 10.0.0.1:4317"), "{why}");
        }
    }
}
