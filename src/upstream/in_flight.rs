//! A call in flight on an endpoint: counted when it is admitted, and until its streams end.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::endpoint::{Endpoint, in_flight};

/// A call in flight on an endpoint.
#[derive(Debug)]
pub struct InFlight(Arc<Endpoint>);

impl InFlight {
    /// Registers a call where the endpoint, and its upstream, have room for it; it is in flight until
    /// the guard is dropped.
    pub(super) fn of(endpoint: &Arc<Endpoint>) -> Option<Self> {
        let before = endpoint.calls.fetch_add(STARTED | 1, Relaxed);
        if in_flight(before) >= endpoint.limit.load(Relaxed)
            || endpoint.total.as_ref().is_some_and(|total| !total.take())
        {
            endpoint.calls.fetch_sub(STARTED | 1, Relaxed);
            return None;
        }
        Some(Self(Arc::clone(endpoint)))
    }

    /// The endpoint that the call is on.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }

    /// Takes down that a response has begun: faults before it are no longer in a row with later
    /// ones.
    pub fn answered(&self) {
        if self.0.row.load(Relaxed) != 0 {
            self.0.row.store(0, Relaxed);
        }
    }

    /// Takes down how long the call took, whose response is whole, where the endpoint's bound follows
    /// that.
    pub fn ended(&self, took: Duration) {
        if let Some(adaptive) = &self.0.adaptive {
            let mut adaptive = adaptive.lock().expect("no holder of this lock panics");
            adaptive.ended(took, self.0.in_flight(), Instant::now());
            self.0.limit.store(adaptive.limit(), Relaxed);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Relaxed);
        if let Some(total) = &self.0.total {
            total.give_back();
        }
    }
}

/// One call that was started, in [`Endpoint`]'s count.
const STARTED: u64 = 1 << 32;
