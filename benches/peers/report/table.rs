//! The table, as Markdown.

use std::fmt::Write;

use super::{Report, Row, best};
use crate::cell::Mode;

const TITLES: [&str; 12] = [
    "load",
    "subject",
    "requests/s",
    "core %",
    "CPU µs each",
    "of best peer",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "peak MiB",
    "KiB a connection",
    "errors",
];

impl Report {
    /// One table of everything, and what is needed to read it.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec![TITLES.map(str::to_owned)];
        for rows in self.cells() {
            let best = best(rows);
            lines.extend(rows.iter().map(|row| line(row, best)));
        }
        for subject in &self.missing {
            let mut line = [(); TITLES.len()].map(|()| "—".to_owned());
            line[0] = "all".to_owned();
            line[1] = subject.name().to_owned();
            line[2] = "missing: benches/install".to_owned();
            lines.push(line);
        }
        let mut text = aligned(&lines);
        text.push('\n');
        text.push_str(&self.growth());
        for installed in &self.installed {
            let _ = writeln!(text, "- {}: {}", installed.subject.name(), installed.version);
        }
        let Self { extent, kernel, processor, seconds, .. } = self;
        let _ = writeln!(
            text,
            "\n{extent}, {seconds} s, on {processor}, Linux {kernel}; one core for the proxy, \
             another for load and backend. Medians of the runs; the worst peak; all errors. \
             Where the proxy's core has time left in a closed loop, load and backend were the \
             limit: then requests/s say nothing of the proxy, and CPU time still does. Latency \
             says something where calls come at a rate; elsewhere it is what the number of calls \
             at a time makes of the speed. More than one error in a thousand keeps a peer from \
             being the best."
        );
        text
    }
}

fn line(row: &Row, best: Option<f64>) -> [String; TITLES.len()] {
    let outcome = &row.outcome;
    let some = |figure: Option<f64>, digits: usize| match figure {
        Some(figure) => format!("{figure:.digits$}"),
        None => "—".to_owned(),
    };
    let cpu_digits = if outcome.cpu_micros.is_some_and(|cpu| cpu >= 100.0) { 0 } else { 1 };
    let latency = outcome.latency_ms;
    let cell = &row.cell;
    let name = match cell.mode {
        Mode::Idle | Mode::Connect | Mode::Memory(_) => {
            format!("{}, {}", cell.name, cell.connections)
        }
        _ => format!("{}, {}×{}", cell.name, cell.connections, cell.streams),
    };
    [
        name,
        row.subject.name().to_owned(),
        some((outcome.per_second > 0.0).then_some(outcome.per_second), 0),
        some(outcome.cpu_micros.map(|cpu| cpu * outcome.per_second / 1e4), 0),
        some(outcome.cpu_micros, cpu_digits),
        some(row.cost().zip(best).map(|(cost, best)| cost / best), 2),
        some(latency.map(|latency| latency.p50), 2),
        some(latency.map(|latency| latency.p99), 2),
        some(latency.map(|latency| latency.p999), 2),
        some((outcome.peak_kib > 0).then_some(outcome.peak_kib as f64 / 1024.0), 0),
        some(outcome.kib_per_connection, 1),
        errors(row),
    ]
}

/// How many errors, and what most of them were.
fn errors(row: &Row) -> String {
    let most = row.outcome.errors.iter().max_by_key(|(_, count)| **count);
    match most {
        None => "0".to_owned(),
        Some((why, _)) => {
            let why: String = why.lines().next().unwrap_or_default().chars().take(60).collect();
            let why = why.replace('|', "/");
            format!("{} ({why})", row.outcome.error_count())
        }
    }
}

/// Cells padded to columns, figures to the right. Words are in the first two and the last.
pub(super) fn aligned<const COLUMNS: usize>(lines: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let is_text = |column: usize| column < 2 || column == COLUMNS - 1;
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let _ = match is_text(column) {
                true => write!(text, "| {cell:<width$} "),
                false => write!(text, "| {cell:>width$} "),
            };
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let right = if is_text(column) { "-" } else { ":" };
                let _ = write!(text, "|{}{right}", "-".repeat(width + 1));
            }
            text.push_str("|\n");
        }
    }
    text
}
