//! Who may call, as the YAML has it.

use std::{borrow::Cow, fmt, path::PathBuf, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// What calls must prove. Those that prove nothing end with 16 before a backend is chosen. The
/// tenant of what they prove is set as `x-scope-orgid`, whatever they say themselves.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Auth {
    /// `authorization: Bearer TOKEN`. Default: not taken.
    pub(in crate::config) bearer: Option<Bearer>,
    /// `authorization: Basic` with a user and a password. Default: not taken.
    pub(in crate::config) basic: Option<Basic>,
    /// `authorization: Bearer` with a token that an issuer has signed. Default: not taken.
    pub(in crate::config) jwt: Option<Jwt>,
    /// The certificate that a client shows in its TLS handshake, for calls without `authorization`.
    /// Default: not asked.
    pub(in crate::config) mtls: Option<Mtls>,
    /// Whether `authorization` is passed on to endpoints. Default: false, but true where only
    /// `mtls` is there, since nobody looks at it then.
    pub(in crate::config) forward_credentials: Option<bool>,
    /// Whether health checks, but for `/livez`, and reflection need credentials too. Default:
    /// false, since load balancers have none.
    pub(in crate::config) health: bool,
}

/// Tokens that are known. At least one of the keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Bearer {
    /// A YAML file that says of each token its tenant: `TOKEN: team-a`; `${NAME}` is replaced in it
    /// too. Read at the start and with each reload.
    pub(in crate::config) tokens_file: Option<PathBuf>,
    /// Tokens that stand here, such as `{ token: "${TOKEN}", tenant: team-a }`.
    pub(in crate::config) tokens: Vec<Token>,
}

/// A token and its tenant.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Token {
    /// Required.
    pub(in crate::config) token: Secret,
    /// Required.
    pub(in crate::config) tenant: String,
}

/// Users that are known. At least one of the keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Basic {
    /// A YAML file that says of each user a password, or its SHA-256 in hexadecimal digits, and the
    /// tenant: `USER: { password: "${NAME}", tenant: team-a }`. Read as `tokens_file` is.
    pub(in crate::config) users_file: Option<PathBuf>,
    /// Users that stand here.
    pub(in crate::config) users: Vec<User>,
}

/// A user and its tenant.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct User {
    /// The user's name. Required.
    pub(in crate::config) user: String,
    /// Exactly one of this and `sha256`.
    pub(in crate::config) password: Option<Secret>,
    /// The password's SHA-256 in hexadecimal digits: for long random ones, since short ones are
    /// soon guessed from it.
    pub(in crate::config) sha256: Option<Secret>,
    /// Required.
    pub(in crate::config) tenant: String,
}

/// Tokens that an issuer has signed (RFC 7519), by RSA, EC on P-256 or P-384, or Ed25519, and as
/// the key says, where it does. They must have an `exp`; an `nbf` counts too.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Jwt {
    /// The issuer's keys (RFC 7517). Exactly one of this and `jwks_url`. Read as `tokens_file` is.
    pub(in crate::config) jwks_file: Option<PathBuf>,
    /// Whence the keys are fetched: `https`, or `http` from this machine, such as
    /// `http://127.0.0.1:8080/keys`. Until they came once, such calls end with 14; after that the
    /// last ones stay for as long as no others can be had.
    pub(in crate::config) jwks_url: Option<String>,
    /// How often they are fetched; once more where a token names a key that is not among them, but
    /// not within 30s. Default: 5m.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub(in crate::config) refresh_interval: Duration,
    /// Whom the certificate behind `jwks_url` must be from, in PEM. Default: whom the system
    /// trusts.
    pub(in crate::config) ca_file: Option<PathBuf>,
    /// What `iss` must be. Required.
    pub(in crate::config) issuer: Option<String>,
    /// Of which `aud` must have one. Required.
    pub(in crate::config) audience: Vec<String>,
    /// The claim that says the tenant. A token without it ends with 7. Default: `tenant`.
    pub(in crate::config) tenant_claim: String,
    /// How far the issuer's clock may be from this one. Default: 30s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub(in crate::config) leeway: Duration,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            jwks_file: None,
            jwks_url: None,
            refresh_interval: Duration::from_secs(300),
            ca_file: None,
            issuer: None,
            audience: Vec::new(),
            tenant_claim: "tenant".to_owned(),
            leeway: Duration::from_secs(30),
        }
    }
}

/// Clients that are known by their certificates, which must be from the listener's
/// `tls.client_ca_file`. A call of any other one ends with 7.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Mtls {
    /// Whom a certificate may name; the first one that fits counts. At least one.
    pub(in crate::config) identities: Vec<Identity>,
}

/// A name in certificates and its tenant.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Identity {
    /// A subject alternative name: a URI such as `spiffe://prod/ns/a/sa/agent`, one that ends in a
    /// `*` behind a `/` for all plain paths below it (no `..`, nothing escaped), or a whole DNS
    /// name. Required.
    pub(in crate::config) san: String,
    /// Required.
    pub(in crate::config) tenant: String,
}

/// Which tenants a listener takes, by `x-scope-orgid`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Tenant {
    /// Any other one ends with 7, and so does a call with more than one. Compared as a whole:
    /// `a|b` is another tenant than `a`. Default: all.
    pub(in crate::config) allow: Option<Vec<String>>,
    /// What is set where a call has none. Default: it ends with 16.
    pub(in crate::config) default: Option<String>,
}

/// A text that no message repeats.
#[derive(Clone, PartialEq, Eq, Default)]
pub(in crate::config) struct Secret(pub(in crate::config) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// By hand: what serde says of a number has the number in it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Option<Secret>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Some(Secret(text.to_owned())))
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(None)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(None)
            }
        }

        let text = deserializer.deserialize_any(Text)?;
        text.ok_or_else(|| D::Error::custom("must be a text in quotes"))
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}
