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
    /// Its token is none, or has no good signature.
    BadToken,
    /// Its token is by a key that is not known, or not for that.
    TokenKey,
    /// Its token has expired, or is not valid yet.
    TokenTime,
    /// Its token is of another issuer, or for somebody else, or does not say so.
    TokenScope,
    /// Its token names no tenant.
    TokenTenant,
    /// The keys that its token may be good by could not be had yet.
    NoKeys,
    /// It has no tenant, and there is no default.
    NoTenant,
    /// It has more than one.
    ManyTenants,
    /// Its tenant is not taken here.
    OtherTenant,
    /// Its client's address asks too often to have what it says looked at.
    TooOften,
}

impl Denied {
    /// The word for it in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::ManyCredentials => "many_credentials",
            Self::BadCredentials => "bad_credentials",
            Self::UnknownCertificate => "unknown_certificate",
            Self::BadToken => "bad_token",
            Self::TokenKey => "token_key",
            Self::TokenTime => "token_time",
            Self::TokenScope => "token_scope",
            Self::TokenTenant => "token_tenant",
            Self::NoKeys => "no_keys",
            Self::NoTenant => "no_tenant",
            Self::ManyTenants => "many_tenants",
            Self::OtherTenant => "other_tenant",
            Self::TooOften => "address_rate",
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
            Self::BadToken => (Code::Unauthenticated, "a token that is not valid"),
            Self::TokenKey => (Code::Unauthenticated, "a token by a key that is not known"),
            Self::TokenTime => (Code::Unauthenticated, "a token that is not valid at this time"),
            Self::TokenScope => {
                (Code::Unauthenticated, "a token of another issuer or for another audience")
            }
            Self::TokenTenant => (Code::PermissionDenied, "a token that names no tenant"),
            // Clients that are told 16 give what they have up; these come back.
            Self::NoKeys => {
                (Code::Unavailable, "the keys that tokens are checked by are not there yet")
            }
            Self::NoTenant => (Code::Unauthenticated, "no x-scope-orgid"),
            Self::ManyTenants => (Code::PermissionDenied, "more than one x-scope-orgid"),
            Self::OtherTenant => (Code::PermissionDenied, "not for this tenant"),
            Self::TooOften => (Code::ResourceExhausted, "too many calls of this address"),
        };
        Status::new(code, words)
    }
}
