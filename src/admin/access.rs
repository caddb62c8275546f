//! Who is answered: by the certificate of a connection, or the token of a request.

use std::{io, sync::Arc};

use http::{HeaderMap, header};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::{
    auth::{Denied, Said, credentials},
    config::{self, Clients, Tokens},
    tls::{Accepted, Acceptor, Handshakes},
};

/// What the server asks of those whom it answers.
#[derive(Debug, Default)]
pub struct Access {
    tls: Option<Arc<Acceptor>>,
    clients: Option<Clients>,
    tokens: Option<Tokens>,
}

/// A connection with TLS or without.
pub(super) type Stream = Either<Box<TlsStream<TcpStream>>, TcpStream>;

impl Access {
    /// As `config` has it, with the certificates that it names.
    pub fn new(config: &config::Admin, tls: Option<&Arc<Acceptor>>) -> Self {
        let clients = config.tls.as_ref().and_then(|tls| tls.clients.clone());
        Self { tls: tls.cloned(), clients, tokens: config.tokens.clone() }
    }

    /// A connection on which HTTP may be spoken, and whether its client has shown a certificate. None
    /// where it left without a word.
    ///
    /// # Errors
    /// The handshake failed.
    pub(super) async fn open(
        &self,
        stream: TcpStream,
        handshakes: &Handshakes,
    ) -> io::Result<Option<(Stream, bool)>> {
        let Some(tls) = &self.tls else { return Ok(Some((Either::Right(stream), false))) };
        Ok(match tls.accept(stream, handshakes).await? {
            Accepted::Tls(stream) => {
                let certified = stream.get_ref().1.peer_certificates().is_some();
                Some((Either::Left(stream), certified))
            }
            Accepted::Plain(stream) => Some((Either::Right(stream), false)),
            Accepted::Gone => None,
        })
    }

    /// Whether a request is answered that came with these headers on a connection with a
    /// certificate, or without. The connection may be from before this was asked of it.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn admits(&self, certified: bool, headers: &HeaderMap) -> Result<(), Denied> {
        let certified = match &self.clients {
            Some(clients) if clients.required && !certified => return Err(Denied::NoCredentials),
            Some(clients) => certified && !clients.required,
            None => false,
        };
        let Some(tokens) = self.tokens.as_ref().filter(|_| !certified) else { return Ok(()) };
        match Said::of(headers, &header::AUTHORIZATION) {
            Said::Nothing => Err(Denied::NoCredentials),
            Said::Often => Err(Denied::ManyCredentials),
            Said::Once(value) => match credentials(b"bearer ", &value) {
                Some(token) if tokens.has(token) => Ok(()),
                _ => Err(Denied::BadCredentials),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(clients: Option<bool>, token: Option<&str>) -> Access {
        let section = token.map_or_else(String::new, |token| format!("tokens: [{token}]"));
        let clients = clients.map(|required| Clients {
            ca_file: "ca.pem".into(),
            required,
            crl_files: Vec::new(),
        });
        Access { tls: None, clients, tokens: config::admin(&section).tokens }
    }

    #[test]
    fn a_token_proves_enough_and_so_does_a_certificate_that_is_optional() {
        let bad = Err(Denied::BadCredentials);
        let none = Err(Denied::NoCredentials);
        let (optional, required) = (Some(false), Some(true));
        for (clients, token, certified, said, expected) in [
            (None, None, false, &[][..], Ok(())),
            (None, Some("t"), false, &["Bearer t"], Ok(())),
            (None, Some("t"), false, &["bEARER  t"], Ok(())),
            (None, Some("t"), false, &["Bearer T"], bad),
            (None, Some("t"), false, &["Bearer "], bad),
            (None, Some("t"), false, &["t"], bad),
            (None, Some("t"), false, &["Basic t"], bad),
            (None, Some("t"), false, &[""], bad),
            (None, Some("t"), false, &[], none),
            (None, Some("t"), false, &["Bearer t", "Bearer t"], Err(Denied::ManyCredentials)),
            // From a time when certificates were asked for.
            (None, Some("t"), true, &[], none),
            (optional, None, false, &[], Ok(())),
            (optional, Some("t"), true, &[], Ok(())),
            (optional, Some("t"), true, &["Bearer x"], Ok(())),
            (optional, Some("t"), false, &[], none),
            (optional, Some("t"), false, &["Bearer t"], Ok(())),
            (required, None, true, &[], Ok(())),
            // From a time when none was required.
            (required, None, false, &[], none),
            (required, Some("t"), false, &["Bearer t"], none),
            (required, Some("t"), true, &[], none),
            (required, Some("t"), true, &["Bearer t"], Ok(())),
        ] {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            let admitted = access(clients, token).admits(certified, &headers);
            assert_eq!(admitted, expected, "{clients:?} {token:?} {certified} {said:?}");
        }
    }
}
