//! Tokens that an issuer has signed (RFC 7519).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{
    Algorithm, Validation, decode, decode_header,
    errors::{Error, ErrorKind},
};
use serde_json::{Map, Value};

use super::{Denied, Keys};
use crate::config::{self, Hash, Jwks, NoKey, check_tenant};

/// Says the tenant of tokens.
#[derive(Debug)]
pub(super) struct Verifier {
    keys: Keys,
    rules: Validation,
    claim: String,
    known: Mutex<Known>,
}

/// Tokens that were found good, since a signature takes tens of microseconds: each with its end, in
/// seconds since 1970, and its tenant.
#[derive(Debug, Default)]
struct Known {
    /// By which keys. Others make them all unknown.
    by: Option<Arc<Jwks>>,
    tokens: HashMap<Hash, (u64, Arc<str>)>,
}

impl Verifier {
    pub(super) fn new(config: &config::Jwt, keys: Keys) -> Self {
        // The algorithms are those of the key, each time.
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.leeway = config.leeway.as_secs();
        rules.validate_nbf = true;
        rules.set_issuer(&[&config.issuer]);
        rules.set_audience(&config.audience);
        rules.set_required_spec_claims(&["exp", "iss", "aud"]);
        Self { keys, rules, claim: config.tenant_claim.clone(), known: Mutex::default() }
    }

    /// Goes by these keys from now on.
    pub(super) fn follow(&mut self, keys: Keys) {
        self.keys = keys;
    }

    /// The tenant of a token, of which this is the hash.
    pub(super) fn tenant(&self, token: &[u8], hash: &Hash) -> Result<Arc<str>, Denied> {
        if token.len() > LONGEST {
            return Err(Denied::BadToken);
        }
        let keys = self.keys.now();
        if let Some(tenant) = self.known(keys.as_ref(), hash) {
            return Ok(tenant);
        }
        let head = decode_header(token).map_err(|_| Denied::BadToken)?;
        // Whatever must be understood is not (RFC 7515, 4.1.11), and a secret that both sides
        // have is never a key here, whatever the issuer's set is.
        let shared = matches!(head.alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
        if head.crit.is_some() || shared {
            return Err(Denied::BadToken);
        }
        let keys = keys.ok_or(Denied::NoKeys)?;
        let key = keys.find(head.kid.as_deref(), head.alg).map_err(|none| match none {
            NoKey::Unknown if self.keys.want() => Denied::NoKeys,
            NoKey::Unknown | NoKey::Unfit => Denied::TokenKey,
        })?;
        let mut rules = self.rules.clone();
        rules.algorithms = vec![head.alg];
        let token = decode::<Map<String, Value>>(token, key, &rules);
        let claims = token.map_err(|error| denied(&error))?.claims;
        let tenant = claims.get(&self.claim).and_then(Value::as_str);
        let lawful = tenant.filter(|tenant| check_tenant(tenant).is_ok());
        let tenant: Arc<str> = lawful.ok_or(Denied::TokenTenant)?.into();
        let end = claims.get("exp").and_then(seconds).ok_or(Denied::BadToken)?;
        self.learn(keys, *hash, (end.saturating_add(self.rules.leeway), Arc::clone(&tenant)));
        Ok(tenant)
    }

    fn known(&self, keys: Option<&Arc<Jwks>>, hash: &Hash) -> Option<Arc<str>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.by.as_ref().zip(keys).is_some_and(|(by, keys)| Arc::ptr_eq(by, keys)) {
            return None;
        }
        let (end, tenant) = known.tokens.get(hash)?;
        (now() <= *end).then(|| Arc::clone(tenant))
    }

    /// Remembers a token. One that was checked by keys that are over is looked for in vain, and
    /// makes room for the next.
    fn learn(&self, keys: Arc<Jwks>, hash: Hash, token: (u64, Arc<str>)) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.by.as_ref().is_some_and(|by| Arc::ptr_eq(by, &keys)) {
            known.tokens.clear();
            known.by = Some(keys);
        }
        if known.tokens.len() >= MOST {
            let now = now();
            known.tokens.retain(|_, (end, _)| now <= *end);
        }
        if known.tokens.len() >= MOST {
            known.tokens.clear();
        }
        known.tokens.insert(hash, token);
    }
}

/// What is wrong with a token. That its time or its audience is wrong is said of those alone that
/// are signed as they should be.
fn denied(error: &Error) -> Denied {
    match error.kind() {
        ErrorKind::ExpiredSignature | ErrorKind::ImmatureSignature => Denied::TokenTime,
        ErrorKind::MissingRequiredClaim(claim) if claim == "exp" => Denied::TokenTime,
        ErrorKind::InvalidIssuer
        | ErrorKind::InvalidAudience
        | ErrorKind::MissingRequiredClaim(_) => Denied::TokenScope,
        _ => Denied::BadToken,
    }
}

/// A NumericDate, rounded as the library does it.
fn seconds(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().map(|seconds| seconds.round() as u64))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// In bytes. The list of all fields is bounded too.
const LONGEST: usize = 8 << 10;
/// Tokens that are remembered.
const MOST: usize = 4096;
