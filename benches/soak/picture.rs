//! The picture: figures over time, a panel each, with what was done behind them, as SVG.

use std::fmt::Write;

use tokio::time::Instant;

use crate::{samples::Sample, torment::Spell};

const WIDTH: f64 = 860.0;
const MARGIN: f64 = 24.0;
const HEADING: f64 = 86.0;
const PANEL: f64 = 96.0;
const STEP: f64 = PANEL + 40.0;
/// Points of a line at most: what lies between two is drawn by its highest.
const POINTS: usize = 800;

/// What was done, each with its colour.
const COLORS: [(&str, &str); 6] = [
    ("killed", "#ffc9c9"),
    ("frozen", "#a5d8ff"),
    ("slowed", "#ffec99"),
    ("restarted", "#d0bfff"),
    ("reloaded", "#b2f2bb"),
    ("certified", "#e9ecef"),
];

/// A panel: its name, and its figure.
type Panel = (&'static str, fn(&Sample) -> f64);

const PANELS: [Panel; 5] = [
    ("Resident memory, MiB", |it| it.memory as f64 / 1024.0),
    ("Descriptors", |it| it.descriptors as f64),
    ("Threads", |it| it.threads as f64),
    ("Calls a second", |it| it.calls),
    ("Failed calls a second, all of which an endpoint had", |it| it.failures),
];

pub(crate) fn draw(samples: &[Sample], spells: &[Spell], start: Instant, words: &str) -> String {
    let height = HEADING + PANELS.len() as f64 * STEP;
    let whole = samples.last().map_or(1.0, |it| it.at.as_secs_f64());
    let x = |seconds: f64| MARGIN + seconds / whole * (WIDTH - 2.0 * MARGIN);
    let mut body = String::new();
    for (number, (of, color)) in COLORS.iter().enumerate() {
        let at = MARGIN + number as f64 * 110.0;
        let _ = writeln!(
            body,
            "<rect x=\"{at}\" y=\"60\" width=\"12\" height=\"12\" fill=\"{color}\"/>\
             <text x=\"{}\" y=\"71\" fill=\"#616e7c\">{of}</text>",
            at + 18.0
        );
    }
    for (number, (name, figure)) in PANELS.iter().enumerate() {
        let top = HEADING + number as f64 * STEP + 24.0;
        let most = samples.iter().map(figure).fold(1.0, f64::max);
        let _ = writeln!(
            body,
            "<text x=\"{MARGIN}\" y=\"{}\" font-weight=\"600\">{name}<tspan fill=\"#616e7c\" \
             font-weight=\"400\">, at most {most:.0}</tspan></text>",
            top - 6.0
        );
        for spell in spells {
            let from = x((spell.from - start).as_secs_f64());
            let to = x((spell.to - start).as_secs_f64().min(whole));
            let color = COLORS.iter().find(|(of, _)| *of == spell.of).map_or("#eeeeee", |it| it.1);
            let _ = write!(
                body,
                "<rect x=\"{from:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{PANEL}\" \
                 fill=\"{color}\"/>",
                (to - from).max(0.5)
            );
        }
        let chunk = samples.len().div_ceil(POINTS).max(1);
        let points: Vec<_> = samples
            .chunks(chunk)
            .map(|part| {
                let value = part.iter().map(figure).fold(0.0, f64::max);
                let y = top + PANEL * (1.0 - value / most);
                format!("{:.1},{y:.1}", x(part[0].at.as_secs_f64()))
            })
            .collect();
        let _ = writeln!(
            body,
            "<rect x=\"{MARGIN}\" y=\"{top}\" width=\"{}\" height=\"{PANEL}\" fill=\"none\" \
             stroke=\"#cbd2d9\"/><polyline points=\"{}\" fill=\"none\" stroke=\"#d9480f\" \
             stroke-width=\"1.5\"/>",
            WIDTH - 2.0 * MARGIN,
            points.join(" ")
        );
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"13\" fill=\"#1f2933\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"{MARGIN}\" y=\"28\" font-size=\"18\" font-weight=\"600\">A soak of {:.0} \
         minutes</text>\n<text x=\"{MARGIN}\" y=\"48\" fill=\"#616e7c\">{words}</text>\n\
         {body}</svg>\n",
        whole / 60.0
    )
}
