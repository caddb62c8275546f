//! Files of tokens, of users and of keys. What is wrong with one is told by the number of the
//! entry, since its text may be a secret.

use std::io;

use serde_yaml::{Mapping, Value};

use super::{
    super::{
        LARGEST, Problem,
        checked::{CredentialsFile, Kept},
        environment::substitute,
        read_bounded,
    },
    Credentials, Jwks, Password,
};

impl CredentialsFile {
    /// Adds what the file has, `${NAME}` replaced by what `environment` answers.
    pub(in crate::config) fn read(
        &self,
        known: &mut Credentials,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Vec<Problem> {
        let problem = |words: String| self.problem(words);
        let text = match self.text() {
            Ok(text) => text,
            Err(problem) => return vec![problem],
        };
        if self.kept == Kept::Keys {
            return match Jwks::parse(text.as_bytes()) {
                Ok(keys) => {
                    known.keys = Some(keys);
                    Vec::new()
                }
                Err(words) => vec![problem(words)],
            };
        }
        let (text, unset) = substitute(&text, environment);
        if let Some(unset) = unset.first() {
            let line = unset.line.unwrap_or_default();
            let words = "a ${NAME} is not set, of more than one line, or not closed";
            return vec![problem(format!("{words}, in its line {line}"))];
        }
        let entries: Mapping = match serde_yaml::from_str(&text) {
            Ok(Value::Mapping(entries)) => entries,
            Ok(_) => return vec![problem("expected a mapping".to_owned())],
            Err(error) => {
                let line = error.location().map_or(0, |location| location.line());
                let words = "is no valid YAML, or has a key twice";
                return vec![problem(format!("{words}, in its line {line}"))];
            }
        };
        let entries = entries.iter().zip(1..).filter_map(|((key, value), number)| {
            let added = match self.kept {
                Kept::Users => user(known, key, value),
                _ => token(known, key, value),
            };
            added.err().map(|words| problem(format!("entry {number}: {words}")))
        });
        entries.collect()
    }

    pub(super) fn text(&self) -> Result<String, Problem> {
        let read = read_bounded(&self.path, LARGEST);
        let text = read.and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
        text.map_err(|error| self.problem(format!("cannot be read: {error}")))
    }

    /// What is wrong with the file, at the key that names it.
    pub(super) fn problem(&self, words: String) -> Problem {
        Problem {
            path: self.key.0.clone(),
            message: format!("{}: {words}", self.path.display()),
            line: self.key.1,
        }
    }
}

fn token(known: &mut Credentials, token: &Value, tenant: &Value) -> Result<(), &'static str> {
    match (token.as_str(), tenant.as_str()) {
        (Some(token), Some(tenant)) => known.add_token(token, tenant),
        _ => Err("expected a token and its tenant, both in quotes"),
    }
}

fn user(known: &mut Credentials, user: &Value, keys: &Value) -> Result<(), &'static str> {
    let text = |key| keys.get(key).and_then(Value::as_str);
    let password = match (text("password"), text("sha256")) {
        (Some(password), None) => Some(Password::Plain(password)),
        (None, Some(digits)) => Some(Password::Sha256(digits)),
        _ => None,
    };
    let two = keys.as_mapping().is_some_and(|keys| keys.len() == 2);
    match (user.as_str(), password, text("tenant")) {
        (Some(user), Some(password), Some(tenant)) if two => known.add_user(user, password, tenant),
        _ => Err("expected a user with a tenant, and a password or its sha256, in quotes"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::hash, *};

    fn read(name: &str, users: bool, text: &str) -> (Credentials, Vec<String>) {
        let path = std::env::temp_dir().join(format!("upbeat-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let kept = if users { Kept::Users } else { Kept::Tokens };
        let file = CredentialsFile { path: path.clone(), kept, key: ("k".to_owned(), Some(3)) };
        let mut known = Credentials::default();
        let environment = |name: &str| (name == "T").then(|| "from-environment".to_owned());
        let problems = file.read(&mut known, environment);
        std::fs::remove_file(&path).unwrap();
        let path = format!("{}: ", path.display());
        (known, problems.iter().map(|it| it.to_string().replace(&path, "")).collect())
    }

    #[test]
    fn tokens_and_users_are_read() {
        let (known, problems) = read("tokens", false, "\"${T}\": a\nplain: b\n");
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(
            (known.token(&hash(b"from-environment")), known.token(&hash(b"plain"))),
            (Some("a"), Some("b"))
        );
        let (known, problems) = read("users", true, "ann: { password: '${T}', tenant: a }\n");
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(known.user(b"YW5uOmZyb20tZW52aXJvbm1lbnQ="), Some("a"));
    }

    #[test]
    fn what_is_wrong_is_told_without_the_secret() {
        for (users, text, expected) in [
            (
                false,
                "secret: 5\n",
                "k: entry 1: expected a token and its tenant, both in quotes, line 3",
            ),
            (
                false,
                "a: b\n'secret ': c\n",
                "k: entry 2: a token is visible ASCII without blanks, and not empty, line 3",
            ),
            (false, "- secret\n", "k: expected a mapping, line 3"),
            (
                false,
                "secret: a\nsecret: b\n",
                "k: is no valid YAML, or has a key twice, in its line 1, line 3",
            ),
            (
                false,
                "a: b\n${secret}: c\n",
                "k: a ${NAME} is not set, of more than one line, or not closed, in its line 2, line 3",
            ),
            (
                true,
                "ann: { password: secret, sha256: secret, tenant: a }",
                "k: entry 1: expected a user with a tenant, and a password or its sha256, in quotes, line 3",
            ),
            (
                true,
                "ann: { password: secret, tenant: a, secret: b }",
                "k: entry 1: expected a user with a tenant, and a password or its sha256, in quotes, line 3",
            ),
            (
                true,
                "ann: { sha256: secret, tenant: a }",
                "k: entry 1: sha256 is 64 hex digits, line 3",
            ),
        ] {
            assert_eq!(read("wrong", users, text).1, [expected], "{text}");
        }
    }
}
