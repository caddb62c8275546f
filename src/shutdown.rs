//! The phases in which the process stops.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Three tokens, cancelled one after the other; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Health says NOT_SERVING from now on; calls are still accepted.
    pub drain: CancellationToken,
    /// No new connection, GOAWAY on the open ones; calls in flight may end.
    pub stop: CancellationToken,
    /// What is still open is cut.
    pub abort: CancellationToken,
}

impl Shutdown {
    /// All three, none cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins to drain at SIGTERM or SIGINT, and cuts everything at the second one.
    ///
    /// # Errors
    /// The process may not handle these signals.
    pub async fn follow_signals(self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        // Awaited apart: a line that the level leaves out does not evaluate its fields.
        let first = next().await;
        info!(signal = first, "draining");
        self.drain.cancel();
        let second = next().await;
        warn!(signal = second, "drain cut");
        self.stop.cancel();
        self.abort.cancel();
        Ok(())
    }
}
