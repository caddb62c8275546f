//! What types are called.

use std::collections::BTreeMap;

use crate::source::{Source, sources};

/// Names that several types may have. Only to be made shorter.
const SEVERAL: [&str; 68] = [
    "Access",
    "Admin",
    "Allowance",
    "Answer",
    "Auth",
    "Bucket",
    "Check",
    "Command",
    "Content",
    "Counted",
    "Dns",
    "Ejection",
    "Endpoint",
    "Family",
    "Fault",
    "File",
    "Finding",
    "Follow",
    "Head",
    "Health",
    "HttpCheck",
    "Identity",
    "Jwt",
    "KeyPair",
    "Kind",
    "Level",
    "Limits",
    "Line",
    "Listener",
    "ListenerTls",
    "Match",
    "Method",
    "Name",
    "Named",
    "Open",
    "Options",
    "Otlp",
    "Pace",
    "Part",
    "Peer",
    "Place",
    "Probe",
    "Queue",
    "Rate",
    "Records",
    "Reply",
    "Retry",
    "Role",
    "Route",
    "Running",
    "Section",
    "Service",
    "Settings",
    "Socket",
    "State",
    "Status",
    "Stream",
    "Target",
    "Tenant",
    "Told",
    "Transition",
    "Upstream",
    "UpstreamTls",
    "Verdict",
    "Waiting",
    "Watch",
    "Watches",
    "Window",
];

/// Types whose methods stand elsewhere than in the file that has the type, and in its folder. Only to be
/// made shorter.
const SPREAD: [&str; 7] = ["Config", "CredentialsFile", "Engine", "Lane", "Line", "Link", "Relay"];

/// The files that have a type of each name.
fn types(sources: &[Source]) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources {
        for item in &source.code.items {
            let name = match item {
                syn::Item::Struct(it) => &it.ident,
                syn::Item::Enum(it) => &it.ident,
                syn::Item::Trait(it) => &it.ident,
                syn::Item::Type(it) => &it.ident,
                _ => continue,
            };
            found.entry(name.to_string()).or_default().push(source.name());
        }
    }
    found
}

#[test]
fn no_two_types_have_one_name() {
    let types = types(&sources());
    assert!(types.len() > 300, "only {} types were found", types.len());
    let several: BTreeMap<_, _> = types.iter().filter(|(_, files)| files.len() > 1).collect();
    for (name, files) in &several {
        assert!(SEVERAL.contains(&name.as_str()), "{name} is in {files:?}");
    }
    for name in SEVERAL {
        assert!(several.contains_key(&name.to_owned()), "{name} is one by now");
    }
}

/// Whether a file is the one that has a type, or in the folder of that.
fn is_of(file: &str, home: &str) -> bool {
    file == home
        || file.strip_prefix(home.trim_end_matches(".rs")).is_some_and(|it| it.starts_with('/'))
}

#[test]
fn methods_stand_where_their_type_does() {
    let sources = sources();
    let types = types(&sources);
    let mut spread = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.path.ends_with("tests.rs")) {
        for item in &source.code.items {
            let syn::Item::Impl(syn::ItemImpl { trait_: None, self_ty, .. }) = item else {
                continue;
            };
            let syn::Type::Path(path) = &**self_ty else { continue };
            let name = path.path.segments.last().unwrap().ident.to_string();
            // Another crate's types have none here.
            let Some(homes) = types.get(&name) else { continue };
            if !homes.iter().any(|home| is_of(&source.name(), home)) {
                spread.entry(name).or_insert_with(Vec::new).push(source.name());
            }
        }
    }
    let found: Vec<_> = spread.keys().map(String::as_str).collect();
    assert_eq!(found, SPREAD, "{spread:#?}");
}
