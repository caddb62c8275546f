//! The picture: CPU time a request, a panel for each load, as SVG.

use std::fmt::Write;

use super::{Report, Row};
use crate::{cell::Mode, request::Request, subject::Subject};

const WIDTH: usize = 860;
const MARGIN: usize = 24;
const PANEL: usize = (WIDTH - 3 * MARGIN) / 2;
const LABEL: usize = 68;
const FIGURE: usize = 64;
const BAR: usize = 18;
const STEP: usize = 25;
const TITLE: usize = 34;
const HEADING: usize = 66;

impl Report {
    /// Bars of what was measured in closed loops.
    pub(crate) fn picture(&self) -> String {
        let panels: Vec<_> = self.cells().filter(|rows| is_drawn(&rows[0])).collect();
        let mut body = String::new();
        let mut y = HEADING;
        for pair in panels.chunks(2) {
            let height = pair.iter().map(|rows| rows.len()).max().unwrap_or_default() * STEP;
            for (column, rows) in pair.iter().enumerate() {
                panel(&mut body, MARGIN + column * (PANEL + MARGIN), y, rows);
            }
            y += TITLE + height + MARGIN;
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" \
             width=\"{WIDTH}\" height=\"{y}\" font-family=\"system-ui, sans-serif\" \
             font-size=\"13\" fill=\"#1f2933\">\n\
             <rect width=\"{WIDTH}\" height=\"{y}\" fill=\"#ffffff\"/>\n\
             <text x=\"{MARGIN}\" y=\"32\" font-size=\"18\" font-weight=\"600\">\
             CPU time a request, in µs: less is better</text>\n\
             <text x=\"{MARGIN}\" y=\"52\" fill=\"#616e7c\">Trace exports over HTTP/2, one core \
             for the proxy; “L4 copy” knows no HTTP and is the bound.</text>\n\
             {body}</svg>\n"
        )
    }
}

fn is_drawn(row: &Row) -> bool {
    row.cell.mode == Mode::Closed
        && row.cell.growth.is_none()
        && matches!(row.cell.request, Request::Export { .. })
}

fn panel(out: &mut String, x: usize, y: usize, rows: &[Row]) {
    let cell = &rows[0].cell;
    let (connections, streams) = (cell.connections, cell.streams);
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{}\" font-weight=\"600\">{}<tspan fill=\"#616e7c\" \
         font-weight=\"400\">, {connections} × {streams} at a time</tspan></text>",
        y + 20,
        cell.name
    );
    let most = scale(rows);
    let room = (PANEL - LABEL - FIGURE) as f64;
    for (number, row) in rows.iter().enumerate() {
        let top = y + TITLE + number * STEP;
        let base = top + 14;
        let color = match row.subject {
            Subject::Upbeat => "#d9480f",
            Subject::L4 => "#cbd2d9",
            _ => "#829ab1",
        };
        let weight = if row.subject == Subject::Upbeat { "600" } else { "400" };
        let (length, figure) = match row.outcome.cpu_micros {
            Some(cpu) if row.is_sound() => {
                let digits = if cpu < 100.0 { 1 } else { 0 };
                ((cpu / most).min(1.0) * room, format!("{cpu:.digits$}"))
            }
            _ => (0.0, "errors".to_owned()),
        };
        let bar = x + LABEL;
        let _ = writeln!(
            out,
            "<text x=\"{x}\" y=\"{base}\" font-weight=\"{weight}\">{}</text>\
             <rect x=\"{bar}\" y=\"{top}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\" \
             fill=\"{color}\"/><text x=\"{:.1}\" y=\"{base}\" font-weight=\"{weight}\">{figure}\
             </text>",
            row.subject.name(),
            bar as f64 + length + 6.0
        );
        if row.outcome.cpu_micros.is_some_and(|cpu| cpu > most) {
            // A bar that is cut says so.
            let at = bar as f64 + length - 24.0;
            let (low, high) = (top + BAR + 2, top - 2);
            let _ = writeln!(
                out,
                "<path d=\"M{at:.1} {low} l6 -{0} M{1:.1} {low} l6 -{0}\" stroke=\"#ffffff\" \
                 stroke-width=\"2.5\"/>",
                low - high,
                at + 7.0
            );
        }
    }
}

/// What a whole bar stands for: one that is far longer than all others would make those
/// unreadable, and is cut.
fn scale(rows: &[Row]) -> f64 {
    let mut figures: Vec<f64> = rows.iter().filter_map(|row| row.outcome.cpu_micros).collect();
    figures.sort_by(|one, other| other.total_cmp(one));
    match figures[..] {
        [most, next, ..] if most > 2.0 * next => 1.3 * next,
        [most, ..] => most,
        [] => 1.0,
    }
}
