//! One stream from a client: routed, then forwarded or answered here.

use http::HeaderValue;
use tokio_util::sync::CancellationToken;

use super::{End, Listener, Pool, forward::forward, local, transport::Incoming};
use crate::{
    answer,
    route::{Dialect, Refusal, Route},
};

/// Takes a stream to its end. `stop` ends a Watch, which would not end by itself.
pub(super) async fn run(
    incoming: Incoming,
    listener: &Listener,
    pool: &Pool,
    stop: &CancellationToken,
) {
    let Incoming { request, mut body, mut respond } = incoming;
    let (head, ()) = request.into_parts();
    let patience = listener.limits.handshake_timeout;
    match listener.router.route(&head) {
        Route::Forward => return forward(head, body, respond, listener, pool).await,
        Route::Refuse(Refusal::Grpc(status)) => {
            listener.ended(head.uri.path(), End::Refused(status.code));
            local::refuse(&mut respond, &status);
        }
        Route::Refuse(Refusal::Http(status)) => {
            local::plain(&mut respond, &head.method, answer::refusal(status));
        }
        Route::Live => local::plain(&mut respond, &head.method, answer::live()),
        Route::Health(Dialect::Http) => {
            listener.answered(Dialect::Http);
            let answer = listener.answers.http(head.uri.query());
            local::plain(&mut respond, &head.method, answer);
        }
        Route::Health(dialect) => {
            listener.answered(dialect);
            let Some(request) = local::request(&mut body, &mut respond, patience).await else {
                return;
            };
            let answers = &listener.answers;
            let encoding = head.headers.get("grpc-encoding").map(HeaderValue::as_bytes);
            match dialect {
                Dialect::Alb => local::unary(&mut respond, answers.alb()).await,
                Dialect::List => local::unary(&mut respond, answers.list()).await,
                Dialect::Watch => match answers.watch(&request, encoding) {
                    Ok(watch) => local::watch(&mut respond, watch, stop).await,
                    Err(status) => local::refuse(&mut respond, &status),
                },
                Dialect::Check | Dialect::Http => {
                    local::unary(&mut respond, answers.check(&request, encoding)).await;
                }
            }
        }
    }
    local::discard(body).await;
}
