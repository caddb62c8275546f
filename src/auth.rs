//! Who calls, and for which tenant: told from a call's metadata alone, before anything else is done
//! for it.

use http::{HeaderMap, HeaderName};

use crate::{
    config::{self, Credentials, Tenants},
    grpc::{Code, Status},
};

/// What a listener asks of calls.
#[derive(Debug)]
pub struct Gate {
    /// Another way to tell who calls, such as a client's certificate, stands beside this one.
    credentials: Option<Credentials>,
    tenants: Option<Tenants>,
    forwarded_for: bool,
    forward: bool,
    health: bool,
}

/// What a call's metadata says under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Nothing.
    Nothing,
    /// This.
    Once(Vec<u8>),
    /// It has the name more than once, and so says nothing that can be relied on.
    Often,
}

impl Said {
    /// What these headers say under a name.
    pub fn of(headers: &HeaderMap, name: &HeaderName) -> Self {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Nothing,
            (Some(value), None) => Self::Once(value.as_bytes().to_vec()),
            _ => Self::Often,
        }
    }
}

/// Why a call is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// It has no `authorization`.
    NoCredentials,
    /// It has more than one.
    ManyCredentials,
    /// They prove nothing.
    BadCredentials,
    /// It has no tenant, and there is no default.
    NoTenant,
    /// It has more than one.
    ManyTenants,
    /// Its tenant is not taken here.
    OtherTenant,
}

impl Gate {
    /// Of a listener; none where it asks for nothing.
    pub fn new(listener: &config::Listener) -> Option<Self> {
        let (auth, tenants) = (listener.auth.as_ref(), listener.tenants.as_ref());
        let forwarded_for = listener.access.x_forwarded_for;
        let limited = listener.limits_per != config::LimitsPer::default();
        (auth.is_some() || tenants.is_some() || forwarded_for || limited).then(|| Self {
            credentials: auth.map(|auth| auth.credentials.clone()),
            tenants: tenants.cloned(),
            forwarded_for,
            forward: auth.is_none_or(|auth| auth.forward),
            health: auth.is_some_and(|auth| auth.health),
        })
    }

    /// The tenant to be set in the place of what a call says; none where that stays as it is.
    ///
    /// # Errors
    /// Why it is turned away.
    pub fn admit(&self, authorization: &Said, tenant: &Said) -> Result<Option<&str>, Denied> {
        if let Some(credentials) = &self.credentials {
            let tenant = identify(credentials, authorization)?;
            return self.taken(tenant.as_bytes()).map(|()| Some(tenant));
        }
        let Some(tenants) = &self.tenants else { return Ok(None) };
        match (tenant, &tenants.default) {
            (Said::Once(tenant), _) => self.taken(tenant).map(|()| None),
            (Said::Often, _) => Err(Denied::ManyTenants),
            (Said::Nothing, Some(default)) => Ok(Some(default)),
            (Said::Nothing, None) => Err(Denied::NoTenant),
        }
    }

    /// Whether a health check or a question to reflection may be answered.
    ///
    /// # Errors
    /// Why not.
    pub fn answers(&self, authorization: impl FnOnce() -> Said) -> Result<(), Denied> {
        match &self.credentials {
            Some(credentials) if self.health => identify(credentials, &authorization()).map(drop),
            _ => Ok(()),
        }
    }

    /// Whether endpoints are told the client's address.
    pub fn tells_client(&self) -> bool {
        self.forwarded_for
    }

    /// Whether endpoints see the credentials.
    pub fn forwards(&self) -> bool {
        self.forward
    }

    fn taken(&self, tenant: &[u8]) -> Result<(), Denied> {
        let is = |other: &String| other.as_bytes() == tenant;
        let allow = self.tenants.as_ref().and_then(|tenants| tenants.allow.as_ref());
        match allow.is_none_or(|allow| allow.iter().any(is)) {
            true => Ok(()),
            false => Err(Denied::OtherTenant),
        }
    }
}

/// The tenant of what a call proves.
fn identify<'a>(credentials: &'a Credentials, said: &Said) -> Result<&'a str, Denied> {
    let value = match said {
        Said::Nothing => return Err(Denied::NoCredentials),
        Said::Often => return Err(Denied::ManyCredentials),
        Said::Once(value) => value,
    };
    let tenant = match (self::credentials(b"bearer ", value), self::credentials(b"basic ", value)) {
        (Some(token), _) => credentials.token(token),
        (_, Some(user)) => credentials.user(user),
        _ => None,
    };
    tenant.ok_or(Denied::BadCredentials)
}

/// What an `authorization` has after its scheme and a blank, where that is the scheme. Its case means
/// nothing (RFC 9110, 11.1).
pub fn credentials<'a>(scheme: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (head, rest) = value.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then(|| rest.trim_ascii_start())
}

impl Denied {
    /// The word for it in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::ManyCredentials => "many_credentials",
            Self::BadCredentials => "bad_credentials",
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
            Self::NoTenant => (Code::Unauthenticated, "no x-scope-orgid"),
            Self::ManyTenants => (Code::PermissionDenied, "more than one x-scope-orgid"),
            Self::OtherTenant => (Code::PermissionDenied, "not for this tenant"),
        };
        Status::new(code, words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(keys: &str) -> Option<Gate> {
        Gate::new(&config::listener(keys))
    }

    fn once(text: &str) -> Said {
        Said::Once(text.as_bytes().to_vec())
    }

    const AUTH: &str = "auth: { bearer: { tokens: [{ token: x, tenant: a }, { token: y, tenant: b }] }, \
        basic: { users: [{ user: ann, password: p, tenant: a }] } }";

    #[test]
    fn what_is_proved_says_the_tenant_whatever_the_call_says() {
        let gate = gate(AUTH).unwrap();
        for tenant in [Said::Nothing, once("b"), Said::Often] {
            for (value, expected) in [
                ("Bearer x", Ok(Some("a"))),
                ("bearer  y", Ok(Some("b"))),
                ("Basic YW5uOnA=", Ok(Some("a"))),
                ("Basic YW5uOnE=", Err(Denied::BadCredentials)),
                ("Bearer X", Err(Denied::BadCredentials)),
                ("Bearer x y", Err(Denied::BadCredentials)),
                ("Bearer", Err(Denied::BadCredentials)),
                ("x", Err(Denied::BadCredentials)),
                ("", Err(Denied::BadCredentials)),
            ] {
                assert_eq!(gate.admit(&once(value), &tenant), expected, "{value:?}");
            }
            assert_eq!(gate.admit(&Said::Nothing, &tenant), Err(Denied::NoCredentials));
            assert_eq!(gate.admit(&Said::Often, &tenant), Err(Denied::ManyCredentials));
        }
    }

    #[test]
    fn tenants_that_are_not_taken_are_denied() {
        let both = gate(&format!("{AUTH}, tenant: {{ allow: [a] }}")).unwrap();
        assert_eq!(both.admit(&once("Bearer x"), &once("b")), Ok(Some("a")));
        assert_eq!(both.admit(&once("Bearer y"), &once("a")), Err(Denied::OtherTenant));
        let alone = gate("tenant: { allow: [a, c], default: c }").unwrap();
        for (said, expected) in [
            (once("a"), Ok(None)),
            (once("a|c"), Err(Denied::OtherTenant)),
            (once("A"), Err(Denied::OtherTenant)),
            (Said::Often, Err(Denied::ManyTenants)),
            (Said::Nothing, Ok(Some("c"))),
        ] {
            assert_eq!(alone.admit(&Said::Nothing, &said), expected, "{said:?}");
        }
        let strict = gate("tenant: { allow: [a] }").unwrap();
        assert_eq!(strict.admit(&Said::Nothing, &Said::Nothing), Err(Denied::NoTenant));
    }

    #[test]
    fn one_that_asks_for_nothing_is_no_gate() {
        assert!(gate("").is_none());
        let teller = gate("x_forwarded_for: true").unwrap();
        assert_eq!(teller.admit(&Said::Often, &Said::Often), Ok(None));
        assert!(teller.tells_client() && teller.forwards());
    }

    #[test]
    fn health_is_open_unless_it_is_asked_for() {
        assert_eq!(gate(AUTH).unwrap().answers(|| Said::Nothing), Ok(()));
        let closed = gate(&AUTH.replace("auth: {", "auth: { health: true,")).unwrap();
        assert_eq!(closed.answers(|| Said::Nothing), Err(Denied::NoCredentials));
        assert_eq!(closed.answers(|| once("Bearer y")), Ok(()));
    }
}
