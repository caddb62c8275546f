//! HTTP/1.1 on the traffic ports: health checks, and a word to who would call gRPC by it.

use std::{convert::Infallible, io, net::IpAddr, pin::pin, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use super::seats::Seat;
use crate::{
    answer::{self, Answer, HttpCheck, MAX_REQUEST},
    auth::Said,
    grpc::{Code, Status},
    relay::{Listener, Relay},
    route::{Dialect, Path, Refusal, Route},
    tls::CertificateDer,
};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Who is at the other end.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) client: IpAddr,
    /// Whether it speaks TLS.
    pub(super) secured: bool,
    pub(super) certificate: Option<CertificateDer<'static>>,
}

/// Serves one connection until the client closes it, it is idle, another one needs its place, its
/// listener stops, or it asks something after it would not be let in any more.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    listener: Arc<Listener>,
    asker: Asker,
    relay: &Relay,
    seat: &Seat,
) {
    let limits = listener.limits();
    let max_head = usize::try_from(limits.max_header_list_size.as_u64()).unwrap_or(usize::MAX);
    let asker = Rc::new(asker);
    let service = service_fn(|request| {
        let (before, listener) = (&listener, relay.current(&listener));
        let asker = Rc::clone(&asker);
        let certified = asker.certificate.is_some();
        let stays = listener.keeps(Some(asker.client), asker.secured, certified);
        // It is checked anew when it comes again.
        let last = certified && !listener.trusts_as(before);
        async move {
            if !stays {
                return Err(io::Error::from(io::ErrorKind::PermissionDenied));
            }
            let mut response = respond(request, &listener, &asker).await;
            if last {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            seat.asked();
            Ok(response)
        }
    });
    let connection = http1::Builder::new()
        // hyper reads at least 8 KiB at a time.
        .max_buf_size(max_head.max(8 << 10))
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let begun = Instant::now();
    let mut until = begun + limits.handshake_timeout;
    let mut stopping = false;
    let ended = loop {
        tokio::select! {
            // After a process was stopped for a while, what was asked meanwhile comes first.
            biased;
            ended = connection.as_mut() => break ended,
            () = listener.stop().cancelled(), if !stopping => {
                stopping = true;
                until = Instant::now() + limits.handshake_timeout;
                connection.as_mut().graceful_shutdown();
            }
            () = seat.wanted(asker.client) => return,
            () = sleep_until(until) => match seat.asked_at() {
                // One that reads no answers is idle too.
                Some(asked) if !stopping && asked + limits.idle_timeout > Instant::now() => {
                    until = asked + limits.idle_timeout;
                }
                None if !stopping => {
                    let why = "no whole request in time";
                    return listener.refusals().refused(asker.client, "handshake_timeout", why);
                }
                _ => return debug!("HTTP/1.1 connection idle"),
            },
        }
    };
    if let Err(error) = ended {
        debug!(%error, "HTTP/1.1 connection ended");
    }
}

async fn respond(request: Request<Incoming>, listener: &Listener, asker: &Asker) -> Response<Body> {
    let (head, body) = request.into_parts();
    let answers = listener.answers();
    let route = listener.router().http1(&head);
    if let (Route::Health(dialect), Some(gate)) = (&route, listener.gate())
        && let Err(denied) = listener.lets_ask(
            Some(asker.client),
            || Said::of(&head.headers, &header::AUTHORIZATION),
            &gate.peer(asker.certificate.as_ref()),
        )
    {
        return match dialect {
            Dialect::Http => plain(&head.method, answer::denial(gate.refusal(denied))),
            _ => grpc(Answer::refusal(denied.status())),
        };
    }
    if let Route::Health(dialect) = &route {
        listener.answered(*dialect);
    }
    match route {
        Route::Live => plain(&head.method, answer::live()),
        Route::Health(Dialect::Http) => {
            let target = head.uri.path_and_query().map_or("", |target| target.as_str());
            let named = matches!(listener.router().path(target.as_bytes()), Path::Named { .. });
            let accept = head.headers.get(header::ACCEPT).map(HeaderValue::as_bytes);
            plain(&head.method, answers.http(&HttpCheck { target, named, accept }))
        }
        Route::Health(Dialect::Alb) => grpc(answers.alb()),
        Route::Health(Dialect::List) => grpc(answers.list()),
        Route::Health(Dialect::Check) => {
            let encoding = head.headers.get("grpc-encoding").map(HeaderValue::as_bytes);
            let agent = head.headers.get(header::USER_AGENT).map(HeaderValue::as_bytes);
            let way = answers.not_serving_as(agent);
            let patience = listener.limits().handshake_timeout;
            match timeout(patience, Limited::new(body, MAX_REQUEST).collect()).await {
                Ok(Ok(body)) => grpc(answers.check(&body.to_bytes(), encoding, way)),
                Err(_) => grpc(Answer::refusal(Status::new(
                    Code::Cancelled,
                    "the health check did not arrive in time",
                ))),
                Ok(Err(_)) => grpc(Answer::refusal(Status::new(
                    Code::ResourceExhausted,
                    "health check too large",
                ))),
            }
        }
        Route::Health(Dialect::Watch) | Route::Reflection | Route::Forward => {
            grpc(Answer::refusal(Status::new(Code::Internal, "gRPC calls need HTTP/2")))
        }
        Route::Refuse(Refusal::Grpc(status)) => grpc(Answer::refusal(status)),
        Route::Refuse(Refusal::Http(status)) => plain(&head.method, answer::refusal(status)),
    }
}

/// To HEAD, the body's length without the body.
fn plain(method: &Method, response: Response<Bytes>) -> Response<Body> {
    response.map(|text| {
        let text = if method == Method::HEAD { Bytes::new() } else { text };
        Full::new(text).boxed_unsync()
    })
}

/// gRPC's reply, its status in chunked trailers, which hyper sends to a client that takes them.
fn grpc(answer: Answer) -> Response<Body> {
    let Some(message) = answer.message else {
        return answer.status.trailers_only().map(|()| Full::default().boxed_unsync());
    };
    let frames = [Frame::data(message), Frame::trailers(answer.status.trailers())].map(Ok);
    let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TRAILER, HeaderValue::from_static("grpc-status"));
    response
}
