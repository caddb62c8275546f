//! `upbeat status`: the board of a running proxy as a table, or as it would be.

use super::admin::Admin;
use crate::admin::{EndpointStatus, Simulation, Status, Transition};

/// Arguments of `upbeat status`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    admin: Admin,
    /// Tells what every service and dialect would answer if this were down: `down=UPSTREAM/ADDRESS`,
    /// or `down=UPSTREAM` for all its endpoints; may be given several times
    #[arg(long, value_name = "down=…", value_parser = down)]
    simulate: Vec<String>,
}

fn down(text: &str) -> Result<String, String> {
    match text.strip_prefix("down=") {
        Some(target) if !target.is_empty() => Ok(text.replace('[', "%5B").replace(']', "%5D")),
        _ => Err("expected down=UPSTREAM/ADDRESS or down=UPSTREAM".to_owned()),
    }
}

/// Fetches `/status`, or `/simulate`, and prints it.
pub(super) async fn run(options: &Options) -> anyhow::Result<()> {
    let text = if options.simulate.is_empty() {
        table(&options.admin.fetch::<Status>("/status", None).await?)
    } else {
        let path = format!("/simulate?{}", options.simulate.join("&"));
        simulated(&options.admin.fetch::<Simulation>(&path, None).await?)
    };
    super::say(&text);
    Ok(())
}

/// Services first, then the endpoints that they are folded from, then what changed last.
fn table(status: &Status) -> String {
    let mut changes = Vec::new();
    let mut services = vec![["SERVICE", "STATUS", "SINCE", "WHY"].map(str::to_owned)];
    for service in &status.services {
        let name = named(&service.service);
        services.push([name, &service.status, &service.since, &service.reason].map(str::to_owned));
        changes.extend(service.history.iter().map(|change| (name.to_owned(), change)));
    }
    let mut endpoints = vec![["ENDPOINT", "HEALTH", "SINCE", "WHY"].map(str::to_owned)];
    for upstream in &status.upstreams {
        if !upstream.note.is_empty() {
            endpoints.push([&upstream.upstream, "", "", &upstream.note].map(str::to_owned));
        }
        for endpoint in &upstream.endpoints {
            let name = format!("{}/{}", upstream.upstream, endpoint.endpoint);
            let why = why(endpoint);
            changes.extend(endpoint.history.iter().map(|change| (name.clone(), change)));
            let rest = [endpoint.health.clone(), endpoint.since.clone(), why];
            let [health, since, reason] = rest;
            endpoints.push([name, health, since, reason]);
        }
    }
    let mut table = format!("{}\n{}", columns(&services), columns(&endpoints));
    if !changes.is_empty() {
        table.push('\n');
        table.push_str(&columns(&last(changes)));
    }
    table
}

/// All that is to be said of an endpoint beside its health.
fn why(endpoint: &EndpointStatus) -> String {
    let ejected = endpoint
        .ejected
        .as_ref()
        .map(|it| format!("ejected ({}) until a probe passes after {}", it.reason, it.until));
    let backup = endpoint.backup.then(|| "backup".to_owned());
    let probed = [&endpoint.reason, &endpoint.note].into_iter().filter(|it| !it.is_empty());
    let words: Vec<_> = probed.cloned().chain(ejected).chain(backup).collect();
    words.join("; ")
}

/// The last changes of all, the newest first.
fn last(mut changes: Vec<(String, &Transition)>) -> Vec<[String; 4]> {
    // RFC 3339 in UTC: in the order of their text.
    changes.sort_by(|(_, a), (_, b)| b.at.cmp(&a.at));
    let rows = changes.into_iter().take(CHANGES).map(|(name, change)| {
        [
            change.at.clone(),
            name,
            format!("{} -> {}", change.from, change.to),
            change.evidence.clone(),
        ]
    });
    let head = ["CHANGED", "WHAT", "HOW", "EVIDENCE"].map(str::to_owned);
    std::iter::once(head).chain(rows).collect()
}

/// What each listener would answer, then why.
fn simulated(simulation: &Simulation) -> String {
    let heads = ["LISTENER", "SERVICE", "CHECK", "CHECK BY ALB", "WATCH", "GET", "ALB"];
    let mut answers = vec![heads.map(str::to_owned)];
    for it in &simulation.answers {
        let row = [
            &it.listener,
            named(&it.service),
            &it.check,
            &it.check_by_alb,
            &it.watch,
            &it.get,
            &it.alb,
        ];
        answers.push(row.map(str::to_owned));
    }
    let mut services = vec![["SERVICE", "STATUS", "WHY"].map(str::to_owned)];
    for it in &simulation.services {
        services.push([named(&it.service), &it.status, &it.reason].map(str::to_owned));
    }
    format!("{}\n{}", columns(&answers), columns(&services))
}

fn named(service: &str) -> &str {
    if service.is_empty() { "\"\" (overall)" } else { service }
}

/// Rows whose columns stand below each other.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Changes that are shown.
const CHANGES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ejection_is_told_beside_what_probes_saw() {
        let text = r#"{ "endpoint": "", "health": "healthy", "since": "", "reason": "", "note": "a note",
            "backup": true, "in_flight": 0, "ejected": { "reason": "reset", "until": "12:00" } }"#;
        let endpoint = serde_json::from_str(text).unwrap();
        let words = "a note; ejected (reset) until a probe passes after 12:00; backup";
        assert_eq!(why(&endpoint), words);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["A", "B", "C", "D"], ["long", "x", "y", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "A     B  C  D\nlong  x  y\n");
    }
}
