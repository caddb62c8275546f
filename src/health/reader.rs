//! Who reads the board, and may not believe it.

use std::sync::Arc;

use tokio::sync::watch;

use super::Snapshot;
use crate::watchdog::{Trouble, Vitals};

/// Reads what the board publishes; clones share it.
#[derive(Debug, Clone)]
pub struct Reader {
    published: watch::Receiver<Arc<Snapshot>>,
    vitals: Vitals,
}

/// A reader that waits for changes.
#[derive(Debug)]
pub struct Follow {
    reader: Reader,
    troubles: watch::Receiver<Option<Trouble>>,
}

impl Reader {
    pub(super) fn new(published: watch::Receiver<Arc<Snapshot>>, vitals: &Vitals) -> Self {
        Self { published, vitals: vitals.clone() }
    }

    /// Reads this one snapshot for ever.
    pub fn of(snapshot: Snapshot) -> Self {
        Self::new(watch::channel(Arc::new(snapshot)).1, &Vitals::unwatched())
    }

    /// Returns the last snapshot. Where it may be out of date, nothing in it serves.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let snapshot = Arc::clone(&self.published.borrow());
        match self.vitals.trouble() {
            None => snapshot,
            Some(trouble) => Arc::new(snapshot.withheld(trouble)),
        }
    }

    /// The same, to wait for what comes.
    pub fn follow(&self) -> Follow {
        Follow { reader: self.clone(), troubles: self.vitals.follow() }
    }
}

impl Follow {
    /// Returns the last snapshot, as [`Reader::snapshot`].
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        self.reader.published.mark_unchanged();
        self.troubles.mark_unchanged();
        self.reader.snapshot()
    }

    /// Waits until the snapshot may be another one; for ever, where the board is gone. Dropping the
    /// future loses nothing.
    pub async fn changed(&mut self) {
        tokio::select! {
            Ok(()) = self.reader.published.changed() => {}
            Ok(()) = self.troubles.changed() => {}
            else => std::future::pending().await,
        }
    }
}
