//! Whose certificates are shown and trusted.

use std::path::PathBuf;

/// How a listener speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// At least one. The first is for clients that ask for no name, or for one that none has.
    pub certificates: Vec<KeyPair>,
    /// Whose certificates are asked for; none where clients need no certificate.
    pub clients: Option<Clients>,
    /// Whether clients may also speak without TLS.
    pub plain: bool,
    /// Where this section stands, for reports that name the key to set.
    pub path: String,
}

impl ListenerTls {
    /// The same, wherever it stands.
    pub fn anywhere(&self) -> Self {
        let placed = self.certificates.iter().cloned();
        let certificates = placed.map(|it| KeyPair { path: String::new(), ..it }).collect();
        Self { certificates, path: String::new(), ..self.clone() }
    }

    /// All files that are named.
    pub(in crate::config) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let pairs = self.certificates.iter().flat_map(KeyPair::files);
        let clients = self.clients.iter();
        pairs.chain(clients.flat_map(|it| [&it.ca_file].into_iter().chain(&it.crl_files)))
    }
}

/// How the endpoints of an upstream speak TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Whom their certificates must be from; none are those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// The name that their certificates must have, where it is not their address.
    pub server_name: Option<String>,
    /// URIs of which their certificates must have one, in the place of the name. Mostly none.
    pub expect_san: Vec<String>,
    /// What is shown to them.
    pub own: Option<KeyPair>,
    /// Where this section stands, for reports that name the key to set.
    pub path: String,
}

impl UpstreamTls {
    /// All files that are named.
    pub(in crate::config) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let own = self.own.iter().flat_map(KeyPair::files);
        self.ca_file.iter().chain(own)
    }
}

/// Files of a certificate and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The certificate, and those that it was issued by.
    pub cert_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
    /// An OCSP response for the certificate.
    pub ocsp_file: Option<PathBuf>,
    /// Where the keys stand, for reports that name them.
    pub path: String,
}

impl KeyPair {
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.cert_file, &self.key_file].into_iter().chain(&self.ocsp_file)
    }
}

/// Which clients are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// Whom their certificates must be from.
    pub ca_file: PathBuf,
    /// Whether one without a certificate is refused.
    pub required: bool,
    /// Lists of those that are not valid any more.
    pub crl_files: Vec<PathBuf>,
}
