//! TLS, as the YAML has it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

/// How a listener speaks TLS: 1.2 and 1.3, with HTTP/2 and HTTP/1.1 by ALPN.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct ListenerTls {
    /// The certificate and those that it was issued by, in PEM. Required, here or in
    /// `certificates`.
    pub(in crate::config) cert_file: Option<PathBuf>,
    /// Its private key, in PEM.
    pub(in crate::config) key_file: Option<PathBuf>,
    /// What the issuer says of the certificate now, an OCSP response in DER, which clients are sent
    /// with it (RFC 6066, 8). Something else has to fetch it in time. Default: none.
    pub(in crate::config) ocsp_file: Option<PathBuf>,
    /// More of them: the first one is shown that has the name which a client asks for (SNI), and
    /// the first of all to others; where that is a kind of key which the client does not know, the
    /// next one, so that a name may have one of EC and one of RSA. Default: none.
    pub(in crate::config) certificates: Vec<KeyPair>,
    /// Whom clients must have their certificates from, in PEM: up to five others may stand between.
    /// Default: none, they need none.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) client_ca_file: Option<PathBuf>,
    /// Whether clients need a certificate. Default: `required` with a `client_ca_file`, else `none`.
    pub(in crate::config) client_auth: Option<ClientAuth>,
    /// Lists of clients' certificates that are not valid any more, in PEM: one of each issuer, which is
    /// used beyond its nextUpdate too. Default: none.
    pub(in crate::config) crl_files: Vec<PathBuf>,
    /// Whether clients may also speak without TLS on this port, which they cannot where a
    /// certificate is required of them. Default: false.
    pub(in crate::config) plain: bool,
}

/// How the endpoints of an upstream speak TLS: 1.2 or 1.3, and HTTP/2 by ALPN.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct UpstreamTls {
    /// Whom their certificates must be from, in PEM. Default: whom the system trusts.
    pub(in crate::config) ca_file: Option<PathBuf>,
    /// The name that their certificates must have, and that they are asked for (SNI). Default: the
    /// name of `dns`, or else the endpoint's IP address.
    pub(in crate::config) server_name: Option<String>,
    /// URIs of which their certificates must have one, such as
    /// `spiffe://cluster.local/ns/tempo/sa/distributor`: the name is not looked at then. Default:
    /// none.
    pub(in crate::config) expect_san: Vec<String>,
    /// The certificate that is shown to them, in PEM. Default: none.
    pub(in crate::config) cert_file: Option<PathBuf>,
    /// Its private key, in PEM. Required with `cert_file`.
    pub(in crate::config) key_file: Option<PathBuf>,
}

/// A certificate and its private key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct KeyPair {
    /// The certificate and those that it was issued by, in PEM. Required.
    pub(in crate::config) cert_file: Option<PathBuf>,
    /// Its private key, in PEM. Required.
    pub(in crate::config) key_file: Option<PathBuf>,
    /// What the issuer says of the certificate now, an OCSP response in DER, which clients are sent
    /// with it (RFC 6066, 8). Something else has to fetch it in time. Default: none.
    pub(in crate::config) ocsp_file: Option<PathBuf>,
}

/// Whether clients need a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum ClientAuth {
    /// None is asked for.
    None,
    /// One that a client has must be good.
    Optional,
    /// Without a good one there is no connection.
    Required,
}

/// A section that is written without content is there all the same.
pub(super) fn given<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(|it: Option<T>| Some(it.unwrap_or_default()))
}
