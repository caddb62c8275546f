//! Who may call a listener.

use std::path::PathBuf;

use super::super::credentials::Credentials;

/// What calls must prove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Auth {
    /// Whoever is known; of `files` once they were read.
    pub credentials: Credentials,
    /// Whether `authorization: Bearer` is taken.
    pub bearer: bool,
    /// Whether `authorization: Basic` is taken.
    pub basic: bool,
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
    /// Whether it has users, or else tokens.
    pub users: bool,
    /// The key that names it, and its line.
    pub key: (String, Option<usize>),
}

/// Which tenants a listener takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tenants {
    /// These; all where it is none.
    pub allow: Option<Vec<String>>,
    /// What is set where a call has none.
    pub default: Option<String>,
}
