//! What a configuration's file says, as it says it: to be shown, and to be compared with another.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::{Map, Value, json};

use super::{Config, Workers, lines::join};

/// The keys of a file and their values, `${NAME}` replaced. What only a restart changes is there
/// with its default too, so that a key which says the default is no difference.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written(Value);

impl Written {
    /// What `text` says, of which `config` was made.
    pub(super) fn of(text: &str, config: &Config) -> Self {
        let mut yaml: serde_yaml::Value = serde_yaml::from_str(text).unwrap_or_default();
        // It was read, and so merged, before.
        _ = yaml.apply_merge();
        let mut written = match serde_json::to_value(yaml) {
            Ok(Value::Object(keys)) => keys,
            _ => Map::new(),
        };
        let log = &config.log;
        let word = |word: &dyn fmt::Debug| format!("{word:?}").to_lowercase();
        let workers = match config.workers {
            Workers::Auto => "auto".into(),
            Workers::Count(count) => count.into(),
        };
        written.insert("workers".to_owned(), workers);
        let admin = written.entry("admin").or_insert_with(|| json!({}));
        admin["address"] = json!(config.admin.address);
        let log = json!({ "format": word(&log.format), "level": word(&log.level) });
        written.insert("log".to_owned(), log);
        Self(Value::Object(written))
    }

    /// What another process showed as its JSON.
    pub fn shown(json: Value) -> Self {
        Self(json)
    }

    /// As JSON, with `***` in the place of secrets.
    pub fn json(&self) -> Value {
        concealed("", &self.0)
    }

    /// The same for all that say the same, whatever their comments and the order of their keys.
    pub fn hash(&self) -> String {
        // FNV-1a: other builds must come to the same, which std's hasher does not promise.
        let text = self.0.to_string();
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    }

    /// What would change from this one to `other`, in the order of the keys.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        compare("", Some(&self.0), Some(&other.0), &mut found);
        found
    }
}

/// One key that two configurations say different things of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key's place; a listener stands under its name.
    pub path: String,
    /// What the one says, in the words of the file; none where it says nothing.
    pub from: Option<String>,
    /// What the other says.
    pub to: Option<String>,
}

impl Difference {
    /// Whether a running process cannot take it over.
    pub fn needs_restart(&self) -> bool {
        RESTART.iter().any(|key| {
            let rest = self.path.strip_prefix(key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, "~ {}: {from} -> {to}", self.path),
            (Some(from), None) => write!(f, "- {}: {from}", self.path),
            (None, to) => write!(f, "+ {}: {}", self.path, to.as_deref().unwrap_or_default()),
        }
    }
}

fn compare(path: &str, from: Option<&Value>, to: Option<&Value>, found: &mut Vec<Difference>) {
    if from == to {
        return;
    }
    let key = path.rsplit('.').next().unwrap_or_default();
    let hidden = [from, to].into_iter().flatten().any(|value| is_secret(key, value));
    match (from, to) {
        (Some(Value::Object(from)), Some(Value::Object(to))) if !hidden => {
            let keys: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
            for key in keys {
                compare(&join(path, key), from.get(key), to.get(key), found);
            }
        }
        (Some(Value::Array(from)), Some(Value::Array(to))) if !hidden => {
            items(path, from, to, found)
        }
        (Some(Value::Array(items_of)), None) if path == LISTENERS => {
            items(path, items_of, &[], found);
        }
        _ => {
            let said = |value: Option<&Value>| value.map(|value| words(&concealed(key, value)));
            found.push(Difference { path: path.to_owned(), from: said(from), to: said(to) });
        }
    }
}

/// Listeners by their names, texts by what they say, and anything else by its place.
fn items(path: &str, from: &[Value], to: &[Value], found: &mut Vec<Difference>) {
    fn named(items: &[Value]) -> BTreeMap<&str, &Value> {
        let name = |item| (Value::get(item, "name").and_then(Value::as_str).unwrap_or(""), item);
        items.iter().map(name).collect()
    }
    if path == LISTENERS {
        let (from, to) = (named(from), named(to));
        let names: BTreeSet<&&str> = from.keys().chain(to.keys()).collect();
        for name in names {
            compare(&join(path, name), from.get(*name).copied(), to.get(*name).copied(), found);
        }
    } else if from.iter().chain(to).all(Value::is_string) && !same(from, to) {
        let gone = from.iter().filter(|item| !to.contains(item));
        let new = to.iter().filter(|item| !from.contains(item));
        for (from, to) in
            gone.map(|item| (Some(item), None)).chain(new.map(|item| (None, Some(item))))
        {
            compare(path, from, to, found);
        }
    } else if same(from, to) {
        let said = |items: &[Value]| Some(words(&items.into()));
        found.push(Difference { path: path.to_owned(), from: said(from), to: said(to) });
    } else {
        for index in 0..from.len().max(to.len()) {
            compare(&format!("{path}[{index}]"), from.get(index), to.get(index), found);
        }
    }
}

/// Whether two lists have the same items, in another order.
fn same(a: &[Value], b: &[Value]) -> bool {
    a.len() == b.len() && a.iter().all(|item| b.contains(item))
}

/// A value without what nobody but the file's owner should read. The one place where that is
/// decided: by the names of keys, wherever they stand.
fn concealed(key: &str, value: &Value) -> Value {
    if is_secret(key, value) {
        return "***".into();
    }
    match value {
        Value::Object(keys) => {
            keys.iter().map(|(key, value)| (key.clone(), concealed(key, value))).collect()
        }
        Value::Array(items) => items.iter().map(|item| concealed("", item)).collect(),
        value => value.clone(),
    }
}

/// Whether a key has a secret, or a list of them.
fn is_secret(key: &str, value: &Value) -> bool {
    let texts = value.as_array().is_some_and(|items| items.iter().any(Value::is_string));
    let one = key.strip_suffix(['s', 'S']).filter(|_| texts).unwrap_or(key);
    // A section that is called so, such as an upstream, has none.
    (texts || value.is_string()) && names_secret(one)
}

/// Whether a key of this name has a secret.
pub(super) fn names_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRETS.iter().any(|secret| key.ends_with(secret))
}

/// A value as YAML's flow style has it.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(words).collect::<Vec<_>>().join(", "))
        }
        Value::Object(keys) if keys.is_empty() => "{}".to_owned(),
        Value::Object(keys) => {
            let keys = keys.iter().map(|(key, value)| format!("{key}: {}", words(value)));
            format!("{{ {} }}", keys.collect::<Vec<_>>().join(", "))
        }
        value => value.to_string(),
    }
}

const LISTENERS: &str = "listeners";
/// Keys that only a restart changes.
const RESTART: [&str; 3] = ["workers", "admin.address", "log"];
/// Ends of the names of keys that have secrets; a probe's metadata may. A hash is one where the
/// secret can be guessed.
const SECRETS: [&str; 10] = [
    "-auth",
    "-key",
    "apikey",
    "authorization",
    "cookie",
    "passphrase",
    "password",
    "secret",
    "sha256",
    "token",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(from: Value, to: Value) -> Vec<String> {
        let found = Written(from).differences(&Written(to));
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn listeners_are_told_apart_by_name_and_endpoints_by_address() {
        let from = json!({
            "listeners": [{ "name": "a", "address": "x:1" }, { "name": "b", "address": "x:2" }],
            "upstreams": { "u": { "endpoints": ["e:1", "e:2"], "probe": { "interval": "5s" } } },
        });
        let to = json!({
            "listeners": [{ "name": "c", "address": "x:3" }, { "name": "a", "address": "x:4" }],
            "upstreams": {
                "u": { "endpoints": ["e:2", "e:3"], "probe": { "interval": "10s" } },
                "v": { "endpoints": ["e:4"] },
            },
        });
        let expected = [
            "~ listeners.a.address: x:1 -> x:4",
            "- listeners.b: { address: x:2, name: b }",
            "+ listeners.c: { address: x:3, name: c }",
            "- upstreams.u.endpoints: e:1",
            "+ upstreams.u.endpoints: e:3",
            "~ upstreams.u.probe.interval: 5s -> 10s",
            "+ upstreams.v: { endpoints: [e:4] }",
        ];
        assert_eq!(differences(from.clone(), to), expected);
        assert!(differences(from.clone(), from).is_empty());
    }

    #[test]
    fn order_and_places_are_differences_where_they_mean_something() {
        assert_eq!(
            differences(json!({ "e": ["a", "b"] }), json!({ "e": ["b", "a"] })),
            ["~ e: [a, b] -> [b, a]"]
        );
        assert_eq!(
            differences(
                json!({ "checks": [{ "tcp": {} }] }),
                json!({ "checks": [{ "tcp": { "port": 1 } }, { "http": {} }] })
            ),
            ["+ checks[0].tcp.port: 1", "+ checks[1]: { http: {} }"]
        );
    }

    #[test]
    fn secrets_are_compared_and_not_shown() {
        let with = |value: &str| json!({ "metadata": { "Authorization": value, "x": "shown" } });
        let (a, b) = (Written(with("one")), Written(with("two")));
        assert_eq!(a.json(), with("***"));
        let found = a.differences(&b);
        assert_eq!(found[0].to_string(), "~ metadata.Authorization: *** -> ***");
        assert_eq!(
            differences(json!({}), with("a"))[0],
            "+ metadata: { Authorization: ***, x: shown }"
        );
        let list = |tokens: &[&str]| json!({ "admin": { "tokens": tokens } });
        assert_eq!(Written(list(&["a"])).json(), json!({ "admin": { "tokens": "***" } }));
        for to in [list(&["b"]), list(&["b", "a"])] {
            assert_eq!(differences(list(&["a"]), to), ["~ admin.tokens: *** -> ***"]);
        }
        assert_ne!(a.hash(), b.hash());
        let named = json!({ "upstreams": { "the-key": { "endpoints": ["e:1"] } } });
        assert_eq!(Written(named.clone()).json(), named);
        let key = json!({ "metadata": { "x-access-key": "a" } });
        assert_eq!(Written(key).json(), json!({ "metadata": { "x-access-key": "***" } }));
    }

    #[test]
    fn the_hash_is_of_what_is_said_and_stays_the_same_in_other_builds() {
        let config = |text: &str| {
            let start = "listeners: [{ name: a, address: '127.0.0.1:1' }]\nupstreams: ";
            let probe = "probe: { checks: [{ tcp: {} }] }";
            let upstream = format!("{{ u: {{ endpoints: ['127.0.0.1:2'], {probe} }} }}");
            Config::parse(&format!("{start}{upstream}\n{text}"), |_| None).unwrap().written
        };
        assert_eq!(
            config("").hash(),
            config("# words\nworkers: auto\nlog: { level: info }").hash()
        );
        assert_ne!(config("").hash(), config("workers: 2").hash());
        assert_eq!(Written(json!({ "a": 1 })).hash(), "9c3e82dd6fcae8b1");
        let restart = config("").differences(&config("workers: 2\ndrain: { delay: 1s }"));
        let restart: Vec<_> =
            restart.iter().map(|it| (it.to_string(), it.needs_restart())).collect();
        assert_eq!(
            restart,
            [
                ("+ drain: { delay: 1s }".to_owned(), false),
                ("~ workers: auto -> 2".to_owned(), true)
            ]
        );
    }
}
