//! The rules of TLS. What the files have in them is seen where they are used.

use super::{
    super::{
        checked::{Clients, KeyPair, ListenerTls, UpstreamTls},
        document::{self, ClientAuth},
    },
    Checker,
};

impl Checker<'_> {
    pub(super) fn listener_tls(&mut self, path: String, raw: document::ListenerTls) -> ListenerTls {
        let document::ListenerTls { certificates: more, plain, .. } = raw;
        let (cert_file, key_file, ocsp_file) = (raw.cert_file, raw.key_file, raw.ocsp_file);
        let mut certificates = Vec::new();
        if more.is_empty() || cert_file.is_some() || key_file.is_some() || ocsp_file.is_some() {
            let pair = document::KeyPair { cert_file, key_file, ocsp_file };
            certificates.extend(self.key_pair(path.clone(), pair));
        }
        for (index, pair) in more.into_iter().enumerate() {
            let path = format!("{path}.certificates[{index}]");
            certificates.extend(self.key_pair(path, pair));
        }
        let default = match raw.client_ca_file {
            Some(_) => ClientAuth::Required,
            None => ClientAuth::None,
        };
        let auth = raw.client_auth.unwrap_or(default);
        if raw.client_ca_file.as_ref().is_none_or(|file| file.as_os_str().is_empty()) {
            let words = "is required: whom clients must have their certificates from";
            if auth != ClientAuth::None || !raw.crl_files.is_empty() {
                self.problem(&format!("{path}.client_ca_file"), words);
            }
        }
        if plain && auth == ClientAuth::Required {
            let words =
                "cannot be true where clients need a certificate: without TLS they have none";
            self.problem(&format!("{path}.plain"), words);
        }
        let clients = raw.client_ca_file.filter(|_| auth != ClientAuth::None).map(|ca_file| {
            let required = auth == ClientAuth::Required;
            Clients { ca_file, required, crl_files: raw.crl_files }
        });
        ListenerTls { certificates, clients, plain, path }
    }

    /// `name` is that of the endpoints in the DNS, where they have one.
    pub(super) fn upstream_tls(
        &mut self,
        path: String,
        raw: document::UpstreamTls,
        name: Option<&str>,
    ) -> UpstreamTls {
        let document::UpstreamTls { ca_file, server_name, expect_san, cert_file, key_file } = raw;
        for (index, uri) in expect_san.iter().enumerate() {
            if !uri.contains("://") {
                let words = "is not a URI, such as spiffe://a/b: for a name there is server_name";
                self.problem(&format!("{path}.expect_san[{index}]"), format!("{uri:?} {words}"));
            }
        }
        let own = match (cert_file, key_file) {
            (None, None) => None,
            (cert_file, key_file) => {
                let pair = document::KeyPair { cert_file, key_file, ocsp_file: None };
                self.key_pair(path.clone(), pair)
            }
        };
        let server_name = server_name.or_else(|| name.map(ToOwned::to_owned));
        UpstreamTls { ca_file, server_name, expect_san, own, path }
    }

    /// A certificate and its key, of which neither is of use alone.
    fn key_pair(&mut self, path: String, raw: document::KeyPair) -> Option<KeyPair> {
        let what = "a file in PEM";
        let cert_file = self.required(&format!("{path}.cert_file"), raw.cert_file, what);
        let key_file = self.required(&format!("{path}.key_file"), raw.key_file, what);
        let (cert_file, key_file) = cert_file.zip(key_file)?;
        Some(KeyPair { cert_file, key_file, ocsp_file: raw.ocsp_file, path })
    }
}
