//! Why a handshake came to nothing, in one of a few words.

use std::io::{self, ErrorKind};

use rustls::{CertificateError, Error};

/// The word for it in metrics and logs. What it was exactly is said by the error itself.
pub fn reason(error: &io::Error) -> &'static str {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match (inner, error.kind()) {
        (Some(inner), _) => of(inner),
        (None, ErrorKind::TimedOut) => "tls_timeout",
        (None, ErrorKind::InvalidData) => "tls_plain",
        (None, _) => "tls_closed",
    }
}

fn of(error: &Error) -> &'static str {
    match error {
        Error::NoCertificatesPresented => "tls_no_certificate",
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => "tls_unknown_ca",
        Error::InvalidCertificate(CertificateError::Revoked) => "tls_revoked",
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "tls_expired",
        Error::InvalidCertificate(_) => "tls_bad_certificate",
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => "tls_nothing_common",
        Error::AlertReceived(_) => "tls_alert",
        _ => "tls_other",
    }
}
