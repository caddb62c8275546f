//! Each module imports lower floors only, as the page in `src/lib.rs` has it.

use std::collections::BTreeMap;

use crate::source::{crate_paths, sources};

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

#[test]
fn modules_name_lower_floors_only() {
    let floors = floors();
    let mut seen = 0;
    for source in sources().iter().filter(|it| it.module != "lib") {
        let (module, name) = (source.module.as_str(), source.name());
        let floor = *floors.get(module).unwrap_or_else(|| panic!("{module} is on no floor"));
        for other in crate_paths(&source.code) {
            seen += 1;
            let below = *floors
                .get(other.as_str())
                .unwrap_or_else(|| panic!("{name}: {other} is on no floor"));
            let pair = (module, other.as_str());
            let allowed = below < floor || module == other || BESIDE.contains(&pair);
            assert!(allowed && !NEVER.contains(&pair), "{name}: names {other}");
        }
    }
    assert!(seen > 500, "only {seen} paths were found");
}

#[test]
fn only_the_wiring_sees_the_whole_configuration() {
    for source in sources() {
        let whole =
            source.text.contains("config::Config") || source.text.contains("config::{self, Config");
        let wiring = ["app", "cli", "demo", "config", "lib"].contains(&source.module.as_str());
        assert!(!whole || wiring, "{}", source.name());
    }
}

#[test]
fn paths_are_found_in_groups_and_in_code() {
    let text =
        "use crate::{a, b::{self, C}, d::E}; use crate::f::G; fn h() { crate::i::j(std::k) }";
    assert_eq!(crate_paths(&syn::parse_file(text).unwrap()), ["a", "b", "d", "f", "i"]);
}
