//! The configuration as a platform engineer meets it: what loads, what is refused in which words,
//! and what holds where nothing is said.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use upbeat::config::{
    self, Cap, Check, Config, Level, LoadBalancing, LogFormat, NotServingAs, Quorum, Service,
    Share, View, Watch, Workers,
};

/// Nothing but what is required.
const MINIMAL: &str = r#"
listeners: [{ name: otlp, address: "127.0.0.1:4317", upstream: otlp }]
upstreams:
  otlp:
    endpoints: ["127.0.0.1:14317"]
    probe: { checks: [{ http: {} }, { grpc: {} }, { tcp: {} }] }
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, |_| None).map_err(|problems| problems.to_string())
}

/// Files below `directory` whose names end so.
fn files(directory: &str, extension: &str) -> BTreeSet<PathBuf> {
    fn walk(directory: &Path, extension: &str, found: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, extension, found);
            } else if path.extension().is_some_and(|it| it == extension) {
                found.insert(path);
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), extension, &mut found);
    found
}

/// Every configuration in the repository. Kubernetes manifests, which stand beside them, are not
/// for Upbeat to read.
fn shipped() -> Vec<(PathBuf, String)> {
    let texts = files("config", "yaml").into_iter().map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    });
    texts.filter(|(_, text)| !text.lines().any(|line| line.starts_with("apiVersion:"))).collect()
}

#[test]
fn every_configuration_that_is_shipped_loads() {
    let shipped = shipped();
    assert!(shipped.iter().any(|(path, _)| path.ends_with("config/upbeat.yaml")));
    for (path, text) in shipped {
        if let Err(problems) = parse(&text) {
            panic!("{}:\n{problems}", path.display());
        }
    }
}

#[test]
fn every_mistake_has_its_exact_message() {
    let mistakes = files("tests/it/bad", "yaml");
    assert!(mistakes.len() >= 20, "only {} mistakes were found", mistakes.len());
    let named: BTreeSet<_> =
        files("tests/it/bad", "txt").iter().map(|path| path.with_extension("yaml")).collect();
    assert_eq!(mistakes, named, "each NAME.yaml has a NAME.txt");
    for path in mistakes {
        let expected = fs::read_to_string(path.with_extension("txt")).unwrap();
        let said = match parse(&fs::read_to_string(&path).unwrap()) {
            Ok(_) => panic!("{} has no problem", path.display()),
            Err(problems) => format!("{problems}\n"),
        };
        assert_eq!(said, expected, "{}", path.display());
    }
}

#[test]
fn messages_name_no_type_of_the_program() {
    for path in files("tests/it/bad", "txt") {
        let text = fs::read_to_string(&path).unwrap();
        for word in
            ["struct", "enum", "u16", "u32", "field", "variant", "sequence", "invalid", "Value"]
        {
            let found = text.split(|c: char| !c.is_alphanumeric()).any(|it| it == word);
            assert!(!found, "{}: {word}", path.display());
        }
    }
}

#[test]
fn many_mistakes_are_all_told_in_the_order_of_their_lines() {
    let text = include_str!("bad/many.yaml");
    let problems = Config::parse(text, |_| None).unwrap_err().0;
    assert!(problems.len() > 20, "only {} problems", problems.len());
    assert!(problems.is_sorted_by_key(|problem| problem.line));
    let places: BTreeSet<_> = problems.iter().map(|problem| &problem.path).collect();
    assert_eq!(places.len(), problems.len(), "one problem a place");
}

#[test]
fn file_that_cannot_be_read_is_named() {
    let problems = Config::load(Path::new("/nowhere/upbeat.yaml")).unwrap_err().to_string();
    assert!(problems.starts_with("/nowhere/upbeat.yaml: cannot be read: "), "{problems}");
}

#[test]
fn environment_is_substituted_before_the_yaml_is_read() {
    let text = r#"
listeners: [{ name: "$${name}", address: "127.0.0.1:${PORT:-4317}", upstream: otlp }]
upstreams:
  otlp:
    # endpoints: ["${NOT_SET}"]
    endpoints: [${ENDPOINTS}]
    probe: { interval: "${INTERVAL:-9s}", checks: [{ otlp: {} }] }
"#;
    let environment = |name: &str| match name {
        "ENDPOINTS" => Some(r#""10.0.0.1:4317", "10.0.0.2:4317""#.to_owned()),
        "INTERVAL" => Some(String::new()),
        _ => None,
    };
    let config = Config::parse(text, environment).unwrap();
    assert_eq!(config.listeners[0].name, "${name}");
    assert_eq!(config.listeners[0].address, address("127.0.0.1:4317"));
    let endpoints = [address("10.0.0.1:4317"), address("10.0.0.2:4317")];
    assert_eq!(config.upstreams[0].endpoints, endpoints.map(Into::into));
    assert_eq!(config.upstreams[0].probe.interval, Duration::from_secs(9));
}

#[test]
fn what_follows_from_a_name_that_is_not_set_is_not_told_too() {
    let text = "listeners: [{ name: a, address: \"${ADDRESS}\" }]\nworkers: 0\nupstreams: ${ALL}\n";
    let problems = Config::parse(text, |_| None).unwrap_err().0;
    let places: Vec<_> = problems.iter().map(|problem| (&*problem.path, problem.line)).collect();
    assert_eq!(places, [("${ADDRESS}", Some(1)), ("workers", Some(2)), ("${ALL}", Some(3))]);
}

#[test]
fn defaults_are_those_that_are_documented() {
    let config = parse(MINIMAL).unwrap();
    let seconds = Duration::from_secs;

    let listener = &config.listeners[0];
    assert_eq!(listener.not_serving_as, NotServingAs::Message);
    assert!(!config.health.reflection);
    assert_eq!(agents(listener), [("ELB-HealthChecker", NotServingAs::Status)]);
    assert_eq!(listener.max_message_size, 16 << 20);
    for limits in [&config.limits, &listener.limits] {
        assert_eq!((limits.max_connections, limits.max_concurrent_streams), (10_000, 128));
        assert_eq!(limits.max_header_list_size.as_u64(), 16 << 10);
        assert_eq!(limits.max_upstream_header_list_size.as_u64(), 64 << 10);
        assert_eq!((limits.handshake_timeout, limits.frame_timeout), (seconds(5), seconds(5)));
        assert_eq!(limits.max_upstream_header_frames, 4096);
        assert_eq!(limits.idle_timeout, seconds(620));
        assert_eq!(limits.max_connection_age, seconds(30 * 60));
        assert_eq!(limits.max_upstream_connection_age, seconds(30 * 60));
        assert_eq!(limits.send_timeout, seconds(30));
        assert_eq!(limits.max_connections_per_address, Cap::Unlimited);
        assert_eq!((limits.max_header_fields, limits.max_upstream_header_fields), (100, 1000));
        assert_eq!(limits.max_upstream_connections, 4);
        assert_eq!(limits.max_replay_size.as_u64(), 64 << 10);
    }

    let upstream = &config.upstreams[0];
    assert_eq!(upstream.min_healthy, Quorum::Count(1));
    assert_eq!(upstream.panic_threshold, Share(0));
    assert_eq!(upstream.load_balancing, LoadBalancing::LeastRequest);
    assert_eq!(upstream.connect_timeout, seconds(1));
    assert_eq!((upstream.hash_by.as_deref(), upstream.slow_start), (None, seconds(0)));
    let ejection = upstream.ejection;
    assert_eq!((ejection.consecutive, ejection.share, ejection.min_calls), (5, Share(50), 20));
    assert_eq!((ejection.base_time, ejection.max_time), (seconds(10), seconds(300)));
    assert_eq!(ejection.max_ejected, Share(50));
    let admission = upstream.admission;
    let caps = [admission.max_in_flight, admission.max_in_flight_per_endpoint];
    assert_eq!(caps, [Cap::Unlimited; 2]);
    assert_eq!((admission.max_queue, admission.queue_timeout), (1024, seconds(1)));
    assert!(!admission.adaptive);
    let probe = &upstream.probe;
    assert_eq!((probe.interval, probe.timeout), (seconds(5), seconds(2)));
    assert_eq!((probe.healthy_threshold, probe.unhealthy_threshold), (2, 3));
    assert_eq!(probe.stale_after, seconds(17));
    let [Check::Http(http), Check::Grpc(grpc), Check::Tcp { port: None }] = &*probe.checks else {
        panic!("{:?}", probe.checks);
    };
    assert_eq!((http.port, http.path.as_str(), http.status.as_u16()), (None, "/ready", 200));
    assert_eq!((grpc.port, &*grpc.service, grpc.metadata.len()), (None, "", 0));
    assert_eq!((&grpc.authority, grpc.watch), (&None, Watch::Auto));

    assert_eq!(config.health.paths, ["/healthz", "/readyz", "/ready"]);
    let services: Vec<_> = config.health.services.into_iter().collect();
    let all = View::All(vec![View::Upstream("otlp".to_owned())]);
    assert_eq!(services, [(String::new(), Service { view: all, hold: Duration::ZERO })]);
    assert_eq!((config.drain.delay, config.drain.timeout), (seconds(15), seconds(30)));
    assert_eq!(config.admin.address, address("127.0.0.1:9901"));
    assert_eq!(config.workers, Workers::Auto);
    assert_eq!((config.log.format, config.log.level), (LogFormat::Text, Level::Info));
}

#[test]
fn every_limit_is_shown_with_its_default() {
    let text = include_str!("../../config/examples/limits.yaml");
    let defaults = format!("{:?}", parse(MINIMAL).unwrap().limits);
    assert_eq!(format!("{:?}", parse(text).unwrap().limits), defaults);

    fn keys(root: &Value, node: &Value, shown: &Value, at: &str) {
        let reference = node.get("$ref").map(|name| &name.as_str().unwrap()[1..]);
        let node = reference.map_or(node, |name| root.pointer(name).unwrap());
        for (key, property) in node["properties"].as_object().into_iter().flatten() {
            let shown = shown.get(key);
            keys(root, property, shown.unwrap_or_else(|| panic!("{at}.{key} is not shown")), key);
        }
    }
    let shown: Value = serde_yaml::from_str(text).unwrap();
    let schema = config::schema();
    keys(&schema, schema.pointer("/$defs/Limits").unwrap(), &shown["limits"], "limits");
}

#[test]
fn defaults_that_follow_from_other_keys_follow_them() {
    let otlp = parse(&MINIMAL.replace("http", "otlp")).unwrap();
    assert_eq!(otlp.listeners[0].max_message_size, 4 << 20);

    let quick = parse(&MINIMAL.replace("checks", "interval: 1s, checks")).unwrap();
    assert_eq!(quick.upstreams[0].probe.timeout, Duration::from_millis(500));

    let more =
        "limits: { max_connections: 7, idle_timeout: 9s }\nhealth: { not_serving_as: status }";
    let limited = parse(&format!("{MINIMAL}{more}")).unwrap();
    let listener = &limited.listeners[0];
    assert_eq!(listener.limits.max_connections, 7);
    assert_eq!(listener.limits.idle_timeout, Duration::from_secs(9));
    assert_eq!(listener.not_serving_as, NotServingAs::Status);
}

#[test]
fn listener_has_its_own_limits_and_its_own_way_to_say_not_serving() {
    let own = "max_connections: 3, max_connections_per_address: 2, max_concurrent_streams: 4, idle_timeout: 1m, max_connection_age: 2m, max_message_size: 64MiB, health: { not_serving_as: status }, upstream";
    let config = parse(&MINIMAL.replace("upstream:", &format!("{own}:"))).unwrap();
    let listener = &config.listeners[0];
    assert_eq!(listener.limits.max_connections, 3);
    assert_eq!(listener.limits.max_connections_per_address, Cap::Count(2));
    assert_eq!(listener.limits.max_concurrent_streams, 4);
    assert_eq!(listener.limits.idle_timeout, Duration::from_secs(60));
    assert_eq!(listener.limits.max_connection_age, Duration::from_secs(120));
    assert_eq!(listener.max_message_size, 64 << 20);
    assert_eq!(listener.not_serving_as, NotServingAs::Status);
    assert_eq!(config.limits.max_connections, 10_000);
}

fn agents(listener: &config::Listener) -> Vec<(&str, NotServingAs)> {
    let agents = listener.not_serving_as_for.iter();
    agents.map(|(agent, way)| (agent.as_str(), *way)).collect()
}

#[test]
fn ways_for_user_agents_stand_beside_those_above_and_take_the_place_of_the_same() {
    use NotServingAs::{Message, Status};
    let own =
        "health: { not_serving_as_for: { b: message, ELB-HealthChecker: message } }, upstream:";
    let all = "health: { not_serving_as_for: { a: status, b: status } }";
    let config = parse(&format!("{}{all}", MINIMAL.replace("upstream:", own))).unwrap();
    let wanted = [("ELB-HealthChecker", Message), ("a", Status), ("b", Message)];
    assert_eq!(agents(&config.listeners[0]), wanted);
}

#[test]
fn section_without_content_has_its_defaults() {
    let config = parse(&format!("{MINIMAL}drain:\n  # delay: 1s\nlog:\n")).unwrap();
    assert_eq!(config.drain.delay, Duration::from_secs(15));
}

#[test]
fn anchors_and_merge_keys_save_repetition() {
    let config = parse(
        r#"
listeners: [{ name: health, address: "127.0.0.1:8080" }]
upstreams:
  a: &distributor
    endpoints: ["127.0.0.1:1"]
    probe: { interval: 3s, checks: [{ tcp: {} }] }
  b: { <<: *distributor, endpoints: ["127.0.0.1:2"] }
"#,
    );
    let upstreams = config.unwrap().upstreams;
    assert_eq!(upstreams[1].endpoints, [address("127.0.0.1:2").into()]);
    assert_eq!(upstreams[1].probe.interval, Duration::from_secs(3));
}

#[test]
fn schema_accepts_what_is_shipped() {
    let schema = config::schema();
    let shipped = shipped();
    assert!(!shipped.is_empty());
    for (path, text) in shipped {
        let document = serde_yaml::from_str(&text).unwrap();
        if let Err(why) = accepts(&schema, &schema, &document) {
            panic!("{}: {why}", path.display());
        }
    }
}

#[test]
fn schema_refuses_what_the_program_refuses_for_its_shape() {
    let schema = config::schema();
    for name in [
        "admission",
        "check_as_string",
        "duration_without_unit",
        "ejection",
        "endpoint_as_number",
        "limits_of_frames",
        "list_as_mapping",
        "mapping_as_list",
        "min_healthy_0",
        "min_healthy_share",
        "number_negative",
        "number_too_large",
        "panic_threshold",
        "per_address_as_word",
        "section_as_string",
        "slow_start",
        "string_for_number",
        "unknown_key",
        "unknown_key_in_flow_mapping",
        "unknown_key_in_list_item",
        "unknown_key_in_listener_health",
        "unknown_load_balancing",
        "unknown_section",
        "unknown_value",
        "workers_0",
    ] {
        let path = format!("{}/tests/it/bad/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        let document = serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert!(accepts(&schema, &schema, &document).is_err(), "{name}");
    }
}

#[test]
fn schema_describes_every_key_and_takes_no_other() {
    fn walk(at: &str, node: &Value, objects: &mut usize) {
        if let Some(properties) = node.get("properties") {
            *objects += 1;
            assert_eq!(node["additionalProperties"], false, "{at}");
            for (key, property) in properties.as_object().unwrap() {
                let described = property["description"].as_str().is_some_and(|it| !it.is_empty());
                assert!(described, "{at}.{key} has no description");
            }
        }
        let children = node.as_object().into_iter().flatten();
        children.for_each(|(key, child)| walk(&format!("{at}/{key}"), child, objects));
    }
    let mut objects = 0;
    walk("", &config::schema(), &mut objects);
    assert!(objects > 10, "only {objects} objects");
}

/// JSON Schema, as far as ours goes; a keyword beyond that is a panic.
fn accepts(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let Value::Object(keywords) = schema else {
        return if *schema == false { Err(format!("{value} is not taken")) } else { Ok(()) };
    };
    let fail = |why: &str| Err(format!("{value} {why}"));
    for (keyword, rule) in keywords {
        match &**keyword {
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix('#').unwrap();
                accepts(root, root.pointer(name).unwrap(), value)?;
            }
            "type" => {
                let is = |name: &Value| match name.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "boolean" => value.is_boolean(),
                    "string" => value.is_string(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "null" => value.is_null(),
                    other => panic!("type {other}"),
                };
                if !rule.as_array().map_or_else(|| is(rule), |names| names.iter().any(is)) {
                    return fail(&format!("is not {rule}"));
                }
            }
            "anyOf" | "oneOf" => {
                let all = rule.as_array().unwrap().iter();
                if !all.clone().any(|rule| accepts(root, rule, value).is_ok()) {
                    return fail("is none of the alternatives");
                }
            }
            "const" if rule != value => return fail(&format!("is not {rule}")),
            "minimum" if value.as_i64() < rule.as_i64() => return fail("is too small"),
            "maximum" if value.as_i64() > rule.as_i64() => return fail("is too large"),
            "pattern" if !matches(rule.as_str().unwrap(), value) => return fail("does not match"),
            "properties" | "additionalProperties" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    let own = schema.pointer(&format!("/properties/{}", key.replace('/', "~1")));
                    accepts(root, own.unwrap_or_else(|| &schema["additionalProperties"]), value)
                        .map_err(|why| format!("{key}: {why}"))?;
                }
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    accepts(root, rule, item)?;
                }
            }
            "const" | "minimum" | "maximum" | "pattern" => {}
            "required" => {
                let missing = |key: &&Value| value.get(key.as_str().unwrap()).is_none();
                if let Some(key) = rule.as_array().unwrap().iter().find(missing) {
                    return fail(&format!("has no {key}"));
                }
            }
            "$schema" | "$defs" | "title" | "description" | "default" | "format" => {}
            other => panic!("keyword {other}"),
        }
    }
    Ok(())
}

/// The patterns that ours has.
fn matches(pattern: &str, value: &Value) -> bool {
    let Some(text) = value.as_str() else {
        return true;
    };
    let number = |text: &str| text.parse::<u16>().ok();
    let share = text.strip_suffix('%').and_then(number).is_some_and(|share| share <= 100);
    let count = number(text).is_some_and(|count| count > 0);
    match pattern {
        "^([1-9][0-9]*|(100|[0-9]{1,2})%)$" => count || share,
        "^(100|[0-9]{1,2})%$" => share,
        "^(auto|[1-9][0-9]{0,3})$" => text == "auto" || count,
        "^(unlimited|[1-9][0-9]*)$" => text == "unlimited" || count,
        other => panic!("pattern {other}"),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
