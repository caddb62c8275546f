//! TLS in front: a certificate for one benchmark, and clients that trust it.

use std::{fs, io, path::Path, sync::Arc};

use anyhow::Context;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

/// Writes a certificate (ECDSA P-256) and its key, and a file of both, as HAProxy wants it.
pub(crate) fn certify(directory: &Path) -> anyhow::Result<()> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([NAME.to_owned()])?;
    let (cert, key) = (cert.pem(), signing_key.serialize_pem());
    fs::write(directory.join("cert.pem"), &cert)?;
    fs::write(directory.join("key.pem"), &key)?;
    fs::write(directory.join("both.pem"), cert + &key)?;
    Ok(())
}

/// Connects to a subject.
#[derive(Clone)]
pub(crate) struct Dialer {
    port: u16,
    tls: Option<TlsConnector>,
}

/// A connection without TLS, or with.
pub(crate) type Socket = Either<TcpStream, Box<TlsStream<TcpStream>>>;

impl Dialer {
    /// To a port of 127.0.0.1; under TLS where there is a folder, of which [`certify`] made what a
    /// client trusts.
    pub(crate) fn new(port: u16, folder: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Self { port, tls: folder.map(connector).transpose()? })
    }

    pub(crate) async fn connect(&self) -> io::Result<Socket> {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).await?;
        socket.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Either::Left(socket)) };
        let name = ServerName::try_from(NAME).expect("a name of DNS");
        Ok(Either::Right(Box::new(tls.connect(name, socket).await?)))
    }
}

fn connector(folder: &Path) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("cert.pem")).context("cert.pem")?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What the certificate is for.
const NAME: &str = "localhost";
