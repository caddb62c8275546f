//! What is said to those who are turned away.

use crate::grpc::{Code, Status};

/// Why a call is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// It has no `authorization`, and no certificate where that would do.
    NoCredentials,
    /// It has more than one.
    ManyCredentials,
    /// They prove nothing.
    BadCredentials,
    /// Its certificate is good, and names nobody who is known here.
    UnknownCertificate,
    /// It has no tenant, and there is no default.
    NoTenant,
    /// It has more than one.
    ManyTenants,
    /// Its tenant is not taken here.
    OtherTenant,
}

impl Denied {
    /// The word for it in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::ManyCredentials => "many_credentials",
            Self::BadCredentials => "bad_credentials",
            Self::UnknownCertificate => "unknown_certificate",
            Self::NoTenant => "no_tenant",
            Self::ManyTenants => "many_tenants",
            Self::OtherTenant => "other_tenant",
        }
    }

    /// What the caller is told.
    pub fn status(self) -> Status {
        let (code, words) = match self {
            Self::NoCredentials => (Code::Unauthenticated, "no credentials"),
            Self::ManyCredentials => (Code::Unauthenticated, "more than one authorization"),
            Self::BadCredentials => (Code::Unauthenticated, "credentials that are not known"),
            Self::UnknownCertificate => {
                (Code::PermissionDenied, "a certificate that is not known here")
            }
            Self::NoTenant => (Code::Unauthenticated, "no x-scope-orgid"),
            Self::ManyTenants => (Code::PermissionDenied, "more than one x-scope-orgid"),
            Self::OtherTenant => (Code::PermissionDenied, "not for this tenant"),
        };
        Status::new(code, words)
    }
}
