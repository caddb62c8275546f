//! Who may call a listener.

use std::{path::PathBuf, time::Duration};

use super::{super::credentials::Credentials, UpstreamTls};

/// What calls must prove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Auth {
    /// Whoever is known; of `files` once they were read.
    pub credentials: Credentials,
    /// Whether `authorization: Bearer` is taken.
    pub bearer: bool,
    /// Whether `authorization: Basic` is taken.
    pub basic: bool,
    /// Which signed tokens are taken as `Bearer`, where any are.
    pub jwt: Option<Jwt>,
    /// Where more of them stand.
    pub files: Vec<CredentialsFile>,
    /// Whether endpoints see the credentials.
    pub forward: bool,
    /// Whether health checks and reflection need them too.
    pub health: bool,
}

/// A file of credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialsFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it has.
    pub kept: Kept,
    /// The key that names it, and its line.
    pub key: (String, Option<usize>),
}

/// What a file of credentials has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Tokens, each with its tenant.
    Tokens,
    /// Users, each with a password and a tenant.
    Users,
    /// The keys of an issuer of tokens.
    Keys,
}

/// Which signed tokens are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// Whence the keys are fetched; none where they are in a file.
    pub keys: Option<KeysFrom>,
    /// Who has made them.
    pub issuer: String,
    /// Whom they are for: one of these.
    pub audience: Vec<String>,
    /// What in them says the tenant.
    pub tenant_claim: String,
    /// How far clocks may differ.
    pub leeway: Duration,
}

/// Whence an issuer's keys are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysFrom {
    /// Over TLS, or else from this machine.
    pub tls: Option<UpstreamTls>,
    /// Whom to ask: a name or an address, and a port.
    pub host: String,
    /// See `host`.
    pub port: u16,
    /// The `host` field of the request.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// How often.
    pub refresh_interval: Duration,
}

/// Which tenants a listener takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tenants {
    /// These; all where it is none.
    pub allow: Option<Vec<String>>,
    /// What is set where a call has none.
    pub default: Option<String>,
}
