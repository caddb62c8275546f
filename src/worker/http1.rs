//! HTTP/1.1 on the traffic ports: health checks, and a word to who would call gRPC by it.

use std::{convert::Infallible, pin::pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use crate::{
    answer::{self, Answer, MAX_REQUEST},
    grpc::{Code, Status},
    relay::Listener,
    route::{Dialect, Refusal, Route},
    shutdown::Shutdown,
};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Serves one connection until the client closes it, it is idle, or the process stops.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    listener: Arc<Listener>,
    shutdown: &Shutdown,
) {
    let limits = listener.limits();
    let head_timeout = limits.handshake_timeout;
    let max_head = usize::try_from(limits.max_header_list_size.as_u64()).unwrap_or(usize::MAX);
    let service = {
        let listener = Arc::clone(&listener);
        service_fn(move |request| {
            let listener = Arc::clone(&listener);
            async move { Ok::<_, Infallible>(respond(request, &listener).await) }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        // hyper reads at least 8 KiB at a time.
        .max_buf_size(max_head.max(8 << 10))
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "HTTP/1.1 connection ended");
    }
}

async fn respond(request: Request<Incoming>, listener: &Listener) -> Response<Body> {
    let (head, body) = request.into_parts();
    let answers = listener.answers();
    let route = listener.router().http1(&head);
    if let Route::Health(dialect) = &route {
        listener.answered(*dialect);
    }
    match route {
        Route::Live => plain(&head.method, answer::live()),
        Route::Health(Dialect::Http) => plain(&head.method, answers.http(head.uri.query())),
        Route::Health(Dialect::Alb) => grpc(answers.alb()),
        Route::Health(Dialect::List) => grpc(answers.list()),
        Route::Health(Dialect::Check) => {
            let encoding = head.headers.get("grpc-encoding").map(HeaderValue::as_bytes);
            match Limited::new(body, MAX_REQUEST).collect().await {
                Ok(body) => grpc(answers.check(&body.to_bytes(), encoding)),
                Err(_) => grpc(Answer::refusal(Status::new(
                    Code::ResourceExhausted,
                    "health check too large",
                ))),
            }
        }
        Route::Health(Dialect::Watch) | Route::Forward => {
            grpc(Answer::refusal(Status::new(Code::Internal, "gRPC calls need HTTP/2")))
        }
        Route::Refuse(Refusal::Grpc(status)) => grpc(Answer::refusal(status)),
        Route::Refuse(Refusal::Http(status)) => plain(&head.method, answer::refusal(status)),
    }
}

/// To HEAD, the body's length without the body.
fn plain(method: &Method, response: Response<&'static str>) -> Response<Body> {
    response.map(|text| {
        let text = if method == Method::HEAD { "" } else { text };
        Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync()
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
