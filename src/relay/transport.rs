//! HTTP/2 in the relay's terms: what a client's connection and a stream's two halves can do.

use std::future::poll_fn;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::Limits;

/// Why a stream ended before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The peer, or a breach of the protocol by it, reset the stream with this code
    /// (RFC 9113, 7).
    Reset(u32),
    /// The connection under it is gone, or its GOAWAY did not take the stream up.
    Lost(String),
}

impl From<h2::Error> for Fault {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() => Self::Reset(reason.into()),
            Some(reason) if error.is_go_away() => Self::Lost(format!("GOAWAY {reason:?}")),
            _ => match error.get_io() {
                Some(io) => Self::Lost(io.kind().to_string()),
                None => Self::Lost(error.to_string()),
            },
        }
    }
}

/// A client's connection.
pub(super) struct Server<S>(h2::server::Connection<S, Bytes>);

impl<S: AsyncRead + AsyncWrite + Unpin> Server<S> {
    /// Exchanges prefaces. A client's connection has room for 32 streams that their endpoints do
    /// not read, before they hold up its other ones.
    pub(super) async fn handshake(stream: S, limits: &Limits) -> Result<Self, Fault> {
        let header_list = u32::try_from(limits.max_header_list_size.as_u64()).unwrap_or(u32::MAX);
        let connection = h2::server::Builder::new()
            .max_concurrent_streams(limits.max_concurrent_streams)
            .max_header_list_size(header_list)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(32 * STREAM_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_local_error_reset_streams(Some(128))
            .handshake(stream)
            .await?;
        Ok(Self(connection))
    }

    /// The next stream; none once the connection is over. Also moves the bytes of all streams,
    /// so it must be awaited all the time.
    pub(super) async fn accept(&mut self) -> Option<Result<Incoming, Fault>> {
        let accepted = self.0.accept().await?;
        Some(accepted.map_err(Fault::from).map(|(request, respond)| {
            let (head, body) = request.into_parts();
            let request = Request::from_parts(head, ());
            Incoming { request, body: Receiver(body), respond: Responder(respond) }
        }))
    }

    /// Sends GOAWAY in two phases (RFC 9113, 6.8); streams that are open go on.
    pub(super) fn drain(&mut self) {
        self.0.graceful_shutdown();
    }
}

/// A stream that a client opened.
pub(super) struct Incoming {
    /// Its head.
    pub(super) request: Request<()>,
    /// What the client sends.
    pub(super) body: Receiver,
    /// The way back.
    pub(super) respond: Responder,
}

/// The way back, before its head was sent.
pub(super) struct Responder(SendResponse<Bytes>);

impl Responder {
    /// Sends the head; with `end` it is all there is.
    pub(super) fn head(&mut self, head: Response<()>, end: bool) -> Result<Sender, Fault> {
        Ok(Sender(self.0.send_response(head, end)?))
    }

    /// Resets the stream.
    pub(super) fn reset(&mut self, code: u32) {
        self.0.send_reset(Reason::from(code));
    }

    /// Waits until the client resets the stream.
    pub(super) async fn closed(&mut self) -> Fault {
        poll_fn(|cx| self.0.poll_reset(cx))
            .await
            .map_or_else(Fault::from, |reason| Fault::Reset(reason.into()))
    }
}

/// The half of a stream that is sent.
pub(super) struct Sender(SendStream<Bytes>);

impl Sender {
    pub(super) fn new(stream: SendStream<Bytes>) -> Self {
        Self(stream)
    }

    /// Sends as much of `chunk` as the peer's window and the send buffer admit, waiting until
    /// that is at least one byte; says how much. `end` holds for the chunk's last byte.
    pub(super) async fn data(&mut self, chunk: &mut Bytes, end: bool) -> Result<usize, Fault> {
        self.0.reserve_capacity(chunk.len());
        loop {
            let free = self.0.capacity();
            if free > 0 {
                let part = chunk.split_to(free.min(chunk.len()));
                let length = part.len();
                self.0.send_data(part, end && chunk.is_empty())?;
                return Ok(length);
            }
            match poll_fn(|cx| self.0.poll_capacity(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(self.closed().await),
            }
        }
    }

    /// Ends the stream with a few bytes, which wait in the send buffer whatever the window.
    pub(super) fn last(&mut self, bytes: Bytes) -> Result<(), Fault> {
        Ok(self.0.send_data(bytes, true)?)
    }

    /// Ends the stream without trailers.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        Ok(self.0.send_data(Bytes::new(), true)?)
    }

    /// Ends the stream with trailers.
    pub(super) fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Fault> {
        Ok(self.0.send_trailers(trailers)?)
    }

    /// Resets the stream.
    pub(super) fn reset(&mut self, code: u32) {
        self.0.send_reset(Reason::from(code));
    }

    /// Waits until the peer resets the stream.
    pub(super) async fn closed(&mut self) -> Fault {
        poll_fn(|cx| self.0.poll_reset(cx))
            .await
            .map_or_else(Fault::from, |reason| Fault::Reset(reason.into()))
    }
}

/// The half of a stream that is received.
pub(super) struct Receiver(RecvStream);

/// What comes next on a stream.
pub(super) enum Received {
    /// Payload; never empty.
    Data(Bytes),
    /// The end, and the trailers before it where there were some.
    End(Option<HeaderMap>),
}

impl Receiver {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self(stream)
    }

    /// What comes next. Empty DATA frames that end nothing are passed over: they mean nothing,
    /// and a receiver may take many of them for an attack.
    pub(super) async fn next(&mut self) -> Result<Received, Fault> {
        loop {
            match self.0.data().await {
                Some(Ok(chunk)) if chunk.is_empty() => {}
                Some(Ok(chunk)) => return Ok(Received::Data(chunk)),
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(Received::End(self.0.trailers().await?)),
            }
        }
    }

    /// Whether the end has arrived already, without trailers.
    pub(super) fn is_ended(&self) -> bool {
        self.0.is_end_stream()
    }

    /// Lets the peer send that many bytes more.
    pub(super) fn credit(&mut self, bytes: usize) {
        // Fails only for more bytes than were received.
        _ = self.0.flow_control().release_capacity(bytes);
    }
}

/// The RST_STREAM code that the relay itself sends (RFC 9113, 7).
pub(super) const CANCEL: u32 = 8;

/// What one stream may send ahead of its receiver, in bytes. Also what it may queue here.
const STREAM_WINDOW: u32 = 256 << 10;
/// What waits here for one client's socket, in bytes a stream.
const SEND_BUFFER: usize = 256 << 10;
