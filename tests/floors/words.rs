//! How documentation begins: the subject is the item, and a verb says what it does.

use std::collections::BTreeMap;

use crate::source::sources;

/// First words that say nothing, and how many doc comments of a module begin by them still. Only to be
/// made smaller.
const STILL: [(&str, usize); 23] = [
    ("admin", 24),
    ("answer", 3),
    ("app", 26),
    ("auth", 16),
    ("cli", 24),
    ("config", 113),
    ("demo", 2),
    ("discovery", 7),
    ("grpc", 16),
    ("health", 12),
    ("http2", 61),
    ("log", 1),
    ("metrics", 8),
    ("net", 10),
    ("probe", 21),
    ("refusals", 3),
    ("relay", 108),
    ("route", 16),
    ("shutdown", 1),
    ("tls", 13),
    ("upstream", 40),
    ("watchdog", 3),
    ("worker", 5),
];

const EMPTY: [&str; 5] = ["What", "Whether", "Those", "One", "Of"];

/// Doc comments that begin by an empty word, by module.
fn found() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources() {
        let lines: Vec<_> = source.text.lines().map(str::trim_start).collect();
        for (number, line) in lines.iter().enumerate() {
            let Some(text) = line.strip_prefix("/// ") else { continue };
            let begins = number == 0 || !lines[number - 1].starts_with("///");
            let first = text.split(|c: char| !c.is_alphanumeric()).next().unwrap();
            if begins && EMPTY.contains(&first) {
                let at = format!("{}:{}: {text}", source.name(), number + 1);
                found.entry(source.module.clone()).or_default().push(at);
            }
        }
    }
    found
}

#[test]
fn documentation_begins_by_what_it_is_about() {
    let found = found();
    let still = BTreeMap::from(STILL);
    for (module, lines) in &found {
        let most = still.get(module.as_str()).copied().unwrap_or_default();
        assert!(lines.len() <= most, "{module}: {} of {most}: {lines:#?}", lines.len());
    }
    for (module, most) in STILL {
        let count = found.get(module).map_or(0, Vec::len);
        assert_eq!(count, most, "{module}: it is less by now");
    }
}
