//! Connections beyond those that a listener takes, on which health alone is answered.

use std::{sync::Arc, time::Duration};

use super::{
    Listener,
    call::{Label, StreamKey},
    engine::Engine,
};
use crate::{
    grpc::Status,
    http2::block::Block,
    route::{Dialect, Route},
};

impl Engine {
    /// Turns away what would stay: the client is to come again, on another connection.
    pub(super) fn turn_away_reserved(
        &mut self,
        listener: &Arc<Listener>,
        client: StreamKey,
        block: Block,
        label: &Label,
        end: bool,
    ) {
        let link = &mut self.links[client.link];
        listener.refusals().denied(link.client.map(|it| it.ip()), "max_connections");
        link.drain(self.context.now);
        // Each at another time, so that they do not all return at once.
        let retry_delay = Some(LATER + LATER.mul_f64(fastrand::f64()));
        let status = Status { retry_delay, ..Status::unavailable(FULL) };
        self.refuse(listener, client, block, label, end, &status);
    }
}

/// Whether a request is answered at once, and leaves nothing open.
pub(super) fn is_brief(route: &Route) -> bool {
    match route {
        Route::Health(dialect) => *dialect != Dialect::Watch,
        Route::Live | Route::Refuse(_) => true,
        Route::Forward | Route::Reflection => false,
    }
}

/// Why a call is turned away.
const FULL: &str = "every connection of limits.max_connections of Upbeat is busy";
/// When its client should come again.
const LATER: Duration = Duration::from_secs(1);
