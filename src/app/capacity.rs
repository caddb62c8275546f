//! How many connections a listener may have, and who leaves where there are enough.

use std::{future::pending, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout},
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
    /// Places that nobody has for a while, since the process is out of descriptors, and until when.
    capped: Option<(Instant, Vec<OwnedSemaphorePermit>)>,
}

impl Capacity {
    /// As many as `limits` say.
    pub(super) fn new(limits: &Limits) -> Self {
        let [places, reserve] = sizes(limits).map(|size| Arc::new(Semaphore::new(size as usize)));
        Self { places, reserve, limits: *limits, capped: None }
    }

    /// A place for one more connection, and whether it is one of the reserve. Where all are taken,
    /// the connection that is idle for longest gives its own up; where none is idle, there is the
    /// reserve, of which the oldest gives way.
    pub(super) async fn take(
        &mut self,
        listener: &Arc<Listener>,
        workers: &[Worker],
    ) -> Option<(OwnedSemaphorePermit, bool)> {
        self.capped.take_if(|(until, _)| *until <= Instant::now());
        for (places, reserved) in [(&self.places, false), (&self.reserve, true)] {
            if let Ok(permit) = Arc::clone(places).try_acquire_owned() {
                return Some((permit, reserved));
            }
            let wanted = Wanted { listener: Some(Arc::clone(listener)), reserved };
            if make_room(&wanted, workers).await
                && let Ok(Ok(permit)) = timeout(SOON, Arc::clone(places).acquire_owned()).await
            {
                return Some((permit, reserved));
            }
        }
        None
    }

    /// The process is out of descriptors: some idle connections are ended, so that probes, calls
    /// and files have descriptors, and for a while there are no more than now. Where none of this
    /// listener's is idle, others' are. False where there is none at all.
    pub(super) async fn cap(&mut self, listener: &Arc<Listener>, workers: &[Worker]) -> bool {
        let free = u32::try_from(self.places.available_permits()).unwrap_or(u32::MAX);
        let free = Arc::clone(&self.places).try_acquire_many_owned(free).ok();
        let own = Wanted { listener: Some(Arc::clone(listener)), reserved: false };
        let mut left = Vec::new();
        while left.len() < MARGIN && make_room(&own, workers).await {
            let place = timeout(SOON, Arc::clone(&self.places).acquire_owned()).await;
            let Ok(Ok(place)) = place else { break };
            left.push(place);
        }
        if !left.is_empty() {
            let held = self.capped.take().map(|(_, held)| held).unwrap_or_default();
            let held = held.into_iter().chain(free).chain(left).collect();
            self.capped = Some((Instant::now() + WHILE, held));
            return true;
        }
        drop(free);
        let any = Wanted { listener: None, reserved: false };
        let mut ended = 0;
        while ended < MARGIN && make_room(&any, workers).await {
            ended += 1;
        }
        ended > 0
    }

    /// Has as many places as `listener` says at the time, for as long as it is polled. Those that
    /// are too many are taken away when they are free.
    pub(super) fn follow(
        &self,
        mut listener: watch::Receiver<Arc<Listener>>,
    ) -> impl Future<Output = ()> + use<> {
        let all = [&self.places, &self.reserve].map(Arc::clone);
        let mut now = sizes(&self.limits);
        async move {
            let mut fewer = FuturesUnordered::new();
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
                let new = sizes(listener.borrow_and_update().limits());
                let before = std::mem::replace(&mut now, new);
                for (places, (before, now)) in all.iter().zip(before.into_iter().zip(now)) {
                    if now > before {
                        places.add_permits((now - before) as usize);
                    } else if now < before {
                        fewer.push(Arc::clone(places).acquire_many_owned(before - now));
                    }
                }
            }
        }
    }
}

/// Ends the one of all workers' connections that is the first to make room; false where there is
/// none. A worker that stands still is not waited for.
async fn make_room(wanted: &Wanted, workers: &[Worker]) -> bool {
    let running = workers.iter().filter(|worker| !worker.heartbeat().is_silent());
    let workers: Vec<_> = running.collect();
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

/// How many connections end at once where the process is out of descriptors.
const MARGIN: usize = 16;
/// How long there are no more after that.
const WHILE: Duration = Duration::from_secs(10);
/// How long a connection that is ended may take to give its place up, beside a worker that is busy
/// for a moment.
const SOON: Duration = Duration::from_secs(2);
