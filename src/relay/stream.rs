//! One stream from a client: routed, then forwarded or answered here.

use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use super::{
    End, Listener, Pool,
    forward::forward,
    local,
    transport::{Incoming, Responder},
};
use crate::{
    answer,
    grpc::Status,
    route::{Dialect, Refusal, Route},
};

/// Takes a stream to its end. `stop` ends a Watch, which would not end by itself.
pub(super) async fn run(
    incoming: Incoming,
    listener: &Listener,
    pool: &Pool,
    stop: &CancellationToken,
) {
    let Incoming { request, body, mut respond } = incoming;
    let (head, ()) = request.into_parts();
    match listener.router.route(&head) {
        Route::Forward => forward(head, body, respond, listener, pool).await,
        Route::Refuse(Refusal::Grpc(status)) => {
            listener.ended(head.uri.path(), End::Refused(status.code));
            refuse(&mut respond, &status);
        }
        Route::Refuse(Refusal::Http(status)) => {
            local::plain(&mut respond, &head.method, answer::refusal(status));
        }
        Route::Live => local::plain(&mut respond, &head.method, answer::live()),
        Route::Health(dialect) => {
            listener.answered(dialect);
            let answers = &listener.answers;
            match dialect {
                Dialect::Http => {
                    local::plain(&mut respond, &head.method, answers.http(head.uri.query()));
                }
                Dialect::Alb => local::unary(&mut respond, answers.alb()).await,
                Dialect::List => local::unary(&mut respond, answers.list()).await,
                Dialect::Check => {
                    let timeout = listener.limits.handshake_timeout;
                    if let Some(body) = local::request(body, &mut respond, timeout).await {
                        let answer = answers.check(&body, encoding(&head.headers));
                        local::unary(&mut respond, answer).await;
                    }
                }
                Dialect::Watch => {
                    let timeout = listener.limits.handshake_timeout;
                    if let Some(body) = local::request(body, &mut respond, timeout).await {
                        match answers.watch(&body, encoding(&head.headers)) {
                            Ok(watch) => local::watch(&mut respond, watch, stop).await,
                            Err(status) => refuse(&mut respond, &status),
                        }
                    }
                }
            }
        }
    }
}

/// Ends a call by a status of our own, trailers-only.
pub(super) fn refuse(respond: &mut Responder, status: &Status) {
    // Fails only where the client has reset the stream.
    _ = respond.head(status.trailers_only(), true);
}

fn encoding(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get("grpc-encoding").map(|value| value.as_bytes())
}
