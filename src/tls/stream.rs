//! A connection with TLS or without.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// A connection to a server, with TLS or without.
#[derive(Debug)]
pub enum Stream {
    /// Without.
    Plain(TcpStream),
    /// With.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The scheme of what is asked on it.
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Plain(_) => "http",
            Self::Tls(_) => "https",
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => match Pin::new(&mut *stream).poll_write(cx, bytes) {
                Poll::Ready(Err(error)) => last_words(stream, cx, error).map(Err),
                written => written,
            },
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => match Pin::new(&mut *stream).poll_flush(cx) {
                Poll::Ready(Err(error)) => last_words(stream, cx, error).map(Err),
                flushed => flushed,
            },
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Why nothing more is taken: an alert may be there to be read, such as that of a server which wants
/// a certificate. With TLS 1.3 it comes after the handshake, and then the server is gone.
fn last_words(
    stream: &mut TlsStream<TcpStream>,
    cx: &mut Context<'_>,
    error: io::Error,
) -> Poll<io::Error> {
    if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) {
        return Poll::Ready(error);
    }
    let mut byte = [0];
    // What has an end can be read, be it now or when the socket's readiness is known.
    match ready!(Pin::new(stream).poll_read(cx, &mut ReadBuf::new(&mut byte))) {
        Err(words) if words.kind() == io::ErrorKind::InvalidData => Poll::Ready(words),
        _ => Poll::Ready(error),
    }
}
