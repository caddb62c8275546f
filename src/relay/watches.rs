//! How many Watch streams there are, of which each stays for as long as its client likes.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use tokio::task::AbortHandle;

use super::{
    call::{Local, Peer},
    engine::Engine,
};
use crate::{
    grpc::{Code, Status},
    http2::connection::NONE,
};

/// Counts the Watch streams of a whole process; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Watches(Arc<AtomicU32>);

impl Watches {
    /// One more, unless there are `most`.
    fn take(&self, most: u32) -> Option<Watching> {
        let more = |open: u32| (open < most).then_some(open + 1);
        self.0.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Watching { of: self.clone(), task: None })
    }
}

/// A Watch stream; dropped at its end.
#[derive(Debug)]
pub(super) struct Watching {
    of: Watches,
    /// The task that follows the board.
    task: Option<AbortHandle>,
}

impl Watching {
    /// It is told of the board by this task, which ends with it.
    pub(super) fn by(&mut self, task: AbortHandle) {
        self.task = Some(task);
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.of.0.fetch_sub(1, Relaxed);
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Engine {
    /// Makes a health check a Watch, of which there are not too many.
    ///
    /// # Errors
    /// There are, which is counted.
    pub(super) fn begin_watch(&mut self, index: u32) -> Result<(), Status> {
        let call = &self.calls[index as usize];
        let Some(link) = self.links.get(call.client.link) else { return Ok(()) };
        let limits = &call.listener.limits;
        let own = link.connection.calls().filter(|index| {
            let call = (*index != NONE).then(|| self.calls.get(*index as usize)).flatten();
            call.is_some_and(|it| matches!(it.peer, Peer::Local(Local { watch: Some(_), .. })))
        });
        let most = limits.max_watches_per_connection;
        let taken = if own.count() >= most as usize {
            Err(("max_watches_per_connection", most))
        } else {
            let watching = call.listener.watches().take(limits.max_watches);
            watching.ok_or(("max_watches", limits.max_watches))
        };
        let watching = taken.map_err(|(key, most)| {
            call.listener.refusals().denied(link.client.map(|it| it.ip()), key);
            let words = format!("as many Watch streams as limits.{key} of Upbeat allows: {most}");
            Status::new(Code::ResourceExhausted, words)
        })?;
        if let Peer::Local(local) = &mut self.calls[index as usize].peer {
            local.watch = Some(watching);
        }
        Ok(())
    }
}
