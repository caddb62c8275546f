//! Streams that are answered here. A client that went away meanwhile is no error, so what is sent
//! to it is sent without a look at the outcome.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Response, header};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::transport::{CANCEL, Fault, Received, Receiver, Responder};
use crate::{
    answer::{Answer, MAX_REQUEST, Watch},
    grpc::{Code, Status},
};

/// A response that is not gRPC's; to HEAD without its body.
pub(super) fn plain(respond: &mut Responder, method: &Method, response: Response<&'static str>) {
    let (head, text) = response.into_parts();
    let bodiless = method == Method::HEAD || text.is_empty();
    if let Ok(mut sender) = respond.head(Response::from_parts(head, ()), bodiless)
        && !bodiless
    {
        _ = sender.last(Bytes::from_static(text.as_bytes()));
    }
}

/// Ends a call by a status of our own, trailers-only.
pub(super) fn refuse(respond: &mut Responder, status: &Status) {
    _ = respond.head(status.trailers_only(), true);
}

/// The reply to a unary call.
pub(super) async fn unary(respond: &mut Responder, answer: Answer) {
    let Some(message) = answer.message else {
        return refuse(respond, &answer.status);
    };
    _ = async {
        let mut sender = respond.head(grpc_head(), false)?;
        let mut message = message;
        while !message.is_empty() {
            sender.data(&mut message, false).await?;
        }
        sender.trailers(answer.status.trailers())
    }
    .await;
}

/// Sends what `watch` says until the client goes away, or `stop` ends it after the last message.
pub(super) async fn watch(respond: &mut Responder, mut watch: Watch, stop: &CancellationToken) {
    _ = async {
        let mut sender = respond.head(grpc_head(), false)?;
        loop {
            let mut message = tokio::select! {
                biased;
                message = watch.next() => message,
                fault = sender.closed() => return Err(fault),
                () = stop.cancelled() => {
                    // Unavailable, so that the client asks again, elsewhere.
                    return sender.trailers(Status::new(Code::Unavailable, "draining").trailers());
                }
            };
            while !message.is_empty() {
                tokio::select! {
                    sent = sender.data(&mut message, false) => drop(sent?),
                    () = stop.cancelled() => {
                        sender.reset(CANCEL);
                        return Ok(());
                    }
                }
            }
        }
    }
    .await;
}

/// The whole body of a health check, which is one small message. `None` where none was to be had
/// and the stream is over.
pub(super) async fn request(
    body: &mut Receiver,
    respond: &mut Responder,
    within: Duration,
) -> Option<Bytes> {
    let read = async {
        let mut request = BytesMut::new();
        loop {
            match body.next().await? {
                Received::End(_) => return Ok(Some(request.freeze())),
                Received::Data(chunk) => {
                    body.credit(chunk.len());
                    request.extend_from_slice(&chunk);
                    if request.len() > MAX_REQUEST {
                        return Ok(None);
                    }
                    if is_whole(&request) {
                        return Ok(Some(request.freeze()));
                    }
                }
            }
        }
    };
    let outcome: Result<Result<_, Fault>, _> = timeout(within, read).await;
    match outcome {
        Ok(Ok(Some(request))) => Some(request),
        Ok(Ok(None)) => {
            let status = Status::new(Code::ResourceExhausted, "health check too large");
            refuse(respond, &status);
            None
        }
        Ok(Err(_)) => None,
        Err(_) => {
            respond.reset(CANCEL);
            None
        }
    }
}

/// Reads what is left of a request that was answered already: a reset in place of that, lawful as
/// it is (RFC 9113, 8.1), makes some clients throw the answer away. Nothing is credited, so it is
/// no more than a stream's window.
pub(super) async fn discard(mut body: Receiver) {
    let rest = async { while let Ok(Received::Data(_)) = body.next().await {} };
    // What is still not over then is reset by being dropped.
    _ = timeout(LINGER, rest).await;
}

/// Whether `body` holds the one message that its prefix announces: what follows is not waited
/// for, since some clients never end their half.
fn is_whole(body: &[u8]) -> bool {
    body.split_first_chunk::<5>().is_some_and(|([_, length @ ..], message)| {
        message.len() >= u32::from_be_bytes(*length) as usize
    })
}

fn grpc_head() -> Response<()> {
    let mut head = Response::new(());
    let headers = head.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head
}

/// How long the rest of an answered request is waited for.
const LINGER: Duration = Duration::from_secs(1);
