//! A client connection for unary gRPC calls, one at a time, made anew when it is lost. No pings:
//! grpc-go answers those that come often with GOAWAY.

use std::{net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header, uri::Authority};
use tokio::task::JoinSet;

use super::{Failure, tcp};
use crate::grpc::{Code, Status};

/// Calls one address.
#[derive(Debug)]
pub struct Channel {
    address: SocketAddr,
    authority: Authority,
    timeout: Duration,
    open: Option<Open>,
}

/// A connection and the task that drives it, which ends when this is dropped.
#[derive(Debug)]
struct Open {
    sender: SendRequest<Bytes>,
    _driver: JoinSet<()>,
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
    pub fn new(address: SocketAddr, authority: Option<Authority>, timeout: Duration) -> Self {
        let own = || address.to_string().parse().expect("a socket address is an authority");
        Self { address, authority: authority.unwrap_or_else(own), timeout, open: None }
    }

    /// Sends one message, prefix included, and waits for the whole reply.
    ///
    /// # Errors
    /// [`Failure::Connect`], or [`Failure::Rpc`] for a reply that is not gRPC's. A connection that
    /// was lost since the last call is no error: it is made anew once.
    pub async fn unary(
        &mut self,
        path: &str,
        metadata: &HeaderMap,
        message: Bytes,
    ) -> Result<Reply, Failure> {
        if let Some(open) = self.open.take()
            && let Ok(reply) = self.exchange(open, path, metadata, message.clone()).await
        {
            return Ok(reply);
        }
        let open = self.connect().await?;
        self.exchange(open, path, metadata, message).await
    }

    async fn connect(&self) -> Result<Open, Failure> {
        let stream = tcp::connect(self.address).await?;
        let mut builder = h2::client::Builder::new();
        builder.enable_push(false).max_header_list_size(MAX_HEADER_LIST);
        let (sender, connection) = builder.handshake(stream).await.map_err(explain)?;
        let mut driver = JoinSet::new();
        driver.spawn(async {
            // What ends it is seen by the call that it fails.
            _ = connection.await;
        });
        Ok(Open { sender, _driver: driver })
    }

    async fn exchange(
        &mut self,
        open: Open,
        path: &str,
        metadata: &HeaderMap,
        message: Bytes,
    ) -> Result<Reply, Failure> {
        let Open { sender, _driver } = open;
        let mut sender = sender.ready().await.map_err(explain)?;
        let (response, mut body) =
            sender.send_request(self.request(path, metadata), false).map_err(explain)?;
        body.send_data(message, true).map_err(explain)?;
        let response = response.await.map_err(explain)?;
        let reply = read(response).await?;
        self.open = Some(Open { sender, _driver });
        Ok(reply)
    }

    fn request(&self, path: &str, metadata: &HeaderMap) -> Request<()> {
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.authority.clone())
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
        let timeout = format!("{}m", self.timeout.as_millis().clamp(1, 99_999_999));
        let timeout = HeaderValue::from_str(&timeout).expect("digits and a letter");
        headers.insert("grpc-timeout", timeout);
        headers.extend(metadata.clone());
        request
    }
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
fn explain(error: h2::Error) -> Failure {
    if let Some(io) = error.get_io() {
        return Failure::Rpc(format!("connection lost: {}", io.kind()));
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
