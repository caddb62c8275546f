//! On which line of the text each key stands.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser};

use super::Problem;

/// On which line each key of a text stands.
#[derive(Debug, Default)]
pub(super) struct Lines(HashMap<String, usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

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
