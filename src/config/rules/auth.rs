//! The rules of who may call.

use std::path::PathBuf;

use super::{
    super::{
        checked::{Auth, CredentialsFile, Kept, ListenerTls, Tenants},
        credentials::{Credentials, Password, check_tenant},
        document,
    },
    Checker,
};

impl Checker<'_> {
    /// What calls must prove; `path` is that of `auth`, and `tls` is the listener's.
    pub(super) fn auth(
        &mut self,
        path: &str,
        raw: document::Auth,
        tls: Option<&ListenerTls>,
    ) -> Auth {
        let bearer = raw.bearer.is_some() || raw.jwt.is_some();
        let basic = raw.basic.is_some();
        if !bearer && !basic && raw.mtls.is_none() {
            let words = "one of bearer, basic, jwt and mtls is required: nobody could call";
            self.problem(path, words);
        }
        let forward = raw.forward_credentials.unwrap_or(!bearer && !basic);
        let mut auth = Auth { bearer, basic, forward, health: raw.health, ..Auth::default() };
        if let Some(bearer) = raw.bearer {
            let path = format!("{path}.bearer");
            if bearer.tokens_file.is_none() && bearer.tokens.is_empty() {
                self.problem(&path, "tokens_file or tokens is required");
            }
            for (index, it) in bearer.tokens.into_iter().enumerate() {
                let added = auth.credentials.add_token(&it.token.0, &it.tenant);
                self.added(&format!("{path}.tokens[{index}]"), added);
            }
            let path = format!("{path}.tokens_file");
            auth.files.extend(bearer.tokens_file.map(|file| self.file(path, file, Kept::Tokens)));
        }
        if let Some(basic) = raw.basic {
            let path = format!("{path}.basic");
            if basic.users_file.is_none() && basic.users.is_empty() {
                self.problem(&path, "users_file or users is required");
            }
            for (index, it) in basic.users.into_iter().enumerate() {
                let added = add_user(&mut auth.credentials, &it);
                self.added(&format!("{path}.users[{index}]"), added);
            }
            let path = format!("{path}.users_file");
            auth.files.extend(basic.users_file.map(|file| self.file(path, file, Kept::Users)));
        }
        if let Some(jwt) = raw.jwt {
            self.jwt(format!("{path}.jwt"), jwt, &mut auth);
        }
        if let Some(mtls) = raw.mtls {
            self.mtls(&format!("{path}.mtls"), mtls, tls, &mut auth);
        }
        auth
    }

    fn mtls(
        &mut self,
        path: &str,
        raw: document::Mtls,
        tls: Option<&ListenerTls>,
        auth: &mut Auth,
    ) {
        if raw.identities.is_empty() {
            let words = "is required: who is known, such as [{ san: a.test, tenant: team-a }]";
            self.problem(&format!("{path}.identities"), words);
        }
        for (index, it) in raw.identities.into_iter().enumerate() {
            let added = auth.credentials.add_identity(&it.san, &it.tenant);
            self.added(&format!("{path}.identities[{index}]"), added);
        }
        if tls.is_none_or(|tls| tls.clients.is_none()) {
            let words = "needs tls.client_ca_file on this listener, and no client_auth: none: \
                clients show a certificate only where they are asked for one";
            self.problem(path, words);
        }
    }

    pub(super) fn added(&mut self, path: &str, added: Result<(), &'static str>) {
        if let Err(words) = added {
            self.problem(path, words);
        }
    }

    pub(super) fn file(&self, key: String, path: PathBuf, kept: Kept) -> CredentialsFile {
        let line = self.lines.problem(&key, String::new()).line;
        CredentialsFile { path, kept, key: (key, line) }
    }

    /// Which tenants are taken; `path` is that of `tenant`.
    pub(super) fn tenants(&mut self, path: &str, raw: document::Tenant, auth: bool) -> Tenants {
        let document::Tenant { allow, default } = raw;
        if allow.is_none() && default.is_none() {
            self.problem(path, "allow or default is required");
        }
        if allow.as_ref().is_some_and(Vec::is_empty) {
            self.problem(&format!("{path}.allow"), "must not be empty: nobody could call");
        }
        for (index, tenant) in allow.iter().flatten().enumerate() {
            self.added(&format!("{path}.allow[{index}]"), check_tenant(tenant));
        }
        if let Some(default) = &default {
            let path = format!("{path}.default");
            self.added(&path, check_tenant(default));
            if auth {
                self.problem(&path, "is never set: auth says the tenant of every call");
            } else if allow.as_ref().is_some_and(|allow| !allow.contains(default)) {
                self.problem(&path, format!("{default:?} is not in allow"));
            }
        }
        Tenants { allow, default }
    }
}

fn add_user(known: &mut Credentials, raw: &document::User) -> Result<(), &'static str> {
    let password = match (&raw.password, &raw.sha256) {
        (Some(password), None) => Password::Plain(&password.0),
        (None, Some(digits)) => Password::Sha256(&digits.0),
        _ => return Err("exactly one of password and sha256 is required"),
    };
    known.add_user(&raw.user, password, &raw.tenant)
}
