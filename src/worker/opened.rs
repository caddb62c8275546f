//! From an accepted socket to what is spoken on it.

use std::io;

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::{
    net::{Protocol, Rewound, sniff, sniff_after},
    relay::Listener,
    tls::{Accepted, CertificateDer, Handshakes, Session},
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
    /// Sees to TLS, and reads until the first bytes tell, of which `first` were read already. ALPN says nothing that they do not.
    ///
    /// # Errors
    /// The peer closed before it had said what it speaks, or speaks nothing that is spoken here.
    pub(super) async fn of(
        stream: TcpStream,
        first: Vec<u8>,
        listener: &Listener,
        handshakes: &Handshakes,
    ) -> io::Result<Self> {
        let stream = match listener.tls() {
            None => return Self::plain(first, stream).await,
            // What begins as a PROXY header does and is none is no TLS either.
            Some(tls) if !first.is_empty() => {
                tls.allow_plain()?;
                return Self::plain(first, stream).await;
            }
            Some(tls) => match tls.accept(stream, handshakes).await? {
                Accepted::Plain(stream) => return Self::plain(first, stream).await,
                Accepted::Tls(stream) => stream,
            },
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
