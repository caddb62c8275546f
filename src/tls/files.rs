//! Files of certificates and keys, in PEM.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
        pem::{Error, PemObject},
    },
    sign::CertifiedKey,
};

use super::{der, expiry, provider};
use crate::config::{self, KeyPair, Problem};

/// Reads files, and keeps what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct Files {
    read: DefaultHasher,
    problems: Vec<Problem>,
    ends: Vec<(PathBuf, i64)>,
}

impl Files {
    /// `made`, where nothing was wrong.
    pub(super) fn end<T>(self, made: Option<T>) -> Result<T, Vec<Problem>> {
        match made {
            Some(made) if self.problems.is_empty() => Ok(made),
            _ => Err(self.problems),
        }
    }

    pub(super) fn problem(&mut self, path: String, message: String) {
        self.problems.push(Problem { path, message, line: None });
    }

    /// The same for files that have the same in them.
    pub(super) fn fingerprint(&self) -> u64 {
        self.read.finish()
    }

    /// When the certificates that are shown end, each with its file, in seconds since 1970.
    pub(super) fn ends(&mut self) -> Vec<(PathBuf, i64)> {
        std::mem::take(&mut self.ends)
    }

    /// A chain and its key.
    pub(super) fn pair(&mut self, pair: &KeyPair) -> Option<CertifiedKey> {
        let at = |key| format!("{}.{key}", pair.path);
        let chain = self.certificates(at("cert_file"), &pair.cert_file);
        let key = self.key(at("key_file"), &pair.key_file);
        // The first one that ends makes the others useless.
        let end = chain.iter().flatten().filter_map(|it| expiry::end(it)).min();
        self.ends.extend(end.map(|end| (pair.cert_file.clone(), end)));
        let response = pair.ocsp_file.as_ref().map(|file| self.response(at("ocsp_file"), file));
        let made = CertifiedKey::from_der(chain?, key?, &provider());
        let made = made.map(|made| CertifiedKey { ocsp: response.flatten(), ..made });
        made.map_err(|error| {
            let (cert, key) = (pair.cert_file.display(), pair.key_file.display());
            let message = match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("{key} is not the key of the certificate in {cert}")
                }
                error => format!("{cert} and {key} cannot be used: {error}"),
            };
            self.problem(at("key_file"), message);
        })
        .ok()
    }

    /// At least one certificate.
    pub(super) fn certificates(
        &mut self,
        path: String,
        file: &Path,
    ) -> Option<Vec<CertificateDer<'static>>> {
        let pem = self.read(&path, file)?;
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match read {
            Ok(found) if !found.is_empty() => Some(found),
            Ok(_) => self.fault(path, file, "has no certificate in PEM"),
            Err(error) => self.fault(path, file, &format!("is no PEM: {error}")),
        }
    }

    /// Certificates that are trusted.
    pub(super) fn roots(&mut self, path: String, file: &Path) -> Option<RootCertStore> {
        let certificates = self.certificates(path.clone(), file)?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            if let Err(error) = roots.add(certificate) {
                return self.fault(path, file, &format!("cannot be trusted: {error}"));
            }
        }
        Some(roots)
    }

    /// At least one list of certificates that are not valid any more.
    pub(super) fn revoked(
        &mut self,
        path: String,
        file: &Path,
    ) -> Option<Vec<CertificateRevocationListDer<'static>>> {
        let pem = self.read(&path, file)?;
        let read: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
        match read {
            Ok(found) if !found.is_empty() => Some(found),
            Ok(_) => self.fault(path, file, "has no revocation list in PEM"),
            Err(error) => self.fault(path, file, &format!("is no PEM: {error}")),
        }
    }

    /// A response that says something of a certificate (RFC 6960, 4.2.1). Clients see what.
    fn response(&mut self, path: String, file: &Path) -> Option<Vec<u8>> {
        let response = self.read(&path, file)?;
        match der::take(&mut &*response, der::SEQUENCE) {
            Some([der::ENUMERATED, 1, 0, ..]) => Some(response),
            Some([der::ENUMERATED, 1, _, ..]) => {
                self.fault(path, file, "is an OCSP response that tells an error")
            }
            _ => self.fault(path, file, "is no OCSP response in DER"),
        }
    }

    fn key(&mut self, path: String, file: &Path) -> Option<PrivateKeyDer<'static>> {
        let pem = self.read(&path, file)?;
        match PrivateKeyDer::from_pem_slice(&pem) {
            Ok(key) => match aws_lc_rs::sign::any_supported_type(&key) {
                Ok(_) => Some(key),
                Err(error) => self.fault(path, file, &format!("cannot be used: {error}")),
            },
            Err(Error::NoItemsFound) => self.fault(path, file, "has no private key in PEM"),
            Err(error) => self.fault(path, file, &format!("is no PEM: {error}")),
        }
    }

    fn read(&mut self, path: &str, file: &Path) -> Option<Vec<u8>> {
        let read = config::read_bounded(file, config::LARGEST);
        read.as_ref().ok().hash(&mut self.read);
        read.map_err(|error| {
            let message = format!("{} cannot be read: {error}", file.display());
            self.problem(path.to_owned(), message);
        })
        .ok()
    }

    fn fault<T>(&mut self, path: String, file: &Path, what: &str) -> Option<T> {
        self.problem(path, format!("{} {what}", file.display()));
        None
    }
}
