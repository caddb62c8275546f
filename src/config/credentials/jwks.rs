//! Keys that tokens are signed with, as an issuer publishes them (RFC 7517).

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde_json::Value;

/// The keys of one issuer: those of them that are of use.
#[derive(Clone, PartialEq, Eq)]
pub struct Jwks(Vec<SigningKey>);

/// One of them.
#[derive(Clone)]
struct SigningKey {
    jwk: Jwk,
    key: DecodingKey,
    algorithms: &'static [Algorithm],
}

impl Jwks {
    /// Reads a set. Keys that are for something else, or of an unknown kind, are passed over, as
    /// RFC 7517, 5 wants it.
    ///
    /// # Errors
    /// It is no set, or has no key of use.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let mut set: Value = serde_json::from_slice(text)
            .map_err(|error| format!("is no JSON, in its line {}", error.line()))?;
        let Some(Value::Array(keys)) = set.get_mut("keys").map(Value::take) else {
            return Err("is no set of keys: expected { \"keys\": […] }".to_owned());
        };
        let keys: Vec<_> = keys.into_iter().take(MOST).filter_map(SigningKey::of).collect();
        match keys.is_empty() {
            true => Err("has no key that signatures can be checked by: expected one of RSA from \
                2048 bits, EC on P-256 or P-384, or Ed25519"
                .to_owned()),
            false => Ok(Self(keys)),
        }
    }

    /// The key that a token's head asks for; why there is none.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&DecodingKey, NoKey> {
        let named = |it: &&SigningKey| kid.is_none_or(|kid| it.kid() == Some(kid));
        let mut fitting =
            self.0.iter().filter(named).filter(|it| it.algorithms.contains(&algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(&key.key),
            // What has a name twice is one key written twice, or a mistake of the issuer's.
            (Some(key), Some(_)) if kid.is_some() => Ok(&key.key),
            (None, _) if kid.is_some() && !self.0.iter().any(|it| named(&it)) => {
                Err(NoKey::Unknown)
            }
            _ => Err(NoKey::Unfit),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Why no key is there for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoKey {
    /// None has its name: the issuer may have a new one.
    Unknown,
    /// None is for its algorithm, or more than one where it names none.
    Unfit,
}

impl SigningKey {
    fn of(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let common = &jwk.common;
        let signs = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
        let verifies = common.key_operations.as_ref();
        if !signs || verifies.is_some_and(|it| !it.contains(&KeyOperations::Verify)) {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let (lawful, possible): (_, &'static [Algorithm]) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (is_long(&key), &RSA),
            AlgorithmParameters::EllipticCurve(it) => match it.curve {
                EllipticCurve::P256 => (key.as_bytes().len() == 65, &[Algorithm::ES256]),
                EllipticCurve::P384 => (key.as_bytes().len() == 97, &[Algorithm::ES384]),
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(it) if it.curve == EllipticCurve::Ed25519 => {
                (key.as_bytes().len() == 32, &[Algorithm::EdDSA])
            }
            // A secret that both sides have would let anybody sign who can check.
            AlgorithmParameters::OctetKeyPair(_) | AlgorithmParameters::OctetKey(_) => return None,
        };
        let algorithms = match common.key_algorithm {
            None => possible,
            Some(named) => {
                let at = possible.iter().position(|it| name(*it) == Some(named))?;
                &possible[at..=at]
            }
        };
        lawful.then_some(Self { jwk, key, algorithms })
    }

    fn kid(&self) -> Option<&str> {
        self.jwk.common.key_id.as_deref()
    }
}

/// Whether a key of RSA is long enough to be used at all.
fn is_long(key: &DecodingKey) -> bool {
    matches!(key.kind(), DecodingKeyKind::RsaModulusExponent { n, .. } if n.len() >= 2048 / 8)
}

fn name(algorithm: Algorithm) -> Option<KeyAlgorithm> {
    Some(match algorithm {
        Algorithm::RS256 => KeyAlgorithm::RS256,
        Algorithm::RS384 => KeyAlgorithm::RS384,
        Algorithm::RS512 => KeyAlgorithm::RS512,
        Algorithm::PS256 => KeyAlgorithm::PS256,
        Algorithm::PS384 => KeyAlgorithm::PS384,
        Algorithm::PS512 => KeyAlgorithm::PS512,
        Algorithm::ES256 => KeyAlgorithm::ES256,
        Algorithm::ES384 => KeyAlgorithm::ES384,
        Algorithm::EdDSA => KeyAlgorithm::EdDSA,
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => return None,
    })
}

impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        self.jwk == other.jwk
    }
}

impl Eq for SigningKey {}

/// By their names: that they are public is no reason to print them.
impl std::fmt::Debug for Jwks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(SigningKey::kid)).finish()
    }
}

/// What a key of RSA may sign by, where it does not say it itself.
const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
/// Keys of a set that are looked at.
const MOST: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str =
        r#""kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;

    #[test]
    fn what_is_no_public_key_for_signatures_is_passed_over() {
        let one = |keys: &str| Jwks::parse(format!("{{ \"keys\": [{{ {keys} }}] }}").as_bytes());
        assert_eq!(one(ED).unwrap().count(), 1);
        for keys in [
            format!("{ED}, \"use\": \"enc\""),
            format!("{ED}, \"alg\": \"RS256\""),
            format!("{ED}, \"alg\": \"HS256\""),
            format!("{ED}, \"key_ops\": [\"sign\"]"),
            ED.replace("11qY", ""),
            ED.replace("Ed25519", "P-256"),
            ED.replace("Ed25519", "X25519"),
            r#""kty": "oct", "k": "c2VjcmV0", "alg": "HS256""#.to_owned(),
            r#""kty": "EC", "crv": "P-256", "x": "AA", "y": "AA""#.to_owned(),
            r#""kty": "RSA", "n": "AQAB", "e": "AQAB""#.to_owned(),
            r#""kty": "new""#.to_owned(),
        ] {
            assert!(one(&keys).unwrap_err().starts_with("has no key"), "{keys}");
        }
        for text in ["", "[]", "{}", "{ \"keys\": {} }"] {
            assert!(Jwks::parse(text.as_bytes()).unwrap_err().starts_with("is no "), "{text}");
        }
        let mixed = format!("{{ \"keys\": [{{ \"kty\": \"new\" }}, {{ {ED} }}] }}");
        assert_eq!(Jwks::parse(mixed.as_bytes()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_is_found_by_its_name_or_where_it_is_the_only_one_that_fits() {
        let set = format!(
            "{{ \"keys\": [{{ {ED}, \"kid\": \"a\" }}, {{ {ED}, \"kid\": \"b\" }}, \
            {{ \"kty\": \"RSA\", \"n\": \"{}\", \"e\": \"AQAB\" }}] }}",
            "AQAB".repeat(86)
        );
        let set = Jwks::parse(set.as_bytes()).unwrap();
        assert_eq!(set.count(), 3);
        assert!(set.find(Some("a"), Algorithm::EdDSA).is_ok());
        for (kid, algorithm, expected) in [
            (Some("c"), Algorithm::EdDSA, NoKey::Unknown),
            (Some("a"), Algorithm::ES256, NoKey::Unfit),
            (Some("a"), Algorithm::HS256, NoKey::Unfit),
            (None, Algorithm::EdDSA, NoKey::Unfit),
            (None, Algorithm::HS256, NoKey::Unfit),
        ] {
            assert_eq!(set.find(kid, algorithm).err(), Some(expected), "{kid:?} {algorithm:?}");
        }
        assert!(set.find(None, Algorithm::PS384).is_ok());
    }
}
