//! A client's HTTP/2 connection, from its preface to its last stream.

use std::{cell::Cell, rc::Rc, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::{Listener, Pool, stream, transport::Server};
use crate::shutdown::Shutdown;

/// Serves one connection, a task in `streams` for each of its streams. Ends when the client does, or after
/// GOAWAY: when the process stops, when it is idle, and when it is old.
pub async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    listener: Arc<Listener>,
    pool: Pool,
    streams: TaskTracker,
    shutdown: Shutdown,
) {
    let limits = listener.limits().clone();
    let handshake = Server::handshake(stream, &limits);
    let mut server = match timeout(limits.handshake_timeout, handshake).await {
        Ok(Ok(server)) => server,
        Ok(Err(fault)) => return debug!(?fault, "no HTTP/2 preface"),
        Err(_) => return debug!("no HTTP/2 preface in time"),
    };
    let age = limits.max_connection_age.mul_f64(0.9 + 0.2 * fastrand::f64());
    let old = Instant::now() + age;
    let activity = Rc::new(Activity { streams: Cell::new(0), since: Cell::new(Instant::now()) });
    let mut draining = false;
    loop {
        // A client that does not even answer GOAWAY's ping is not waited for.
        let patience = if draining { limits.handshake_timeout } else { limits.idle_timeout };
        let drain = tokio::select! {
            incoming = server.accept() => match incoming {
                Some(Ok(incoming)) => {
                    let busy = Busy::new(&activity);
                    let (listener, pool) = (Arc::clone(&listener), pool.clone());
                    let stop = shutdown.stop.clone();
                    streams.spawn_local(async move {
                        stream::run(incoming, &listener, &pool, &stop).await;
                        drop(busy);
                    });
                    false
                }
                Some(Err(fault)) => return debug!(?fault, "connection lost"),
                None => return,
            },
            () = shutdown.stop.cancelled(), if !draining => true,
            () = sleep_until(old), if !draining => true,
            () = sleep_until(activity.quiet_since() + patience) => {
                let idle = activity.quiet_since().elapsed() >= patience;
                if idle && draining {
                    return;
                }
                idle
            }
        };
        if drain {
            draining = true;
            activity.since.set(Instant::now());
            server.drain();
        }
    }
}

/// Open streams, and since when there are none.
struct Activity {
    streams: Cell<usize>,
    since: Cell<Instant>,
}

impl Activity {
    /// Since when no stream is open; now while one is.
    fn quiet_since(&self) -> Instant {
        if self.streams.get() > 0 { Instant::now() } else { self.since.get() }
    }
}

/// An open stream.
struct Busy(Rc<Activity>);

impl Busy {
    fn new(activity: &Rc<Activity>) -> Self {
        activity.streams.set(activity.streams.get() + 1);
        Self(Rc::clone(activity))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.since.set(Instant::now());
    }
}
