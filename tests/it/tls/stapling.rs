//! OCSP responses that are sent with certificates.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{files, yaml};
use crate::fixture::{certs::Authority, echo::Echo, eventually, program::upbeat, proxy::Proxy};

/// Keeps what comes with a certificate, and takes any.
#[derive(Debug, Default)]
struct Keeper(Mutex<Vec<u8>>);

impl ServerCertVerifier for Keeper {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        response: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.0.lock().unwrap() = response.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The response that a client gets who asks for a certificate of this name.
async fn stapled(address: SocketAddr, name: &'static str) -> Vec<u8> {
    let keeper = Arc::<Keeper>::default();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(keeper.clone())
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    keeper.0.lock().unwrap().clone()
}

/// Successful, with nothing in it; whoever reads it minds that, and not who sends it.
const FIRST: &[u8] = &[0x30, 3, 0x0a, 1, 0];
const SECOND: &[u8] = &[0x30, 5, 0x0a, 1, 0, 0x05, 0];

#[tokio::test]
async fn a_response_is_sent_with_its_certificate_and_renewed_with_its_file() {
    let (echo, ca) = (Echo::start().await, Authority::new("stapling", "ca"));
    let (with, without) = (ca.pair("localhost"), ca.pair("other.example"));
    let file = with.cert.with_extension("ocsp");
    fs::write(&file, FIRST).unwrap();
    let section =
        format!("{}, ocsp_file: {file:?}, certificates: [{{ {} }}]", files(&with), files(&without));
    let path = with.cert.with_extension("yaml");
    let config = yaml(echo.address(), &section) + "reload: { interval: 50ms }\n";
    fs::write(&path, config).unwrap();
    let proxy = Proxy::follow(Path::new(&path)).await;
    proxy.wait_serving().await;
    let address = proxy.address("tls");
    assert_eq!(stapled(address, "localhost").await, FIRST);
    assert_eq!(stapled(address, "other.example").await, b"");
    fs::write(&file, SECOND).unwrap();
    eventually("the new response", async || stapled(address, "localhost").await == SECOND).await;
    proxy.stop().await;
}

#[tokio::test]
async fn what_is_no_response_is_told() {
    let ca = Authority::new("stapling-bad", "ca");
    let pair = ca.pair("localhost");
    let (file, path) = (pair.cert.with_extension("ocsp"), pair.cert.with_extension("yaml"));
    let section = format!("{}, ocsp_file: {file:?}", files(&pair));
    fs::write(&path, yaml(([127, 0, 0, 1], 9).into(), &section)).unwrap();
    for (content, said) in [
        (&b"-----BEGIN"[..], "is no OCSP response in DER"),
        (&[0x30, 3, 0x0a, 1, 6], "is an OCSP response that tells an error"),
        (&[0x30, 9, 0x0a, 1, 0], "is no OCSP response in DER"),
    ] {
        fs::write(&file, content).unwrap();
        let ended = upbeat(&["check", "--config", path.to_str().unwrap()]).await;
        assert_eq!(ended.code, Some(78));
        let expected = format!("listeners[1].tls.ocsp_file: {} {said}, line 4", file.display());
        assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    }
}
