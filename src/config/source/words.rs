//! What serde and libyaml say, in the words of one who writes the file.

use serde_yaml::Value;

/// serde's `message` on the value that was `found`.
pub(super) fn explain(message: &str, found: Option<&Value>) -> String {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return format!("unknown key {rest}");
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        return format!("unknown value {rest}");
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("the key {key} is missing");
    }
    let keys = found.and_then(Value::as_mapping).into_iter().flat_map(|found| found.keys());
    if let Some(key) = keys.into_iter().find(|key| !key.is_string()) {
        return format!("the key {} must be a string in quotes", describe(key));
    }
    let expected = if message == "invalid socket address syntax" {
        "socket address"
    } else if message.starts_with("invalid type: ") || message.starts_with("invalid value: ") {
        message.rsplit_once(", expected ").map_or(message, |(_, expected)| expected)
    } else {
        return message.to_owned();
    };
    let expected = match expected {
        "a map" => "a mapping",
        "a sequence" => "a list",
        "a string" if found.is_some_and(|found| found.is_number() || found.is_bool()) => {
            "a string in quotes"
        }
        "a Value::Tagged enum" => "a word",
        "a duration" => "a duration such as 5s or 500ms",
        "an integer or string" | "parsable string" | "integer overflow" => "a size such as 4MiB",
        "socket address" => "an IP address and port, such as 0.0.0.0:4317",
        "a boolean" => "true or false",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "struct Check" => "a mapping such as { otlp: {} }",
        "struct ClientLimits" => "a mapping such as { calls_per_second: 100, burst: 200 }",
        "struct Token" => "a mapping such as { token: TEXT, tenant: team-a }",
        "struct User" => "a mapping such as { user: ann, password: TEXT, tenant: team-a }",
        "struct Rate" => "a mapping such as { burst: 20, rate: 10 }",
        "struct Section" => "a mapping such as { all: [otlp] }",
        "struct Document" => "a mapping of sections, such as listeners and upstreams",
        _ if expected.starts_with("struct ") => "a mapping",
        _ => expected,
    };
    match found {
        Some(found) => format!("expected {expected}, found {}", describe(found)),
        None => format!("expected {expected}"),
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(value) => format!("{value:?}"),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
        Value::Tagged(value) => format!("the tag {}", value.tag),
    }
}

/// libyaml's `message`, such as "did not find expected key at line 7 column 17, while parsing a
/// block mapping at line 2 column 5". The first line is said by the problem; the second one is
/// often where the mistake is.
pub(super) fn not_yaml(message: &str) -> String {
    let mut parts = message.split(" at line ");
    let what = parts.next().unwrap_or(message);
    let within = parts.next().and_then(|place| place.split_once(", while parsing "));
    let begin = parts.next().and_then(|place| place.split(' ').next());
    match (within, begin) {
        (Some((_, within)), Some(begin)) => {
            format!("not valid YAML: {what} in {within} that begins in line {begin}")
        }
        _ => format!("not valid YAML: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_expected_comes_before_what_was_found() {
        let said = "invalid type: string \"a, expected b\", expected u16";
        let found = Value::from("a, expected b");
        let ours = "expected a whole number from 0 to 65535, found \"a, expected b\"";
        assert_eq!(explain(said, Some(&found)), ours);
    }

    #[test]
    fn our_own_words_stay_as_they_are() {
        assert_eq!(
            explain("\"5\" is not a share", Some(&Value::from("5"))),
            "\"5\" is not a share"
        );
    }

    #[test]
    fn yaml_errors_say_where_the_broken_part_begins() {
        let said = "did not find expected key at line 7 column 17, while parsing a block mapping at line 2 column 5";
        let ours =
            "not valid YAML: did not find expected key in a block mapping that begins in line 2";
        assert_eq!(not_yaml(said), ours);
        let said = "found character that cannot start any token at line 2 column 1, while scanning for the next token";
        assert_eq!(not_yaml(said), "not valid YAML: found character that cannot start any token");
    }
}
