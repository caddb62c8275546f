//! The rules: from a document to a [`Config`], every problem on the way told.

mod access;
mod admin;
mod auth;
mod discovery;
mod health;
mod jwt;
mod limits;
mod listener;
mod overload;
mod route;
mod tls;
mod upstream;

use std::time::Duration;

use super::{
    Problem,
    checked::{Config, Upstream},
    document::Document,
    lines::{Lines, join},
    written::Written,
};

/// Turns a document into a [`Config`]. Where it adds to `problems`, the result is not to be used.
pub(super) fn check(document: Document, lines: &Lines, problems: &mut Vec<Problem>) -> Config {
    let mut checker = Checker { lines, problems };
    let upstreams: Vec<_> =
        document.upstreams.into_iter().map(|(name, raw)| checker.upstream(name, raw)).collect();
    if upstreams.is_empty() {
        checker.problem("upstreams", "at least one upstream is required");
    }
    if document.listeners.is_empty() {
        checker.problem("listeners", "at least one listener is required");
    }
    checker.limits(&document.limits);
    let listeners =
        checker.listeners(document.listeners, &upstreams, &document.limits, &document.health);
    let health = checker.health(document.health, &upstreams);
    let admin = checker.admin(document.admin);
    for (index, listener) in listeners.iter().enumerate() {
        if listener::overlap(listener.address, admin.address) {
            checker.problem(
                &format!("listeners[{index}].address"),
                format!("{} is taken by admin.address ({})", listener.address, admin.address),
            );
        }
    }
    checker.positive("reload.interval", Some(document.reload.interval));
    Config {
        listeners,
        upstreams,
        health,
        drain: document.drain,
        admin,
        workers: document.workers,
        limits: document.limits,
        reload: document.reload,
        log: document.log,
        written: Written::default(),
        lines: Lines::default(),
    }
}

struct Checker<'a> {
    lines: &'a Lines,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    /// Adds a problem, unless one is told already in the same place, above it or below it: a value
    /// that could not be read would otherwise be called missing too.
    fn problem(&mut self, path: &str, message: impl Into<String>) {
        let told =
            self.problems.iter().any(|told| within(path, &told.path) || within(&told.path, path));
        if !told {
            self.problems.push(self.lines.problem(path, message.into()));
        }
    }

    /// Whether a problem of this very place is told.
    fn is_told(&self, path: &str) -> bool {
        self.problems.iter().any(|problem| problem.path == path)
    }

    /// The value, or a problem that says it is required.
    fn required<T>(&mut self, path: &str, value: Option<T>, what: &str) -> Option<T> {
        if value.is_none() {
            self.problem(path, format!("is required: {what}"));
        }
        value
    }

    fn at_least_one(&mut self, path: &str, value: Option<u32>) {
        if value == Some(0) {
            self.problem(path, "must be at least 1");
        }
    }

    fn positive(&mut self, path: &str, value: Option<Duration>) {
        if value.is_some_and(|value| value.is_zero()) {
            self.problem(path, "must be more than 0s");
        }
        self.at_most_a_year(path, value);
    }

    fn at_most_a_year(&mut self, path: &str, value: Option<Duration>) {
        if value.is_some_and(|value| value > YEAR) {
            self.problem(path, "must be at most a year (365d)");
        }
    }

    /// The upstream that the key at `path` names.
    fn upstream_named<'a>(
        &mut self,
        path: &str,
        name: &str,
        upstreams: &'a [Upstream],
    ) -> Option<&'a Upstream> {
        let found = upstreams.iter().find(|upstream| upstream.name == name);
        // One that could not be read is not missing.
        if found.is_none() && !self.is_told("upstreams") && !self.is_told(&join("upstreams", name))
        {
            let known: Vec<_> = upstreams.iter().map(|it| format!("{:?}", it.name)).collect();
            let expected = match known.len() {
                0 => String::new(),
                1 => format!(", expected {}", known[0]),
                _ => format!(", expected one of {}", known.join(", ")),
            };
            self.problem(path, format!("no upstream is named {name:?}{expected}"));
        }
        found
    }
}

/// Whether `path` is `section` or something in it.
fn within(path: &str, section: &str) -> bool {
    let rest = path.strip_prefix(section);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The longest duration that makes sense here; much longer ones overflow clocks.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
