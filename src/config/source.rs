//! From text to a document, with every problem of its shape at once.

mod secrets;
mod words;

use serde::Deserialize;
use serde_path_to_error::{Path, Segment};
use serde_yaml::{Mapping, Value};

pub(super) use self::secrets::conceal;
use super::{
    Problem, Problems,
    document::Document,
    lines::{Lines, join},
};

/// Reads `text` as a document. What cannot be read is reported, taken out, and the rest read
/// again, so that one call finds all of it.
///
/// # Errors
/// Text that is not YAML, or not a mapping, beyond which nothing can be said.
pub(super) fn read(text: &str) -> Result<(Document, Lines, Vec<Problem>), Problems> {
    let mut value: Value = serde_yaml::from_str(text).map_err(|error| not_yaml(text, &error))?;
    value.apply_merge().map_err(|error| not_yaml(text, &error))?;
    if value.is_null() {
        value = Value::Mapping(Mapping::new());
    }
    let lines = Lines::of(text);
    let mut problems: Vec<Problem> = Vec::new();
    loop {
        let mut track = serde_path_to_error::Track::new();
        let deserializer = serde_path_to_error::Deserializer::new(&value, &mut track);
        let error = match Document::deserialize(deserializer) {
            Ok(document) => return Ok((document, lines, problems)),
            Err(error) => error,
        };
        let path = track.path();
        let name = name(&path);
        let told = problems.iter().any(|problem| problem.path == name);
        if !told {
            let found = find(&mut value, path.iter());
            let message = words::explain(&error.to_string(), found.as_deref());
            problems.push(lines.problem(&name, message));
        }
        if !take_out(&mut value, &path, told) {
            return Err(Problems(problems));
        }
    }
}

fn not_yaml(text: &str, error: &serde_yaml::Error) -> Problems {
    let message = error.to_string();
    if message.contains("duplicate entry") {
        let twice = Lines::of(text).twice();
        if !twice.is_empty() {
            return Problems(twice);
        }
    }
    let line = error.location().map(|location| location.line());
    Problems(vec![Problem { path: String::new(), message: words::not_yaml(&message), line }])
}

/// The path as [`Lines`] writes it, which names the whole document "".
fn name(path: &Path) -> String {
    path.iter().fold(String::new(), |name, segment| match segment {
        Segment::Map { key } => join(&name, key),
        Segment::Seq { index } => format!("{name}[{index}]"),
        Segment::Enum { .. } | Segment::Unknown => name,
    })
}

fn find<'a, 'b>(
    value: &'a mut Value,
    mut path: impl Iterator<Item = &'b Segment>,
) -> Option<&'a mut Value> {
    path.try_fold(value, |node, segment| match segment {
        Segment::Map { key } => node.get_mut(key.as_str()),
        Segment::Seq { index } => node.get_mut(*index),
        Segment::Enum { .. } | Segment::Unknown => Some(node),
    })
}

/// Takes the node at `path` out of `value`. The items of a list keep their places: the one that
/// cannot be read becomes an empty mapping, then an empty string, and only where `tried` says that
/// neither can be read is the whole list taken out.
fn take_out(value: &mut Value, path: &Path, tried: bool) -> bool {
    let mut keys: Vec<&Segment> = path.iter().collect();
    while let Some(last) = keys.pop() {
        let Some(node) = find(value, keys.iter().copied()) else {
            return false;
        };
        match last {
            Segment::Map { key } => {
                return node.as_mapping_mut().is_some_and(|node| node.remove(key).is_some());
            }
            Segment::Seq { index } => match node.get_mut(*index) {
                Some(item) if item.is_mapping() => {
                    *item = Value::String(String::new());
                    return true;
                }
                Some(item) if !tried => {
                    *item = Value::Mapping(Mapping::new());
                    return true;
                }
                _ => {}
            },
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    false
}
