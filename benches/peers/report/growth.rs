//! The second table: CPU time a request with much of something, beside that with little of it.

use super::{Report, Row, table::aligned};

const TITLES: [&str; 7] = ["growth", "subject", "from", "to", "CPU µs", "ratio", "target"];

impl Report {
    /// A line for each series and subject; nothing where no series was measured.
    pub(super) fn growth(&self) -> String {
        let mut lines = vec![TITLES.map(str::to_owned)];
        for (number, first) in self.rows.iter().enumerate() {
            let of_series = |row: &&Row| {
                row.subject == first.subject && row.cell.series() == first.cell.series()
            };
            let Some(series) = first.cell.series() else { continue };
            if self.rows[..number].iter().any(|row| of_series(&row)) {
                continue;
            }
            let more = self.rows[number + 1..].iter().filter(of_series);
            lines.extend(more.filter_map(|last| line(series, first, last)));
        }
        if lines.len() == 1 {
            return String::new();
        }
        aligned(&lines) + "\n"
    }
}

fn line(series: &str, first: &Row, last: &Row) -> Option<[String; TITLES.len()]> {
    let [from, to] = [first.cell.growth?, last.cell.growth?];
    let [before, after] = [first.outcome.cpu_micros?, last.outcome.cpu_micros?];
    let target = to.of.target();
    let errors = first.outcome.error_count() + last.outcome.error_count();
    let verdict = match after / before <= target {
        _ if errors > 0 => format!("≤ {target}: {errors} errors"),
        true => format!("≤ {target}"),
        false => format!("≤ {target}: missed"),
    };
    Some([
        series.trim_start_matches("growth: ").to_owned(),
        first.subject.name().to_owned(),
        from.to.to_string(),
        to.to.to_string(),
        format!("{before:.2} → {after:.2}"),
        format!("{:.2}", after / before),
        verdict,
    ])
}
