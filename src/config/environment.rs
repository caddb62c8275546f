//! Values from the environment, put into the text before it is read.

use super::Problem;

/// Replaces `${NAME}` and `${NAME:-default}`; `$${` stands for `${`. Comment lines stay as they
/// are, and so does a `$` that no `{` follows.
///
/// Names that are not set and have no default, and values of more than one line, are problems;
/// the text has nothing in their place then, on the same lines.
pub(super) fn substitute(
    text: &str,
    environment: impl Fn(&str) -> Option<String>,
) -> (String, Vec<Problem>) {
    let mut out = String::with_capacity(text.len());
    let mut problems = Vec::new();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if line.trim_start().starts_with('#') {
            out.push_str(line);
            continue;
        }
        let mut problem = |path: &str, message: &str| {
            problems.push(Problem {
                path: path.to_owned(),
                message: message.to_owned(),
                line: Some(index + 1),
            });
        };
        let mut rest = line;
        while let Some(at) = rest.find("${") {
            if at > 0 && rest.as_bytes()[at - 1] == b'$' {
                out.push_str(&rest[..at - 1]);
                out.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            out.push_str(&rest[..at]);
            let Some(end) = rest[at..].find('}').map(|end| at + end) else {
                let name = rest[at + 2..].split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                problem(&format!("${{{}", name.take(1).collect::<String>()), "has no closing }");
                rest = if rest.ends_with('\n') { "\n" } else { "" };
                break;
            };
            let reference = &rest[at..=end];
            let inner = &rest[at + 2..end];
            let (name, default) = match inner.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (inner, None),
            };
            // As in a shell, a name that is set but empty takes the default too.
            let value = environment(name).filter(|value| default.is_none() || !value.is_empty());
            match value.as_deref().or(default) {
                Some(value) if value.contains(['\n', '\r']) => {
                    problem(reference, "the value has more than one line");
                }
                Some(value) => out.push_str(value),
                None => problem(reference, "is not set, and has no default (${NAME:-default})"),
            }
            rest = &rest[end + 1..];
        }
        out.push_str(rest);
    }
    (out, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "PORT" => Some("4317".to_owned()),
            "EMPTY" => Some(String::new()),
            "LINES" => Some("a\nb".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn environment_is_substituted_with_defaults_and_escapes() {
        let text = "a: ${PORT}\n# ${UNSET}\nb: ${UNSET:-x}${EMPTY:-y}\nc: $${PORT} $5\n";
        let (out, problems) = substitute(text, environment);
        assert_eq!(out, "a: 4317\n# ${UNSET}\nb: xy\nc: ${PORT} $5\n");
        assert_eq!(problems, []);
    }

    #[test]
    fn what_cannot_be_substituted_is_said_with_its_line() {
        let text = "a: 1\nb: ${UNSET}\nc: ${LINES}\nd: ${PORT\ne: 2\n";
        let (out, problems) = substitute(text, environment);
        assert_eq!(out, "a: 1\nb: \nc: \nd: \ne: 2\n");
        let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "${UNSET}: is not set, and has no default (${NAME:-default}), line 2",
                "${LINES}: the value has more than one line, line 3",
                "${PORT: has no closing }, line 4",
            ]
        );
    }
}
