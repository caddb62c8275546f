//! Templates, and values that are safe in them.

use std::fmt::Display;

/// A template with each `@name@` replaced by its value. One pass: what is in a value stays.
///
/// # Panics
/// A template has a name that no value is given for; every template is filled by some test.
pub(super) fn fill(template: &str, values: &[(&str, &dyn Display)]) -> String {
    let mut filled = String::new();
    for (index, part) in template.split('@').enumerate() {
        if index % 2 == 0 {
            filled += part;
        } else {
            let value = values.iter().find(|(name, _)| *name == part);
            let (_, value) = value.unwrap_or_else(|| panic!("a template is given @{part}@"));
            filled += &value.to_string();
        }
    }
    filled
}

/// A quoted YAML scalar: every JSON string is one, but for three ends of line that JSON leaves.
pub(super) fn yaml(text: &str) -> String {
    let text = serde_json::Value::from(text).to_string();
    let text = text.replace('\u{85}', "\\u0085");
    text.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// A quoted HCL string, in which `${` and `%{` are no templates.
pub(super) fn hcl(text: &str) -> String {
    yaml(text).replace("${", "$${").replace("%{", "%%{")
}

/// A word of the shell.
pub(super) fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A line of a comment: names are free text, and must not end it.
pub(super) fn comment(text: &str) -> String {
    text.escape_debug().to_string()
}

/// A path with its query.
pub(super) fn health_target(path: &str, service: &str) -> String {
    if service.is_empty() {
        return path.to_owned();
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let encode = |byte: u8| {
        if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    let service: String = service.bytes().map(encode).collect();
    format!("{path}?service={service}")
}

/// A listener's name as the name of a port, if it can be one: at most 15 letters, digits and
/// single hyphens, a letter among them (Kubernetes takes RFC 6335's service names).
pub(super) fn label(name: &str) -> Option<String> {
    let lower = name.to_lowercase();
    let words: Vec<_> =
        lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let label = words.join("-");
    let lawful = label.len() <= 15 && label.contains(|c: char| c.is_ascii_lowercase());
    lawful.then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_not_a_template() {
        assert_eq!(fill("a: @b@, @c@\n", &[("b", &"@c@"), ("c", &1)]), "a: @c@, 1\n");
    }

    #[test]
    fn values_cannot_end_their_quotes() {
        assert_eq!(yaml("a\"b\\\n# c"), r#""a\"b\\\n# c""#);
        assert_eq!(yaml("\u{85}\u{2028}\u{2029}"), r#""\u0085\u2028\u2029""#);
        assert_eq!(hcl("${x} %{if} $"), r#""$${x} %%{if} $""#);
        assert_eq!(shell("it's $(x)"), r"'it'\''s $(x)'");
        assert_eq!(comment("a\nkind: b"), r"a\nkind: b");
        assert_eq!(health_target("/readyz", ""), "/readyz");
        assert_eq!(health_target("/readyz", "a b&c"), "/readyz?service=a%20b%26c");
    }

    #[test]
    fn labels_are_service_names() {
        assert_eq!(label("OTLP  traces_").as_deref(), Some("otlp-traces"));
        for name in ["", "4317", "--", "ö", "a-name-that-is-longer"] {
            assert_eq!(label(name), None, "{name:?}");
        }
    }
}
