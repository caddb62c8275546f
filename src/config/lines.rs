//! On which line of the text each key stands.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser};

use super::Problem;

/// On which line each key of a text stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Lines {
    at: HashMap<String, usize>,
    twice: Vec<Problem>,
}

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        let mut lines = Self::default();
        let mut events = Parser::new_from_str(text).map_while(Result::ok).map(|(event, span)| {
            let node = match event {
                Event::Scalar(value, ..) => Node::Scalar(value.into_owned()),
                Event::SequenceStart(..) => Node::Sequence,
                Event::MappingStart(..) => Node::Mapping,
                Event::SequenceEnd | Event::MappingEnd => Node::End,
                Event::Alias(_) => Node::Scalar(String::new()),
                _ => Node::Mark,
            };
            (node, span.start.line())
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
                    let path = join(path, &key);
                    if let Some(first) = self.at.insert(path.clone(), line) {
                        let message = format!("is given in line {first} already");
                        self.twice.push(self.problem(&path, message));
                    }
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
                            self.at.insert(path.clone(), line);
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
            if let Some(line) = self.at.get(at) {
                break Some(*line);
            }
            match at.rfind(['.', '[']) {
                Some(end) => at = &at[..end],
                None => break None,
            }
        };
        Problem { path: path.to_owned(), message, line }
    }

    /// Keys that one mapping has twice.
    pub(super) fn twice(self) -> Vec<Problem> {
        self.twice
    }
}

/// `path.key`, with quotes around a key that is empty or would look like more than one.
pub(super) fn join(path: &str, key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let dot = if path.is_empty() { "" } else { "." };
    if !key.is_empty() && key.bytes().all(plain) {
        format!("{path}{dot}{key}")
    } else {
        format!("{path}{dot}\"{key}\"")
    }
}

enum Node {
    Scalar(String),
    Sequence,
    Mapping,
    End,
    Mark,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_line_in_block_and_flow_style() {
        let lines = Lines::of("# top\na:\n  - b: 1\n    c: { d: [1,\n      2] }\ne: x\n");
        for (path, line) in [("a", 2), ("a[0].b", 3), ("a[0].c.d[1]", 5), ("e", 6)] {
            assert_eq!(lines.at.get(path), Some(&line), "{path}");
        }
    }

    #[test]
    fn keys_that_are_not_plain_words_are_quoted() {
        assert_eq!(join("a", "x-b_1"), "a.x-b_1");
        assert_eq!(join("a", ""), "a.\"\"");
        assert_eq!(join("", "b.C"), "\"b.C\"");
    }

    #[test]
    fn key_of_a_mapping_is_told_the_second_time() {
        let twice = Lines::of("a:\n  b: 1\n  c: 2\n  b: 3\nb: 4\n").twice();
        assert_eq!(twice.len(), 1);
        assert_eq!(twice[0].to_string(), "a.b: is given in line 2 already, line 4");
    }

    #[test]
    fn a_key_that_is_missing_stands_on_its_parents_line() {
        let lines = Lines::of("a:\n  - b: 1\n");
        assert_eq!(lines.problem("a[0].x.y", String::new()).line, Some(2));
    }
}
