//! Tokens of which one proves as much as another.

use std::{collections::HashSet, fmt};

use super::{
    super::{Problem, checked::CredentialsFile},
    Hash, hash, hash_of_token,
};

/// Tokens that name no tenant.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Tokens(HashSet<Hash>);

impl Tokens {
    /// Whether it is one of these. It is looked for as [`super::Credentials::token`] does.
    pub fn has(&self, token: &[u8]) -> bool {
        self.0.contains(&hash(token))
    }

    /// Adds a token; why it is none, in words that do not repeat it.
    pub(in crate::config) fn add(&mut self, token: &str) -> Result<(), &'static str> {
        self.0.insert(hash_of_token(token)?);
        Ok(())
    }

    /// Adds what the file has: one a line, with blank lines between them or not.
    pub(in crate::config) fn read(&mut self, file: &CredentialsFile) -> Vec<Problem> {
        let text = match file.text() {
            Ok(text) => text,
            Err(problem) => return vec![problem],
        };
        let lines = text.lines().zip(1..).map(|(line, number)| (line.trim(), number));
        let tokens: Vec<_> = lines.filter(|(line, _)| !line.is_empty()).collect();
        if tokens.is_empty() {
            return vec![file.problem("has no token".to_owned())];
        }
        let added = tokens.into_iter().filter_map(|(token, number)| {
            let words = self.add(token).err()?;
            Some(file.problem(format!("its line {number}: {words}")))
        });
        added.collect()
    }
}

/// Without what is in it.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::checked::Kept, *};

    fn read(name: &str, text: &str) -> (Tokens, Vec<String>) {
        let path = std::env::temp_dir().join(format!("upbeat-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let key = ("k".to_owned(), Some(3));
        let file = CredentialsFile { path: path.clone(), kept: Kept::Tokens, key };
        let mut tokens = Tokens::default();
        let problems = tokens.read(&file);
        std::fs::remove_file(&path).unwrap();
        let path = format!("{}: ", path.display());
        (tokens, problems.iter().map(|it| it.to_string().replace(&path, "")).collect())
    }

    #[test]
    fn each_line_of_the_file_is_a_token() {
        let (tokens, problems) = read("lines", "old\n\n new\r\nold\n");
        assert_eq!(problems, Vec::<String>::new());
        assert!(tokens.has(b"old") && tokens.has(b"new"));
        assert!(!tokens.has(b"") && !tokens.has(b"ol") && !tokens.has(b" new"));
        assert_eq!(format!("{tokens:?}"), "Tokens(2)");
    }

    #[test]
    fn what_is_wrong_with_the_file_is_told_without_the_secret() {
        let words = "a token is visible ASCII without blanks, and not empty";
        let two = format!("k: its line 2: {words}, line 3");
        for (text, expected) in [("a\nse cret\n", &*two), (" \n", "k: has no token, line 3")] {
            assert_eq!(read("wrong-lines", text).1, [expected]);
        }
    }
}
