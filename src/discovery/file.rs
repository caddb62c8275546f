//! Endpoints in a file: read by its content, so that it may be written anew, moved over, or be a
//! link that is turned to another directory, as Kubernetes does it.

use std::{
    collections::BTreeSet, fs, future::pending, io::Read, net::SocketAddr, panic::resume_unwind,
    path::Path, time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::Found;
use crate::config;

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
            Ok(addresses) => found.publish(addresses),
            Err(why) => found.fail(format!("cannot use {}: {why}", config.path.display())),
        }
    }
}

/// The file's content, of which there must not be too much.
fn read(path: &Path) -> Result<String, String> {
    let kind = |error: std::io::Error| error.kind().to_string();
    // A pipe would wait for its writer.
    if !fs::metadata(path).map_err(kind)?.is_file() {
        return Err("not a file".to_owned());
    }
    let mut text = String::new();
    let file = fs::File::open(path).map_err(kind)?;
    let bytes = file.take(LARGEST + 1).read_to_string(&mut text).map_err(kind)?;
    match bytes as u64 > LARGEST {
        true => Err(format!("more than {LARGEST} bytes")),
        false => Ok(text),
    }
}

/// The addresses that the text lists.
fn parse(text: &str) -> Result<BTreeSet<SocketAddr>, String> {
    let lines: Option<Vec<String>> =
        serde_yaml::from_str(text).map_err(|error| format!("not a list of addresses: {error}"))?;
    let lines = lines.unwrap_or_default();
    let parsed = lines.iter().map(|line| match line.parse::<SocketAddr>() {
        Ok(address) if address.port() > 0 => Ok(address),
        _ => Err(format!("{line:?} is not an IP address and port, such as 10.0.0.1:4317")),
    });
    let addresses: BTreeSet<_> = parsed.collect::<Result<_, _>>()?;
    if addresses.is_empty() {
        return Err("it lists no endpoint".to_owned());
    }
    Ok(addresses)
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
        assert!(parse("[\"[::1]:4317\"]").unwrap().first().unwrap().is_ipv6());
    }

    #[test]
    fn a_file_that_lists_no_endpoint_says_so() {
        for text in ["", "[]", "# nothing yet\n"] {
            assert_eq!(parse(text).unwrap_err(), "it lists no endpoint", "{text:?}");
        }
        for text in ["a: b", "- [1]", "- 10.0.0.1:4317\n- x: y", "[\"10.0.0.1:4317\""] {
            let why = parse(text).unwrap_err();
            assert!(why.starts_with("not a list of addresses: "), "{why}");
        }
        for text in ["[\"tempo:4317\"]", "[\"10.0.0.1\"]", "[\"10.0.0.1:0\"]"] {
            let why = parse(text).unwrap_err();
            assert!(why.ends_with("is not an IP address and port, such as 10.0.0.1:4317"), "{why}");
        }
    }

    #[test]
    fn only_a_file_of_bounded_size_is_read() {
        assert_eq!(read(Path::new("src")).unwrap_err(), "not a file");
        assert_eq!(read(Path::new("no such file")).unwrap_err(), "entity not found");
    }
}
