//! Whom a certificate is for.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// One of a certificate's subject alternative names (RFC 5280, 4.2.1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name<'a> {
    /// A DNS name; it may begin with `*.`.
    Dns(&'a str),
    /// A URI.
    Uri(&'a str),
}

/// Those that a certificate has, which somebody else has verified.
pub fn names<'a>(certificate: &'a CertificateDer<'_>) -> Vec<Name<'a>> {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return Vec::new() };
    let dns = certificate.valid_dns_names().map(Name::Dns);
    dns.chain(certificate.valid_uri_names().map(Name::Uri)).collect()
}
