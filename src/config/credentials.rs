//! Who may call, by what proves it. No secret is kept: a token is known by its SHA-256, and so is
//! a password.

mod file;
mod jwks;
mod san;
mod tokens;

use std::{collections::HashMap, fmt, sync::Arc};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};
use base64::{Engine, engine::general_purpose::STANDARD};

pub use self::{
    jwks::{Jwks, NoKey},
    san::San,
    tokens::Tokens,
};

/// Tokens, users and certificates, and the tenant of each.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    tokens: HashMap<Hash, String>,
    users: HashMap<String, (Hash, String)>,
    identities: Vec<(San, Arc<str>)>,
    keys: Option<Jwks>,
}

/// What stands for a secret.
pub type Hash = [u8; 32];

/// A password, as it is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Password<'a> {
    Plain(&'a str),
    /// Of its bytes, in hexadecimal digits.
    Sha256(&'a str),
}

impl Credentials {
    /// The tenant of a token by its [`hash`]: how long it takes to look for that tells of the hash,
    /// which nobody can steer, and nothing of the tokens that there are.
    pub fn token(&self, hash: &Hash) -> Option<&str> {
        self.tokens.get(hash).map(String::as_str)
    }

    /// The tenant of a user by `user:password` in base64 (RFC 7617). A user that there is not costs
    /// the same as a wrong password.
    pub fn user(&self, encoded: &[u8]) -> Option<&str> {
        let plain = STANDARD.decode(encoded).ok()?;
        let colon = plain.iter().position(|byte| *byte == b':')?;
        let user = str::from_utf8(&plain[..colon]).ok().and_then(|user| self.users.get(user));
        let (wanted, tenant) = user.map_or((&NOBODY, None), |(hash, tenant)| (hash, Some(tenant)));
        let same = verify_slices_are_equal(&hash(&plain[colon + 1..]), wanted).is_ok();
        tenant.filter(|_| same).map(String::as_str)
    }

    /// Certificates that are known, each by a name in it; the first one that fits counts.
    pub fn identities(&self) -> &[(San, Arc<str>)] {
        &self.identities
    }

    /// The keys that tokens are signed with, where they are in a file.
    pub fn keys(&self) -> Option<&Jwks> {
        self.keys.as_ref()
    }

    /// Adds a name in certificates; why it is none.
    pub(super) fn add_identity(&mut self, san: &str, tenant: &str) -> Result<(), &'static str> {
        let san = San::parse(san)?;
        check_tenant(tenant)?;
        if self.identities.iter().any(|(other, _)| *other == san) {
            return Err("the san is given twice");
        }
        self.identities.push((san, tenant.into()));
        Ok(())
    }

    /// Adds a token; why it is none, in words that do not repeat it.
    pub(super) fn add_token(&mut self, token: &str, tenant: &str) -> Result<(), &'static str> {
        let hash = hash_of_token(token)?;
        check_tenant(tenant)?;
        match self.tokens.insert(hash, tenant.to_owned()) {
            Some(_) => Err("the token is given twice"),
            None => Ok(()),
        }
    }

    /// Adds a user; why it is none, in words that repeat no secret.
    pub(super) fn add_user(
        &mut self,
        user: &str,
        password: Password<'_>,
        tenant: &str,
    ) -> Result<(), &'static str> {
        if user.is_empty() || user.contains(':') {
            return Err("a user's name is not empty, and has no colon");
        }
        let hash = match password {
            Password::Plain("") => return Err("the password is empty"),
            Password::Plain(password) => hash(password.as_bytes()),
            Password::Sha256(digits) => hexadecimal(digits).ok_or("sha256 is 64 hex digits")?,
        };
        check_tenant(tenant)?;
        match self.users.insert(user.to_owned(), (hash, tenant.to_owned())) {
            Some(_) => Err("the user is given twice"),
            None => Ok(()),
        }
    }
}

/// Without what is in it.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tokens, users) = (self.tokens.len(), self.users.len());
        f.debug_struct("Credentials").field("tokens", &tokens).field("users", &users).finish()
    }
}

/// Why a text names no tenant. What Tempo takes (grafana/dskit, tenant), and `|` between several.
/// # Errors
/// What a tenant is.
pub fn check_tenant(tenant: &str) -> Result<(), &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!-_.*'()".contains(&byte);
    let lawful = |part: &str| {
        !matches!(part, "" | "." | "..") && part.len() <= 150 && part.bytes().all(plain)
    };
    match tenant.split('|').all(lawful) {
        true => Ok(()),
        false => Err("a tenant is up to 150 letters, digits and !-_.*'(), not . or .."),
    }
}

/// What a token is known by; why it is none, in words that do not repeat it.
fn hash_of_token(token: &str) -> Result<Hash, &'static str> {
    match !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(hash(token.as_bytes())),
        false => Err("a token is visible ASCII without blanks, and not empty"),
    }
}

/// The SHA-256 of a secret.
pub fn hash(secret: &[u8]) -> Hash {
    digest(&SHA256, secret).as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

fn hexadecimal(digits: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(hash)
}

/// The hash of no password that is known.
const NOBODY: Hash = [0; 32];

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn some() -> Credentials {
        let mut some = Credentials::default();
        some.add_token("t0ken", "a").unwrap();
        some.add_user("ann", Password::Plain("pa:ss"), "a").unwrap();
        some.add_user("bob", Password::Sha256(HASH), "b").unwrap();
        some
    }

    #[test]
    fn tokens_and_passwords_name_tenants() {
        let some = some();
        assert_eq!(some.token(&hash(b"t0ken")), Some("a"));
        assert_eq!((some.token(&hash(b"t0ke")), some.token(&hash(b""))), (None, None));
        for (text, tenant) in [
            ("ann:pa:ss", Some("a")),
            ("bob:secret", Some("b")),
            ("bob:Secret", None),
            ("ann:", None),
            ("eve:secret", None),
            ("ann", None),
        ] {
            assert_eq!(some.user(STANDARD.encode(text).as_bytes()), tenant, "{text}");
        }
        assert_eq!(some.user(b"!"), None);
    }

    #[test]
    fn what_is_shown_has_no_secret() {
        assert_eq!(format!("{:?}", some()), "Credentials { tokens: 1, users: 2 }");
    }

    #[test]
    fn what_proves_nothing_is_refused() {
        let mut some = some();
        for (token, tenant) in
            [("", "a"), ("a b", "a"), ("t0ken", "b"), ("x", ""), ("y", "a b"), ("z", "a|..")]
        {
            assert!(some.add_token(token, tenant).is_err(), "{token:?} {tenant:?}");
        }
        assert!(some.add_token("both", "a|b").is_ok());
        for (user, password) in [
            ("", Password::Plain("p")),
            ("a:b", Password::Plain("p")),
            ("c", Password::Plain("")),
            ("d", Password::Sha256("00")),
            ("ann", Password::Plain("p")),
        ] {
            assert!(some.add_user(user, password, "a").is_err(), "{user:?}");
        }
    }
}
