//! From text to a document, with every problem of its shape at once.

use serde::Deserialize;
use serde_path_to_error::{Path, Segment};
use serde_yaml::Value;

use super::{Problem, Problems, document::Document, lines::Lines};

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
