//! A client connection for unary gRPC calls, one at a time, made anew when it is lost. No pings:
//! grpc-go answers those that come often with GOAWAY.

use std::{
    future::{pending, poll_fn},
    io::ErrorKind,
    mem::take,
    net::SocketAddr,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header, uri::Authority};
use tokio::task::JoinSet;

use super::{Failure, Target};
use crate::{
    grpc::{Code, Status},
    tls::Spoken,
};

/// Calls one address.
#[derive(Debug)]
pub struct Channel {
    target: Target,
    authority: Authority,
    timeout: Duration,
    open: Option<Open>,
    broke: bool,
}

/// What came back from a call.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status in the trailers, or in the head where that is all there is.
    pub status: Status,
    /// The body, with its message prefixes.
    pub body: Bytes,
}

impl Channel {
    /// A channel that connects with its first call. `timeout` is what calls announce as their
    /// `grpc-timeout`; to keep to it is the caller's business.
    pub fn new(target: impl Into<Target>, authority: Option<Authority>, timeout: Duration) -> Self {
        let target = target.into();
        let authority = authority.unwrap_or_else(|| own_authority(target.address));
        Self { target, authority, timeout, open: None, broke: false }
    }

    /// Sends one message, prefix included, and waits for the whole reply.
    ///
    /// # Errors
    /// [`Failure::Connect`], [`Failure::Refused`], or [`Failure::Rpc`] for a reply that is not gRPC's. A connection that
    /// was lost since the last call is no error: it is made anew once.
    pub async fn unary(
        &mut self,
        path: &str,
        metadata: &HeaderMap,
        message: Bytes,
    ) -> Result<Reply, Failure> {
        // One that was made by other certificates would pass where no new one can be made.
        let version = self.target.version();
        if let Some(open) = self.open.take().filter(|open| open.version == version) {
            match self.exchange(open, path, metadata, message.clone()).await {
                Ok(reply) => return Ok(reply),
                Err((mut open, _)) => self.broke |= open.has_ended(),
            }
        }
        let open = Open::to(&self.target).await?;
        self.exchange(open, path, metadata, message).await.map_err(|(_, failure)| failure)
    }

    /// Waits until the connection that is kept between calls ends, by its loss or by a GOAWAY: one
    /// without streams ends at either. For ever, where none is kept.
    pub(super) async fn lost(&mut self) {
        if let Some(open) = &mut self.open {
            open.ended().await;
            self.open = None;
        } else {
            pending::<()>().await;
        }
    }

    /// Whether a call found the kept connection ended, since this was asked last.
    pub(super) fn broke(&mut self) -> bool {
        take(&mut self.broke)
    }

    /// One call. The connection is kept where it went well, and comes back where it did not.
    async fn exchange(
        &mut self,
        mut open: Open,
        path: &str,
        metadata: &HeaderMap,
        message: Bytes,
    ) -> Result<Reply, (Open, Failure)> {
        let request = request(self.authority.clone(), path, metadata, Some(self.timeout));
        let reply = match open.send(request, message).await {
            Ok(response) => read(response).await,
            Err(failure) => Err(failure),
        };
        match reply {
            Ok(reply) => {
                self.open = Some(open);
                Ok(reply)
            }
            Err(failure) => Err((open, failure)),
        }
    }
}

/// A connection and the task that drives it, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Open {
    sender: SendRequest<Bytes>,
    scheme: &'static str,
    /// What it was made by.
    version: u64,
    driver: JoinSet<()>,
}

impl Open {
    pub(super) async fn to(target: &Target) -> Result<Self, Failure> {
        let version = target.version();
        let stream = target.connect(Spoken::Http2).await?;
        let scheme = stream.scheme();
        let mut builder = h2::client::Builder::new();
        builder.enable_push(false).max_header_list_size(MAX_HEADER_LIST);
        let (sender, connection) = builder.handshake(stream).await.map_err(explain)?;
        let mut driver = JoinSet::new();
        driver.spawn(async {
            // What ends it is seen by the call that it fails.
            _ = connection.await;
        });
        Ok(Self { sender, scheme, version, driver })
    }

    /// Sends a request with one message and waits for the head of the response.
    pub(super) async fn send(
        &mut self,
        mut request: Request<()>,
        message: Bytes,
    ) -> Result<http::Response<h2::RecvStream>, Failure> {
        let mut uri = request.uri().clone().into_parts();
        uri.scheme = self.scheme.parse().ok();
        *request.uri_mut() = Uri::from_parts(uri).expect("it has all three parts");
        poll_fn(|context| self.sender.poll_ready(context)).await.map_err(explain)?;
        let (response, mut body) = self.sender.send_request(request, false).map_err(explain)?;
        body.send_data(message, true).map_err(explain)?;
        response.await.map_err(explain)
    }

    async fn ended(&mut self) {
        self.driver.join_next().await;
    }

    fn has_ended(&mut self) -> bool {
        self.driver.try_join_next().is_some() || self.driver.is_empty()
    }
}

/// The authority of an endpoint that has no other.
pub(super) fn own_authority(address: SocketAddr) -> Authority {
    address.to_string().parse().expect("a socket address is an authority")
}

/// The head of a call.
pub(super) fn request(
    authority: Authority,
    path: &str,
    metadata: &HeaderMap,
    timeout: Option<Duration>,
) -> Request<()> {
    let uri = Uri::builder()
        .scheme("http")
        .authority(authority)
        .path_and_query(path)
        .build()
        .expect("paths of gRPC methods are lawful");
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    if let Some(timeout) = timeout {
        let timeout = format!("{}m", timeout.as_millis().clamp(1, 99_999_999));
        let timeout = HeaderValue::from_str(&timeout).expect("digits and a letter");
        headers.insert("grpc-timeout", timeout);
    }
    headers.extend(metadata.clone());
    request
}

async fn read(response: http::Response<h2::RecvStream>) -> Result<Reply, Failure> {
    let (head, mut body) = response.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(Failure::Rpc(format!("HTTP status {}", head.status)));
    }
    let mut received = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(explain)?;
        // Fails only after the stream has ended.
        _ = body.flow_control().release_capacity(chunk.len());
        received.extend_from_slice(&chunk);
        if received.len() > MAX_REPLY {
            return Err(Failure::Rpc(format!("a reply of more than {MAX_REPLY} bytes")));
        }
    }
    let trailers = body.trailers().await.map_err(explain)?.unwrap_or_default();
    let status = Status::of(&trailers).or_else(|| Status::of(&head.headers));
    let missing = || Status::new(Code::Unknown, "no grpc-status in the reply");
    Ok(Reply { status: status.unwrap_or_else(missing), body: received.freeze() })
}

/// An HTTP/2 error in words.
pub(super) fn explain(error: h2::Error) -> Failure {
    if let Some(io) = error.get_io() {
        let why = match io.get_ref() {
            // What TLS says, such as that a certificate is wanted.
            Some(words) if io.kind() == ErrorKind::InvalidData => words.to_string(),
            _ => io.kind().to_string(),
        };
        return Failure::Rpc(format!("connection lost: {why}"));
    }
    match error.reason() {
        Some(reason) if error.is_remote() && error.is_go_away() => {
            Failure::Rpc(format!("GOAWAY {reason:?}"))
        }
        Some(reason) if error.is_remote() => Failure::Rpc(format!("stream reset: {reason:?}")),
        // The peer broke the protocol, or never spoke it.
        _ => Failure::Rpc(format!("no HTTP/2: {error}")),
    }
}

const USER_AGENT: &str = concat!("upbeat/", env!("CARGO_PKG_VERSION"));
const MAX_REPLY: usize = 64 << 10;
const MAX_HEADER_LIST: u32 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::{
        io,
        pin::Pin,
        task::{Context, Poll},
    };

    use rustls::{AlertDescription, Error};
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::*;

    /// A connection whose peer says under TLS that it wants a certificate, and no more.
    struct Refused;

    impl AsyncRead for Refused {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let alert = Error::AlertReceived(AlertDescription::CertificateRequired);
            Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, alert)))
        }
    }

    impl AsyncWrite for Refused {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_tls_says_at_the_end_is_told() {
        let (_sender, connection) = h2::client::handshake(Refused).await.unwrap();
        let failure = explain(connection.await.unwrap_err());
        let words = "connection lost: received fatal alert: CertificateRequired";
        assert!(matches!(&failure, Failure::Rpc(it) if it.contains(words)), "{failure:?}");
    }
}
