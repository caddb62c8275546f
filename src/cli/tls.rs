//! How the server that is asked speaks TLS, as it is typed.

use std::{path::PathBuf, sync::Arc};

use crate::{
    config::{KeyPair, UpstreamTls},
    tls::Connector,
};

/// Arguments of commands that ask a server.
#[derive(Debug, clap::Args)]
pub(super) struct Tls {
    /// Speak TLS
    #[arg(long)]
    pub(super) tls: bool,
    /// Whom the server's certificate must be from, in PEM; by default whom the system trusts
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca: Option<PathBuf>,
    /// The name that the certificate must have; by default the host of the address
    #[arg(long, value_name = "NAME", requires = "tls")]
    server_name: Option<String>,
    /// The certificate to show to the server, in PEM
    #[arg(long, value_name = "FILE", requires_all = ["tls", "key"])]
    cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl Tls {
    /// What handshakes with the server at `address`, a host and a port, need; none without TLS.
    ///
    /// # Errors
    /// What is wrong with the files or the name.
    pub(super) fn connector(&self, address: &str) -> Result<Option<Arc<Connector>>, String> {
        if !self.tls {
            return Ok(None);
        }
        let host = address.rsplit_once(':').map_or("", |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = self.server_name.as_deref().unwrap_or(host);
        let own = self.cert.clone().zip(self.key.clone());
        let config = UpstreamTls {
            ca_file: self.ca.clone(),
            server_name: Some(name.to_owned()),
            expect_san: Vec::new(),
            own: own.map(|(cert_file, key_file)| KeyPair {
                cert_file,
                key_file,
                ocsp_file: None,
                path: PATH.to_owned(),
            }),
            path: PATH.to_owned(),
        };
        match Connector::new(&config) {
            Ok(made) => Ok(Some(Arc::new(made))),
            Err(problems) => {
                let words: Vec<_> = problems.into_iter().map(|it| it.message).collect();
                Err(words.join("\n"))
            }
        }
    }
}

/// In the place of a section of the configuration.
const PATH: &str = "TLS";
