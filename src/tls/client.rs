//! An upstream's side: whom its endpoints are trusted by, and as whom they are called.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, RootCertStore, client::ResolvesClientCert, pki_types::ServerName,
    sign::SingleCertAndKey,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{PROTOCOLS, files::Files, provider, uri::ByUri};
use crate::config::{Problem, UpstreamTls};

/// What handshakes with the endpoints of an upstream need.
#[derive(Debug)]
pub struct Connector {
    /// Another one where the files have something else in them, which the number stands for.
    made: Mutex<(u64, Arc<ClientConfig>)>,
    /// The name that certificates must have, where it is not the endpoint's address.
    name: Option<ServerName<'static>>,
    /// Of what it was made.
    source: (UpstreamTls, u64),
    ends: Vec<(PathBuf, i64)>,
}

/// What is to be spoken under TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// gRPC's.
    Http2,
    /// That of a GET.
    Http1,
}

impl Connector {
    /// Reads the files that `config` names.
    ///
    /// # Errors
    /// Everything that is wrong with them, without lines.
    pub fn new(config: &UpstreamTls) -> Result<Self, Vec<Problem>> {
        let mut files = Files::default();
        let roots = match &config.ca_file {
            Some(file) => files.roots(format!("{}.ca_file", config.path), file),
            None => system(&mut files, &config.path),
        };
        let own = match &config.own {
            Some(own) => files.pair(own).map(Some),
            None => Some(None),
        };
        let name = config.server_name.as_ref().map(|name| {
            ServerName::try_from(name.clone()).map_err(|_| {
                let message = format!("{name:?} is neither a DNS name nor an IP address");
                files.problem(format!("{}.server_name", config.path), message);
            })
        });
        let source = (config.clone(), files.fingerprint());
        let ends = files.ends();
        let (roots, own) = files.end(roots.zip(own))?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("the provider has suites for both versions");
        let builder = match config.expect_san.is_empty() {
            true => builder.with_root_certificates(roots),
            false => builder
                .dangerous()
                .with_custom_certificate_verifier(ByUri::new(roots, config.expect_san.clone())),
        };
        let made = match own {
            Some(own) => {
                let own: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(own));
                builder.with_client_cert_resolver(own)
            }
            None => builder.with_no_client_auth(),
        };
        let made = Mutex::new((source.1, Arc::new(made)));
        Ok(Self { made, name: name.and_then(Result::ok), source, ends })
    }

    /// When the certificate that it shows ends, with its file, in seconds since 1970.
    pub fn ends(&self) -> &[(PathBuf, i64)] {
        &self.ends
    }

    /// Has connections that are made from now on go by what the files of `other` have in them.
    pub fn renew(&self, other: &Self) {
        let made = other.made.lock().unwrap_or_else(PoisonError::into_inner).clone();
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = made;
    }

    /// What stands for what the files have in them: another one where a connection that was made
    /// before says nothing of those that are made now.
    pub fn version(&self) -> u64 {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Makes a connection to the endpoint at `address` one of TLS.
    ///
    /// # Errors
    /// The handshake failed.
    pub async fn connect(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        spoken: Spoken,
    ) -> io::Result<TlsStream<TcpStream>> {
        let (_, made) = self.made.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let [http2, http1] = PROTOCOLS.map(<[u8]>::to_vec);
        let protocol = match spoken {
            Spoken::Http2 => http2,
            Spoken::Http1 => http1,
        };
        let name = self.name.clone().unwrap_or_else(|| address.ip().into());
        let connector = TlsConnector::from(made);
        connector.with_alpn(vec![protocol]).connect(name, stream).await
    }
}

impl PartialEq for Connector {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Connector {}

/// Whom the system trusts.
fn system(files: &mut Files, path: &str) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let (added, _) =
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        let words = "is required: this system has no certificates that it trusts";
        files.problem(format!("{path}.ca_file"), words.to_owned());
    }
    (added > 0).then_some(roots)
}
