//! Clients' connections that were asked to end: what would keep them open.

use std::sync::Arc;

use super::{
    Listener, Settings,
    call::{Local, Peer},
    cause::Cause,
    engine::Engine,
    link::Kind,
    millis,
};
use crate::{
    grpc::Status,
    http2::{connection::NONE, frame::Reason},
};

impl Engine {
    /// Ends the Watch streams of a draining connection once its client has seen GOAWAY, since they
    /// never end by themselves; after the grace ends all calls, and closes it.
    pub(super) fn end_leaving(&mut self, id: usize) {
        let Some(link) = self.links.get(id) else { return };
        let Kind::Client(listener) = &link.kind else { return };
        let grace = millis(listener.limits.max_connection_age_grace);
        let asked = self.context.now.saturating_sub(link.old_at);
        let over = asked >= grace && !self.is_stopping(listener);
        if !over && !link.connection.has_gone() {
            return;
        }
        let calls: Vec<u32> = link.connection.calls().filter(|call| *call != NONE).collect();
        for index in calls {
            // One that ends may take another with it.
            let call = self.calls.get(index as usize).filter(|call| call.client.link == id);
            let Some(call) = call else { continue };
            match &call.peer {
                Peer::Local(Local { watch: Some(_), .. }) if !over => {
                    if !call.response.ended {
                        self.end_local(index, &Status::unavailable(LEAVING));
                    }
                }
                _ if !over => {}
                Peer::Opening(_) | Peer::Endpoint(_) => {
                    call.listener.timed_out(call.target, "age");
                    self.fail(index, &Status::unavailable(OVER));
                }
                Peer::Local(_) | Peer::Reflection(_) => {
                    self.fail(index, &Status::unavailable(OVER));
                }
            }
        }
        if over && let Some(link) = self.links.get_mut(id) {
            link.cause = Some(Cause::Overdue);
            link.close(Reason::NO_ERROR);
            link.quiet_since = self.context.now;
            self.touch(id);
        }
    }

    /// Whether a listener's connections end since the process does, which has a bound of its own.
    /// A listener that is configured no more ends alone.
    fn is_stopping(&self, listener: &Arc<Listener>) -> bool {
        let current = |settings: &Arc<Settings>| {
            settings.listeners.iter().any(|other| Arc::ptr_eq(other, listener))
        };
        listener.stop().is_cancelled() && self.settings.as_ref().is_some_and(current)
    }
}

/// Why a Watch stream ends when its connection does.
const LEAVING: &str = "this connection is asked to end: watch on another one";
/// Why a call does after the grace.
const OVER: &str =
    "this connection was asked to end longer ago than limits.max_connection_age_grace of Upbeat";
