//! The architecture: each module imports lower floors only, as the page in `src/lib.rs` has it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// From the ground up; no module imports another of its own floor.
const FLOORS: [&[&str]; 9] = [
    &["config"],
    &["http2", "grpc", "net", "tls", "metrics", "shutdown", "log"],
    &["upstream", "refusals", "watchdog"],
    &["health"],
    &["route", "auth", "answer", "probe", "discovery"],
    &["relay"],
    &["worker", "admin"],
    &["app", "demo"],
    &["main", "cli"],
];

/// Imports of one floor by itself that the picture shows: `demo` starts an `app`.
const BESIDE: [(&str, &str); 1] = [("demo", "app")];

/// Downward imports that are forbidden all the same.
const NEVER: [(&str, &str); 2] = [("answer", "upstream"), ("relay", "probe")];

fn floors() -> BTreeMap<&'static str, usize> {
    let floor = |(floor, names): (usize, &&'static [&'static str])| {
        names.iter().map(move |name| (*name, floor)).collect::<Vec<_>>()
    };
    FLOORS.iter().enumerate().flat_map(floor).collect()
}

/// Every source file with the top-level module that it belongs to.
fn files(directory: &Path, module: Option<&str>) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let module = module.unwrap_or(stem);
        if path.is_dir() {
            found.extend(files(&path, Some(module)));
        } else {
            found.push((module.to_owned(), path));
        }
    }
    found
}

/// Top-level modules that a text imports by `use crate::…`, in groups too.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in text.split("use crate::").skip(1) {
        let statement = rest.split(';').next().unwrap();
        match statement.strip_prefix('{') {
            None => found.push(statement.to_owned()),
            Some(group) => {
                let mut depth = 0;
                let mut item = String::new();
                for character in group.chars() {
                    match character {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => found.push(std::mem::take(&mut item)),
                        _ => {}
                    }
                    item.push(character);
                }
                found.push(item);
            }
        }
    }
    let word = |item: String| {
        let item = item.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
        item.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned()
    };
    found.into_iter().map(word).filter(|name| !name.is_empty()).collect()
}

#[test]
fn modules_import_lower_floors_only() {
    let floors = floors();
    let mut seen = 0;
    for (module, path) in files(Path::new("src"), None) {
        if module == "lib" {
            continue;
        }
        let floor = floors.get(module.as_str());
        let floor = *floor.unwrap_or_else(|| panic!("{module} is on no floor"));
        for import in imports(&fs::read_to_string(&path).unwrap()) {
            seen += 1;
            let below = *floors.get(import.as_str()).unwrap_or_else(|| {
                panic!("{}: crate::{import} is on no floor", path.display());
            });
            let pair = (module.as_str(), import.as_str());
            let allowed = below < floor || module == import || BESIDE.contains(&pair);
            assert!(allowed && !NEVER.contains(&pair), "{}: imports {import}", path.display());
        }
    }
    assert!(seen > 50, "only {seen} imports were found");
}

#[test]
fn only_the_wiring_sees_the_whole_configuration() {
    for (module, path) in files(Path::new("src"), None) {
        let text = fs::read_to_string(&path).unwrap();
        let whole = text.contains("config::Config") || text.contains("config::{self, Config");
        let wiring = ["app", "cli", "demo", "config", "lib"].contains(&module.as_str());
        assert!(!whole || wiring, "{}", path.display());
    }
}

#[test]
fn groups_of_imports_are_read() {
    let text = "use crate::{\n    a,\n    b::{self, C},\n    d::E,\n};\nuse crate::f::G;";
    assert_eq!(imports(text), ["a", "b", "d", "f"]);
}

#[test]
fn files_are_short_enough_to_read() {
    for (_, path) in files(Path::new("src"), None) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 400, "{} has {lines} lines", path.display());
        assert_ne!(path.file_name().unwrap(), "mod.rs", "{}", path.display());
    }
}

#[test]
fn only_these_read_the_wall_clock_which_may_jump() {
    // What is shown of a state, when it was fetched, and what tokens and certificates say themselves.
    // All that is waited for is counted by the monotonic clock.
    let known = [
        "src/app/certificates.rs",
        "src/app/keys.rs",
        "src/auth/jwt.rs",
        "src/demo/otlp.rs",
        "src/discovery.rs",
        "src/health/service.rs",
        "src/metrics.rs",
        "src/upstream/ejection.rs",
        "src/upstream/endpoint.rs",
        "src/upstream/history.rs",
        "src/watchdog/vitals.rs",
    ];
    let reads = |path: &PathBuf| fs::read_to_string(path).unwrap().contains("SystemTime::now");
    let files = files(Path::new("src"), None).into_iter().map(|(_, path)| path);
    let mut found: Vec<_> = files.filter(reads).map(|it| it.display().to_string()).collect();
    found.sort_unstable();
    assert_eq!(found, known);
}
