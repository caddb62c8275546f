//! How many connections a listener may have, and who leaves where there are enough.

use std::{future::pending, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};

use crate::{
    config::Limits,
    relay::Listener,
    worker::{Wanted, Worker},
};

/// The places of one listener's connections.
#[derive(Debug)]
pub(super) struct Capacity {
    places: Arc<Semaphore>,
    /// Beyond these, for health checks.
    reserve: Arc<Semaphore>,
    limits: Limits,
}

impl Capacity {
    /// As many as `limits` say.
    pub(super) fn new(limits: &Limits) -> Self {
        let [places, reserve] = sizes(limits).map(|size| Arc::new(Semaphore::new(size as usize)));
        Self { places, reserve, limits: *limits }
    }

    /// A place for one more connection, and whether it is one of the reserve. Where all are taken,
    /// the connection that is idle for longest gives its own up; where none is idle, there is the
    /// reserve, of which the oldest gives way.
    pub(super) async fn take(
        &self,
        listener: &Arc<Listener>,
        workers: &[Worker],
    ) -> Option<(OwnedSemaphorePermit, bool)> {
        for (places, reserved) in [(&self.places, false), (&self.reserve, true)] {
            if let Ok(permit) = Arc::clone(places).try_acquire_owned() {
                return Some((permit, reserved));
            }
            let wanted = Wanted { listener: Arc::clone(listener), reserved };
            if make_room(&wanted, workers).await
                && let Ok(Ok(permit)) = timeout(SOON, Arc::clone(places).acquire_owned()).await
            {
                return Some((permit, reserved));
            }
        }
        None
    }

    /// Has as many places as `listener` says at the time, for as long as it is polled. Those that
    /// are too many are taken away when they are free.
    pub(super) async fn follow(&self, mut listener: watch::Receiver<Arc<Listener>>) {
        let (mut fewer, mut now) = (FuturesUnordered::new(), sizes(&self.limits));
        loop {
            tokio::select! {
                biased;
                Some(Ok(back)) = fewer.next() => {
                    let back: OwnedSemaphorePermit = back;
                    back.forget();
                    continue;
                }
                changed = listener.changed() => if changed.is_err() {
                    // Nobody replaces the listener any more: it is to stop.
                    pending::<()>().await;
                },
            }
            let before = std::mem::replace(&mut now, sizes(listener.borrow_and_update().limits()));
            for (places, (before, now)) in
                [&self.places, &self.reserve].into_iter().zip(before.into_iter().zip(now))
            {
                if now > before {
                    places.add_permits((now - before) as usize);
                } else if now < before {
                    fewer.push(Arc::clone(places).acquire_many_owned(before - now));
                }
            }
        }
    }
}

/// Ends the one of all workers' connections that is the first to make room; false where there is
/// none.
async fn make_room(wanted: &Wanted, workers: &[Worker]) -> bool {
    let idle = join_all(workers.iter().map(|worker| worker.longest_idle(wanted, false))).await;
    let first = workers.iter().zip(idle).filter_map(|(worker, idle)| Some((idle?, worker)));
    match first.min_by_key(|(idle, _)| *idle) {
        Some((_, worker)) => worker.longest_idle(wanted, true).await.is_some(),
        None => false,
    }
}

fn sizes(limits: &Limits) -> [u32; 2] {
    [limits.max_connections, limits.reserved_connections]
}

/// How long a connection that is ended may take to give its place up.
const SOON: Duration = Duration::from_millis(500);
