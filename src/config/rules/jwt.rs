//! The rules of signed tokens.

use std::{net::IpAddr, time::Duration};

use http::Uri;

use super::{
    super::{
        checked::{Auth, Jwt, Kept, KeysFrom, UpstreamTls},
        document,
    },
    Checker,
};

impl Checker<'_> {
    /// Which signed tokens are taken; `path` is that of `jwt`.
    pub(super) fn jwt(&mut self, path: String, raw: document::Jwt, auth: &mut Auth) {
        let at = |key: &str| format!("{path}.{key}");
        self.positive(&at("refresh_interval"), Some(raw.refresh_interval));
        self.at_most_a_year(&at("leeway"), Some(raw.leeway));
        let issuer = raw.issuer.filter(|issuer| !issuer.is_empty());
        let issuer = self.required(&at("issuer"), issuer, "what `iss` of the tokens is");
        if raw.audience.is_empty() || raw.audience.iter().any(String::is_empty) {
            let words = "is required: what `aud` of the tokens is, so that one which was made for \
                another service is not taken here";
            self.problem(&at("audience"), words);
        }
        if raw.tenant_claim.is_empty() {
            self.problem(&at("tenant_claim"), "must not be empty");
        }
        if raw.ca_file.is_some() && raw.jwks_url.is_none() {
            self.problem(&at("ca_file"), "is for jwks_url alone: without it nothing is fetched");
        }
        let mut keys = None;
        match (raw.jwks_file, raw.jwks_url) {
            (Some(file), None) => auth.files.push(self.file(at("jwks_file"), file, Kept::Keys)),
            (None, Some(url)) => match parse(&url) {
                Ok((false, _)) if raw.ca_file.is_some() => {
                    self.problem(&at("ca_file"), "says nothing of a jwks_url that is not https");
                }
                Ok((secure, from)) => {
                    let tls = secure.then(|| UpstreamTls {
                        ca_file: raw.ca_file,
                        server_name: Some(from.host.clone()),
                        expect_san: Vec::new(),
                        own: None,
                        path: path.clone(),
                    });
                    keys = Some(KeysFrom { tls, refresh_interval: raw.refresh_interval, ..from });
                }
                Err(words) => self.problem(&at("jwks_url"), words),
            },
            _ => self.problem(&at("jwks_file"), "exactly one of this and jwks_url is required"),
        }
        auth.jwt = Some(Jwt {
            keys,
            issuer: issuer.unwrap_or_default(),
            audience: raw.audience,
            tenant_claim: raw.tenant_claim,
            leeway: raw.leeway,
        });
    }
}

/// What a URL says, and whether it is to be asked over TLS; what is wrong with it, in words that do
/// not repeat it, since it may have a password in it.
fn parse(url: &str) -> Result<(bool, KeysFrom), &'static str> {
    const EXPECTED: &str = "is no URL that keys can be fetched from: expected one such as \
        https://issuer.example.com/.well-known/jwks.json";
    let uri: Uri = url.parse().map_err(|_| EXPECTED)?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(EXPECTED);
    };
    if authority.as_str().contains('@') || url.contains('#') {
        return Err("must have no user, no password and no fragment");
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let secure = match scheme {
        "https" => true,
        "http" if host.parse().is_ok_and(|host: IpAddr| host.is_loopback()) => false,
        "http" => {
            return Err("must be https: who can change the keys on their way could sign any \
                token; http is for an address of this machine, such as http://127.0.0.1:8080/keys");
        }
        _ => return Err(EXPECTED),
    };
    let port = match &authority.as_str()[authority.host().len()..] {
        "" => Some(if secure { 443 } else { 80 }),
        port => port.strip_prefix(':').and_then(|port| port.parse().ok()),
    };
    let port = port.filter(|port| *port > 0 && !host.is_empty()).ok_or(EXPECTED)?;
    let from = KeysFrom {
        tls: None,
        host: host.to_owned(),
        port,
        authority: authority.to_string(),
        path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        refresh_interval: Duration::ZERO,
    };
    Ok((secure, from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fetched_over_tls_or_from_this_machine() {
        let said = |url| {
            let (secure, from) = parse(url)?;
            let KeysFrom { host, port, path, .. } = from;
            Ok::<_, &str>(format!("{host} {port} {secure} {path}"))
        };
        for (url, expected) in [
            ("https://a.test/keys?x=1", "a.test 443 true /keys?x=1"),
            ("https://a.test:8443", "a.test 8443 true /"),
            ("https://[2001:db8::1]/k", "2001:db8::1 443 true /k"),
            ("http://127.0.0.9:81/k", "127.0.0.9 81 false /k"),
            ("http://[::1]/k", "::1 80 false /k"),
        ] {
            assert_eq!(said(url).as_deref(), Ok(expected), "{url}");
        }
        for url in [
            "",
            "a.test/keys",
            "/keys",
            "ftp://a.test/k",
            "http://a.test/k",
            "http://10.0.0.1/k",
            "http://localhost/k",
            "https://u:p@a.test/k",
            "https://a.test/k#f",
            "https://:443/k",
            "https://a.test:99999/k",
            "https://a.test:0/k",
            "https://a.test:/k",
            "https://",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }
}
