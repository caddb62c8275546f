//! The administrative server, as the YAML has it.

use std::{net::SocketAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    auth::Secret,
    tls::{ListenerTls, given},
};

/// The administrative HTTP server: `/metrics`, `/status`, `/simulate`, `/config`, `/livez`,
/// `/readyz`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Admin {
    /// IP address and port. One that other machines reach needs `tokens`, a `token_file`, or client
    /// certificates that are required. Default: `127.0.0.1:9901`.
    #[schemars(with = "String")]
    pub(in crate::config) address: SocketAddr,
    /// TLS, as a listener's but for `plain`. Default: none.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<ListenerTls>")]
    pub(in crate::config) tls: Option<ListenerTls>,
    /// Tokens such as `"${ADMIN_TOKEN}"`, of which every request but for `/livez` and `/readyz` must
    /// have one as `authorization: Bearer TOKEN`. Where `tls.client_auth` is `optional`, a client
    /// certificate will do. Default: none, and no request needs one.
    pub(in crate::config) tokens: Vec<Secret>,
    /// A file of more of them, one a line. Read at the start, and again when it changes. Default:
    /// none.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) token_file: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 9901));
        Self { address, tls: None, tokens: Vec::new(), token_file: None }
    }
}
