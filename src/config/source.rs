//! From text to a document: environment substitution, lines, and every problem of shape at once.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser};
use serde::Deserialize;
use serde_path_to_error::{Path, Segment};
use serde_yaml::Value;

use super::{Problem, Problems, document::Document};

/// Replaces `${NAME}` and `${NAME:-default}`; `$${` stands for `${`. Comment lines stay as they
/// are, and so does a `$` that no `{` follows.
///
/// # Errors
/// Names that are not set and have no default, and values of more than one line.
pub(super) fn substitute(
    text: &str,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<String, Problems> {
    let mut out = String::with_capacity(text.len());
    let mut problems = Vec::new();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if line.trim_start().starts_with('#') {
            out.push_str(line);
            continue;
        }
        let mut problem = |path: &str, message: &str| {
            problems.push(Problem {
                path: path.to_owned(),
                message: message.to_owned(),
                line: Some(index + 1),
            });
        };
        let mut rest = line;
        while let Some(at) = rest.find("${") {
            if at > 0 && rest.as_bytes()[at - 1] == b'$' {
                out.push_str(&rest[..at - 1]);
                out.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            out.push_str(&rest[..at]);
            let Some(end) = rest[at..].find('}').map(|end| at + end) else {
                problem("${", "has no closing }");
                rest = "";
                break;
            };
            let reference = &rest[at..=end];
            let inner = &rest[at + 2..end];
            let (name, default) = match inner.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (inner, None),
            };
            // As in a shell, a name that is set but empty takes the default too.
            let value = environment(name).filter(|value| default.is_none() || !value.is_empty());
            match value.as_deref().or(default) {
                Some(value) if value.contains(['\n', '\r']) => {
                    problem(reference, "the value has more than one line");
                }
                Some(value) => out.push_str(value),
                None => problem(reference, "is not set, and has no default (${NAME:-default})"),
            }
            rest = &rest[end + 1..];
        }
        out.push_str(rest);
    }
    if problems.is_empty() { Ok(out) } else { Err(Problems(problems)) }
}

/// Reads `text` as a document. A key that cannot be read is reported, taken out, and the rest read
/// again, so that one call finds all of them.
///
/// # Errors
/// Text that is no YAML, or not a mapping, beyond which nothing can be said.
pub(super) fn read(text: &str) -> Result<(Document, Lines, Vec<Problem>), Problems> {
    let syntax = |error: &serde_yaml::Error| {
        let line = error.location().map(|location| location.line());
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        Problems(vec![Problem { path: String::new(), message, line }])
    };
    let mut value: Value = serde_yaml::from_str(text).map_err(|error| syntax(&error))?;
    value.apply_merge().map_err(|error| syntax(&error))?;
    if value.is_null() {
        value = Value::Mapping(serde_yaml::Mapping::new());
    }
    let lines = Lines::of(text);
    let mut problems = Vec::new();
    loop {
        let mut track = serde_path_to_error::Track::new();
        let deserializer = serde_path_to_error::Deserializer::new(&value, &mut track);
        let error = match Document::deserialize(deserializer) {
            Ok(document) => return Ok((document, lines, problems)),
            Err(error) => error,
        };
        let path = track.path();
        problems.push(lines.problem(&name(&path), teach(&error.to_string())));
        if !remove(&mut value, &path) {
            return Err(Problems(problems));
        }
    }
}

/// On which line each key of a text stands.
#[derive(Debug, Default)]
pub(super) struct Lines(HashMap<String, usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let mut lines = Self::default();
        let mut events = Parser::new_from_str(text).filter_map(|event| {
            event.ok().map(|(event, span)| match event {
                Event::Scalar(value, ..) => (Node::Scalar(value.into_owned()), span.start.line()),
                Event::SequenceStart(..) => (Node::Sequence, span.start.line()),
                Event::MappingStart(..) => (Node::Mapping, span.start.line()),
                Event::SequenceEnd | Event::MappingEnd => (Node::End, span.start.line()),
                Event::Alias(_) => (Node::Scalar(String::new()), span.start.line()),
                _ => (Node::Mark, span.start.line()),
            })
        });
        let root = events.by_ref().find(|(node, _)| !matches!(node, Node::Mark));
        if let Some((node, _)) = root {
            lines.walk("", node, &mut events);
        }
        lines
    }

    fn walk(&mut self, path: &str, node: Node, events: &mut dyn Iterator<Item = (Node, usize)>) {
        match node {
            Node::Mapping => {
                while let Some((Node::Scalar(key), line)) = events.next() {
                    let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                    self.0.insert(path.clone(), line);
                    match events.next() {
                        Some((node, _)) => self.walk(&path, node, events),
                        None => return,
                    }
                }
            }
            Node::Sequence => {
                for index in 0.. {
                    match events.next() {
                        None | Some((Node::End, _)) => return,
                        Some((node, line)) => {
                            let path = format!("{path}[{index}]");
                            self.0.insert(path.clone(), line);
                            self.walk(&path, node, events);
                        }
                    }
                }
            }
            Node::Scalar(_) | Node::End | Node::Mark => {}
        }
    }

    /// A problem at `path`, on its line or on that of the nearest key above it.
    pub(super) fn problem(&self, path: &str, message: String) -> Problem {
        let mut at = path;
        let line = loop {
            if let Some(line) = self.0.get(at) {
                break Some(*line);
            }
            match at.rfind(['.', '[']) {
                Some(end) => at = &at[..end],
                None => break None,
            }
        };
        Problem { path: path.to_owned(), message, line }
    }
}

enum Node {
    Scalar(String),
    Sequence,
    Mapping,
    End,
    Mark,
}

/// The path as [`Lines`] writes it, which names the whole document "".
fn name(path: &Path) -> String {
    let name = path.to_string();
    if name == "." { String::new() } else { name }
}

/// serde's words where they name Rust's types and not what the file should say.
fn teach(message: &str) -> String {
    let mut message = message.to_owned();
    for (theirs, ours) in [
        ("struct Document", "a mapping of sections"),
        ("invalid socket address syntax", "expected an IP address and port, such as 0.0.0.0:4317"),
        ("expected a sequence", "expected a list"),
    ] {
        message = message.replace(theirs, ours);
    }
    // "struct PortOnly" and its like: the reader knows them as mappings.
    while let Some(at) = message.find("struct ") {
        let end = message[at + 7..]
            .find(|c: char| !c.is_ascii_alphanumeric())
            .map_or(message.len(), |end| at + 7 + end);
        message.replace_range(at..end, "a mapping");
    }
    message
}

/// Takes the node at `path` out of `value`: the key of a mapping, or the whole of a list, whose
/// other items would otherwise move up and be reported in the wrong place.
fn remove(value: &mut Value, path: &Path) -> bool {
    let mut keys: Vec<&Segment> = path.iter().collect();
    while let Some(Segment::Seq { .. } | Segment::Enum { .. } | Segment::Unknown) = keys.last() {
        keys.pop();
    }
    let Some((Segment::Map { key: last }, parents)) = keys.split_last() else {
        return false;
    };
    let mut node = value;
    for segment in parents {
        let next = match segment {
            Segment::Map { key } => node.get_mut(key.as_str()),
            Segment::Seq { index } => node.get_mut(*index),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        match next {
            Some(next) => node = next,
            None => return false,
        }
    }
    node.as_mapping_mut().is_some_and(|mapping| mapping.remove(last.as_str()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "PORT" => Some("4317".to_owned()),
            "EMPTY" => Some(String::new()),
            "LINES" => Some("a\nb".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn environment_is_substituted_with_defaults_and_escapes() {
        let text = "a: ${PORT}\n# ${UNSET}\nb: ${UNSET:-x}${EMPTY:-y}\nc: $${PORT} $5\n";
        let out = substitute(text, environment).unwrap();
        assert_eq!(out, "a: 4317\n# ${UNSET}\nb: xy\nc: ${PORT} $5\n");
    }

    #[test]
    fn what_cannot_be_substituted_is_said_with_its_line() {
        let problems = substitute("a: 1\nb: ${UNSET}\nc: ${LINES}\nd: ${PORT", environment);
        let said: Vec<_> = problems.unwrap_err().0.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "${UNSET}: is not set, and has no default (${NAME:-default}), line 2",
                "${LINES}: the value has more than one line, line 3",
                "${: has no closing }, line 4",
            ]
        );
    }

    #[test]
    fn every_key_has_its_line_in_block_and_flow_style() {
        let lines = Lines::of("# top\na:\n  - b: 1\n    c: { d: [1,\n      2] }\ne: x\n");
        for (path, line) in [("a", 2), ("a[0].b", 3), ("a[0].c.d[1]", 5), ("e", 6)] {
            assert_eq!(lines.0.get(path), Some(&line), "{path}");
        }
    }

    #[test]
    fn a_key_that_is_missing_stands_on_its_parents_line() {
        let lines = Lines::of("a:\n  - b: 1\n");
        assert_eq!(lines.problem("a[0].x.y", String::new()).line, Some(2));
    }
}
