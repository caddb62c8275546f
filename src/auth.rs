//! Who calls, and for which tenant: told from a call's metadata and its connection's certificate
//! alone, before anything else is done for it.

mod denied;
mod jwt;
mod keys;

use std::{ops::Deref, sync::Arc};

use http::{HeaderMap, HeaderName, StatusCode};

use self::jwt::Verifier;
pub use self::{denied::Denied, keys::Keys};
use crate::{
    config::{self, Credentials, Tenants},
    grpc::Code,
    tls::{CertificateDer, Name, names},
};

/// What a listener asks of calls.
#[derive(Debug)]
pub struct Gate {
    credentials: Option<Credentials>,
    jwt: Option<Verifier>,
    /// Whether `authorization` says who calls, where a call has it.
    asks: bool,
    tenants: Option<Tenants>,
    /// What a 401 asks for.
    challenge: Option<&'static str>,
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

/// A tenant that was proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tenant<'a> {
    /// It is in the configuration.
    Known(&'a str),
    /// A token says it.
    Verified(Arc<str>),
}

impl Deref for Tenant<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Known(tenant) => tenant,
            Self::Verified(tenant) => tenant,
        }
    }
}

/// Whom a connection's certificate names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Peer {
    /// It has none, or none is asked for.
    #[default]
    Nobody,
    /// Somebody whom its listener does not know.
    Unknown,
    /// Somebody of this tenant.
    Of(Arc<str>),
}

impl Gate {
    /// Of a listener; none where it asks for nothing.
    pub fn new(listener: &config::Listener) -> Option<Self> {
        let (auth, tenants) = (listener.auth.as_ref(), listener.tenants.as_ref());
        let forwarded_for = listener.access.x_forwarded_for;
        let limited = listener.limits_per != config::LimitsPer::default();
        (auth.is_some() || tenants.is_some() || forwarded_for || limited).then(|| Self {
            credentials: auth.map(|auth| auth.credentials.clone()),
            jwt: auth.and_then(verifier),
            asks: auth.is_some_and(|auth| auth.bearer || auth.basic),
            challenge: auth.and_then(challenge),
            tenants: tenants.cloned(),
            forwarded_for,
            forward: auth.is_none_or(|auth| auth.forward),
            health: auth.is_some_and(|auth| auth.health),
        })
    }

    /// Goes by an issuer's keys as somebody fetches them.
    pub fn with_keys(self, keys: Option<Keys>) -> Self {
        let mut jwt = self.jwt;
        if let Some((jwt, keys)) = jwt.as_mut().zip(keys) {
            jwt.follow(keys);
        }
        Self { jwt, ..self }
    }

    /// Whom the certificate of a connection names, to be known before its calls come.
    pub fn peer(&self, certificate: Option<&CertificateDer<'_>>) -> Peer {
        let known = self.credentials.as_ref().map_or(&[][..], Credentials::identities);
        let Some(certificate) = certificate.filter(|_| !known.is_empty()) else {
            return Peer::Nobody;
        };
        let names = names(certificate);
        let fits = |(san, _): &&(config::San, _)| {
            names.iter().any(|name| match name {
                Name::Dns(name) => san.is_dns(name),
                Name::Uri(uri) => san.is_uri(uri),
            })
        };
        known.iter().find(fits).map_or(Peer::Unknown, |(_, tenant)| Peer::Of(Arc::clone(tenant)))
    }

    /// The tenant to be set in the place of what a call says; none where that stays as it is.
    ///
    /// # Errors
    /// Why it is turned away.
    pub fn admit<'a>(
        &'a self,
        authorization: impl FnOnce() -> Said,
        peer: &'a Peer,
        tenant: &Said,
    ) -> Result<Option<Tenant<'a>>, Denied> {
        if self.credentials.is_some() {
            let tenant = self.identify(authorization, peer)?;
            return self.taken(tenant.as_bytes()).map(|()| Some(tenant));
        }
        let Some(tenants) = &self.tenants else { return Ok(None) };
        match (tenant, &tenants.default) {
            (Said::Once(tenant), _) => self.taken(tenant).map(|()| None),
            (Said::Often, _) => Err(Denied::ManyTenants),
            (Said::Nothing, Some(default)) => Ok(Some(Tenant::Known(default))),
            (Said::Nothing, None) => Err(Denied::NoTenant),
        }
    }

    /// Whether a health check or a question to reflection may be answered.
    ///
    /// # Errors
    /// Why not.
    pub fn answers(&self, authorization: impl FnOnce() -> Said, peer: &Peer) -> Result<(), Denied> {
        match self.health {
            true => self.identify(authorization, peer).map(drop),
            false => Ok(()),
        }
    }

    /// Whether something has to be proved for that.
    pub fn guards_health(&self) -> bool {
        self.health
    }

    /// What is said to one who asks for health by GET: a status, and with 401 what would help.
    pub fn refusal(&self, denied: Denied) -> (StatusCode, Option<&'static str>) {
        match (denied.status().code, self.challenge) {
            (Code::Unauthenticated, Some(challenge)) => (StatusCode::UNAUTHORIZED, Some(challenge)),
            (Code::Unavailable, _) => (StatusCode::SERVICE_UNAVAILABLE, None),
            (Code::ResourceExhausted, _) => (StatusCode::TOO_MANY_REQUESTS, None),
            // Nothing that it could say helps where only certificates are looked at.
            _ => (StatusCode::FORBIDDEN, None),
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

    /// The tenant of who calls. What a call says of itself counts before what its connection does:
    /// one that is wrong is nobody's, whoever passes it on.
    fn identify<'a>(
        &'a self,
        authorization: impl FnOnce() -> Said,
        peer: &'a Peer,
    ) -> Result<Tenant<'a>, Denied> {
        let said = if self.asks { authorization() } else { Said::Nothing };
        match (said, peer, &self.credentials) {
            (Said::Once(value), _, Some(credentials)) => self.prove(credentials, &value),
            (Said::Often, ..) => Err(Denied::ManyCredentials),
            (_, Peer::Of(tenant), _) => Ok(Tenant::Known(tenant)),
            (_, Peer::Unknown, _) => Err(Denied::UnknownCertificate),
            (_, Peer::Nobody, _) => Err(Denied::NoCredentials),
        }
    }

    /// The tenant of what `authorization` proves.
    fn prove<'a>(
        &'a self,
        credentials: &'a Credentials,
        value: &[u8],
    ) -> Result<Tenant<'a>, Denied> {
        if let Some(token) = self::credentials(b"bearer ", value) {
            let hash = config::hash(token);
            let known = credentials.token(&hash).map(Tenant::Known).ok_or(Denied::BadCredentials);
            return match (known, &self.jwt) {
                (Err(_), Some(jwt)) => jwt.tenant(token, &hash).map(Tenant::Verified),
                (known, _) => known,
            };
        }
        let user = self::credentials(b"basic ", value).and_then(|user| credentials.user(user));
        user.map(Tenant::Known).ok_or(Denied::BadCredentials)
    }
}

/// What an `authorization` has after its scheme and a blank, where that is the scheme. Its case means
/// nothing (RFC 9110, 11.1).
pub fn credentials<'a>(scheme: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (head, rest) = value.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then(|| rest.trim_ascii_start())
}

/// Which schemes are taken (RFC 9110, 11.6.1).
fn challenge(auth: &config::Auth) -> Option<&'static str> {
    match (auth.bearer, auth.basic) {
        (true, true) => Some(r#"Bearer realm="upbeat", Basic realm="upbeat""#),
        (true, false) => Some(r#"Bearer realm="upbeat""#),
        (false, true) => Some(r#"Basic realm="upbeat""#),
        (false, false) => None,
    }
}

/// What checks signed tokens, where they are taken. Keys that are fetched are not there yet.
fn verifier(auth: &config::Auth) -> Option<Verifier> {
    let keys = auth.credentials.keys().cloned().map(Keys::fixed);
    auth.jwt.as_ref().map(|jwt| Verifier::new(jwt, keys.unwrap_or_default()))
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

    fn admit(gate: &Gate, said: Said, tenant: &Said) -> Result<Option<&'static str>, Denied> {
        let admitted = gate.admit(|| said, &Peer::Nobody, tenant)?;
        Ok(admitted.map(|tenant| &*String::from(&*tenant).leak()))
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
                assert_eq!(admit(&gate, once(value), &tenant), expected, "{value:?}");
            }
            assert_eq!(admit(&gate, Said::Nothing, &tenant), Err(Denied::NoCredentials));
            assert_eq!(admit(&gate, Said::Often, &tenant), Err(Denied::ManyCredentials));
        }
    }

    #[test]
    fn tenants_that_are_not_taken_are_denied() {
        let both = gate(&format!("{AUTH}, tenant: {{ allow: [a] }}")).unwrap();
        assert_eq!(admit(&both, once("Bearer x"), &once("b")), Ok(Some("a")));
        assert_eq!(admit(&both, once("Bearer y"), &once("a")), Err(Denied::OtherTenant));
        let alone = gate("tenant: { allow: [a, c], default: c }").unwrap();
        for (said, expected) in [
            (once("a"), Ok(None)),
            (once("a|c"), Err(Denied::OtherTenant)),
            (once("A"), Err(Denied::OtherTenant)),
            (Said::Often, Err(Denied::ManyTenants)),
            (Said::Nothing, Ok(Some("c"))),
        ] {
            assert_eq!(admit(&alone, Said::Nothing, &said), expected, "{said:?}");
        }
        let strict = gate("tenant: { allow: [a] }").unwrap();
        assert_eq!(admit(&strict, Said::Nothing, &Said::Nothing), Err(Denied::NoTenant));
    }

    #[test]
    fn one_that_asks_for_nothing_is_no_gate() {
        assert!(gate("").is_none());
        let teller = gate("x_forwarded_for: true").unwrap();
        assert_eq!(admit(&teller, Said::Often, &Said::Often), Ok(None));
        assert!(teller.tells_client() && teller.forwards());
    }

    #[test]
    fn health_is_open_unless_it_is_asked_for() {
        assert_eq!(gate(AUTH).unwrap().answers(|| Said::Nothing, &Peer::Nobody), Ok(()));
        let closed = gate(&AUTH.replace("auth: {", "auth: { health: true,")).unwrap();
        assert_eq!(closed.answers(|| Said::Nothing, &Peer::Nobody), Err(Denied::NoCredentials));
        assert_eq!(closed.answers(|| once("Bearer y"), &Peer::Nobody), Ok(()));
    }
}
