//! The table.

use std::fmt::Write;

use serde::Serialize;

use crate::scene::{Figure, P99};

/// How a row went.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) row: &'static str,
    pub(crate) attack: &'static str,
    pub(crate) peer: String,
    pub(crate) figures: Vec<Figure>,
    pub(crate) failure: Option<String>,
    pub(crate) seconds: f64,
}

impl Outcome {
    /// Whether every figure is within its bound.
    pub(crate) fn ok(&self) -> bool {
        self.failure.is_none() && self.figures.iter().all(|figure| figure.ok)
    }

    /// Whether only the victim's latency is over.
    pub(crate) fn is_late_only(&self) -> bool {
        let late = |figure: &Figure| figure.ok || figure.name == P99;
        !self.ok() && self.failure.is_none() && self.figures.iter().all(late)
    }

    /// Its line of the table.
    pub(crate) fn line(&self) -> String {
        let word = if self.ok() { "ok  " } else { "OVER" };
        let mut line = format!("{word} {:>4} {:5.1} s  {}:", self.row, self.seconds, self.attack);
        for (index, figure) in self.figures.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            _ = write!(line, "{comma} {figure}");
        }
        if let Some(failure) = &self.failure {
            _ = write!(line, " FAILED: {failure}");
        }
        line
    }
}
