//! What is said of a mistake in a section of credentials: its text may well be one of them, such as
//! a token that stands where a key should.

use super::super::{Problem, written::names_secret};

/// Takes out of problems in such a section whatever may be a secret: found values, unknown keys,
/// and the places below an item of a list; and of any other key that has one, what was found.
pub(in crate::config) fn conceal(problems: &mut Vec<Problem>) {
    for problem in problems.iter_mut() {
        if problem.path.rsplit('.').next().is_some_and(names_secret)
            && let Some((expected, _)) = problem.message.split_once(", found ")
        {
            problem.message.truncate(expected.len());
        }
        let Some(at) = SECTIONS.iter().find_map(|it| Some(problem.path.find(it)? + it.len()))
        else {
            continue;
        };
        let end = at + known(&problem.path[at..]);
        let message = match problem.message.split_once(", found ") {
            Some((expected, _)) if expected.starts_with("expected ") => expected,
            _ if end == problem.path.len() && problem.message.starts_with("must be ") => continue,
            _ => EXPECTED,
        };
        problem.message = message.to_owned();
        problem.path.truncate(end);
    }
    let mut seen = Vec::new();
    problems.retain(|problem| {
        let new = !seen.contains(&problem.path);
        seen.push(problem.path.clone());
        new
    });
}

/// How much of a path is keys that there are, and indices.
fn known(path: &str) -> usize {
    let mut length = 0;
    while let Some(rest) = path.get(length..) {
        let key = KEYS.iter().find(|key| {
            let rest = rest.strip_prefix('.').and_then(|rest| rest.strip_prefix(**key));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        });
        let index = rest.starts_with('[').then(|| rest.find(']')).flatten();
        length += match (key, index) {
            (Some(key), _) => key.len() + 1,
            (None, Some(end)) => end + 1,
            (None, None) => break,
        };
    }
    length
}

const SECTIONS: [&str; 3] = ["].auth.bearer", "].auth.basic", "admin.tokens"];
const KEYS: [&str; 9] = [
    "tokens_file",
    "tokens",
    "token",
    "tenant",
    "users_file",
    "users",
    "user",
    "password",
    "sha256",
];
const EXPECTED: &str = "has a key that it cannot have, or has it twice";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_may_be_a_secret_is_repeated() {
        let problem = |path: &str, message: &str| Problem {
            path: path.to_owned(),
            message: message.to_owned(),
            line: None,
        };
        let mut problems = vec![
            problem("listeners[0].auth.bearer", "expected a mapping, found \"s3cret\""),
            problem("listeners[0].auth.bearer.tokens.s3cret", "is given in line 3 already"),
            problem("listeners[0].auth.bearer.tokens[1]", "expected a mapping, found \"s3cret\""),
            problem("listeners[0].auth.bearer.tokens[2].s3cret", "unknown key `s3cret`, expected"),
            problem("listeners[0].auth.bearer.tokens[2].s4cret", "unknown key `s4cret`, expected"),
            problem("listeners[0].auth.basic.\"s3 c.ret\"", "unknown key `s3 c.ret`, expected"),
            problem("listeners[0].auth.basic.users[0].password", "must be a text in quotes"),
            problem("listeners[0].auth.jwt", "unknown key `jwt`, expected"),
            problem("admin.tokens", "expected a list, found \"s3cret\""),
            problem("checks[0].grpc.metadata.X-Api-Key", "expected a string in quotes, found 53"),
            problem("checks[0].grpc.metadata.x-org", "expected a string in quotes, found 53"),
        ];
        conceal(&mut problems);
        let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let odd = format!(": {EXPECTED}");
        assert_eq!(
            said,
            [
                "listeners[0].auth.bearer: expected a mapping".to_owned(),
                "listeners[0].auth.bearer.tokens".to_owned() + &odd,
                "listeners[0].auth.bearer.tokens[1]: expected a mapping".to_owned(),
                "listeners[0].auth.bearer.tokens[2]".to_owned() + &odd,
                "listeners[0].auth.basic".to_owned() + &odd,
                "listeners[0].auth.basic.users[0].password: must be a text in quotes".to_owned(),
                "listeners[0].auth.jwt: unknown key `jwt`, expected".to_owned(),
                "admin.tokens: expected a list".to_owned(),
                "checks[0].grpc.metadata.X-Api-Key: expected a string in quotes".to_owned(),
                "checks[0].grpc.metadata.x-org: expected a string in quotes, found 53".to_owned(),
            ]
        );
    }
}
