//! From an accepted socket to what is spoken on it.

use std::io;

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::server::TlsStream;

use super::entrance::Entered;
use crate::{
    net::{Protocol, Rewound, sniff, sniff_after},
    relay::Listener,
    tls::{self, Accepted, Acceptor, CertificateDer, Handshakes, Session},
};

/// A connection of which it is known what it speaks.
#[derive(Debug)]
pub(super) enum Opened {
    /// With the bytes that were read of it already.
    Http2 {
        socket: TcpStream,
        session: Option<Box<Session>>,
        first: Vec<u8>,
    },
    Http1(Rewound<TcpStream>),
    Http1OverTls {
        stream: Rewound<Box<TlsStream<TcpStream>>>,
        certificate: Option<CertificateDer<'static>>,
    },
}

impl Opened {
    /// Sees to TLS, which may take `until` then, and reads until the first bytes tell, of which
    /// some were read when the client `entered`. ALPN says nothing that they do not.
    ///
    /// # Errors
    /// The peer closed before it had said what it speaks, or speaks nothing that is spoken here. A
    /// handshake that failed is counted.
    pub(super) async fn of(
        stream: TcpStream,
        entered: &mut Entered,
        listener: &Listener,
        handshakes: &Handshakes,
        until: Instant,
    ) -> io::Result<Self> {
        let first = std::mem::take(&mut entered.first);
        let failed = |error: &io::Error| {
            listener.refusals().refused(
                entered.client.ip(),
                tls::reason(error),
                &error.to_string(),
            );
        };
        let stream = match listener.tls() {
            None => return Self::plain(first, stream).await,
            // What begins as a PROXY header does and is none is no TLS either.
            Some(tls) if !first.is_empty() => {
                tls.allow_plain().inspect_err(&failed)?;
                return Self::plain(first, stream).await;
            }
            Some(tls) => {
                match secured(tls, stream, handshakes, until).await.inspect_err(&failed)? {
                    Accepted::Gone => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Accepted::Plain(stream) => return Self::plain(first, stream).await,
                    Accepted::Tls(stream) => stream,
                }
            }
        };
        Ok(match sniff(stream).await? {
            (Protocol::Http1, stream) => {
                let certificates = stream.inner().get_ref().1.peer_certificates();
                let certificate = certificates.and_then(|it| it.first()).cloned();
                Self::Http1OverTls { stream, certificate }
            }
            (Protocol::Http2, stream) => {
                let (stream, mut first) = stream.into_parts();
                let (socket, connection) = stream.into_inner();
                let mut session = Session::from(connection);
                session.take(&mut first);
                Self::Http2 { socket, session: Some(Box::new(session)), first }
            }
        })
    }

    async fn plain(first: Vec<u8>, stream: TcpStream) -> io::Result<Self> {
        Ok(match sniff_after(first, stream).await? {
            (Protocol::Http1, stream) => Self::Http1(stream),
            (Protocol::Http2, stream) => {
                let (socket, first) = stream.into_parts();
                Self::Http2 { socket, session: None, first }
            }
        })
    }
}

async fn secured(
    tls: &Acceptor,
    stream: TcpStream,
    handshakes: &Handshakes,
    until: Instant,
) -> io::Result<Accepted> {
    let accepted = timeout_at(until, tls.accept(stream, handshakes)).await;
    accepted.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "not done in time")))
}
