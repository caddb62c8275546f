//! The rules: from a document to a [`Config`], every problem on the way told.

mod health;
mod listener;
mod upstream;

use std::time::Duration;

use super::{
    Problem,
    checked::{Config, Upstream},
    document::Document,
    lines::Lines,
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
    let listeners = checker.listeners(
        document.listeners,
        &upstreams,
        &document.limits,
        document.health.not_serving_as,
    );
    let health = checker.health(document.health, &upstreams);
    let admin = document.admin;
    for (index, listener) in listeners.iter().enumerate() {
        if listener::overlap(listener.address, admin.address) {
            checker.problem(
                &format!("listeners[{index}].address"),
                format!("{} is also admin.address", listener.address),
            );
        }
    }
    Config {
        listeners,
        upstreams,
        health,
        drain: document.drain,
        admin,
        workers: document.workers,
        limits: document.limits,
        log: document.log,
    }
}

struct Checker<'a> {
    lines: &'a Lines,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    /// Adds a problem, unless the same place has one already: a value that could not be read
    /// would otherwise be called missing too.
    fn problem(&mut self, path: &str, message: impl Into<String>) {
        let covered = |problem: &Problem| {
            problem
                .path
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        if !self.problems.iter().any(covered) {
            self.problems.push(self.lines.problem(path, message.into()));
        }
    }

    /// The value, or a problem that says it is required.
    fn required<T>(&mut self, path: &str, value: Option<T>, what: &str) -> Option<T> {
        if value.is_none() {
            self.problem(path, format!("is required: {what}"));
        }
        value
    }

    fn positive(&mut self, path: &str, value: Duration) {
        if value.is_zero() {
            self.problem(path, "must be more than 0s");
        }
    }
}

fn unknown_upstream(name: &str, upstreams: &[Upstream]) -> String {
    let known: Vec<_> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    match known.is_empty() {
        true => format!("no upstream is named {name:?}"),
        false => format!("no upstream is named {name:?}: there is {}", known.join(", ")),
    }
}
