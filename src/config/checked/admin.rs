//! Who is answered by the administrative server, and where it is.

use std::net::SocketAddr;

use super::{super::credentials::Tokens, CredentialsFile, ListenerTls};

/// The administrative server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where to bind.
    pub address: SocketAddr,
    /// How it speaks TLS, where it does.
    pub tls: Option<ListenerTls>,
    /// Of which requests must have one; none where they need not. Those of `token_file` once it was
    /// read.
    pub tokens: Option<Tokens>,
    /// Where more of them stand.
    pub token_file: Option<CredentialsFile>,
}
