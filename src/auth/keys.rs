//! The keys of an issuer as they are now, between those who check tokens and the one who fetches.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering::Relaxed},
};

use tokio::sync::{Notify, watch};

use crate::config::Jwks;

/// An issuer's keys; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Keys(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    now: watch::Sender<Option<Arc<Jwks>>>,
    /// Whether others may be asked for: one of the constants below.
    asked: AtomicU8,
    wanted: Notify,
}

impl Keys {
    /// Keys that stay as they are.
    pub fn fixed(jwks: Jwks) -> Self {
        let keys = Self::default();
        keys.publish(jwks);
        keys
    }

    /// Has tokens be checked by these from now on. False where they are the same.
    pub fn publish(&self, jwks: Jwks) -> bool {
        self.0.now.send_if_modified(|now| {
            let new = now.as_deref() != Some(&jwks);
            if new {
                *now = Some(Arc::new(jwks));
            }
            new
        })
    }

    /// None where there were none yet.
    pub(super) fn now(&self) -> Option<Arc<Jwks>> {
        self.0.now.borrow().clone()
    }

    /// Asks for others, since a token names a key that is not there. False where they were fetched
    /// for such a reason just now, or are not fetched at all.
    pub(super) fn want(&self) -> bool {
        let changed = self.0.asked.compare_exchange(READY, ASKED, Relaxed, Relaxed);
        if changed.is_ok() {
            self.0.wanted.notify_one();
        }
        changed.unwrap_or_else(|now| now) == ASKED || changed.is_ok()
    }

    /// Waits until somebody asks. Dropping the future loses nothing.
    pub async fn wanted(&self) {
        while self.0.asked.load(Relaxed) != ASKED {
            self.0.wanted.notified().await;
        }
    }

    /// Answers who asked. False where nobody has; else others can be asked for after
    /// [`Keys::ready`].
    pub fn answered(&self) -> bool {
        self.0.asked.compare_exchange(ASKED, RESTING, Relaxed, Relaxed).is_ok()
    }

    /// Lets others be asked for.
    pub fn ready(&self) {
        self.0.asked.store(READY, Relaxed);
    }
}

const RESTING: u8 = 0;
const READY: u8 = 1;
const ASKED: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_are_asked_for_once_until_somebody_is_ready_again() {
        let keys = Keys::default();
        assert!(!keys.want() && keys.now().is_none());
        keys.ready();
        assert!(keys.want() && keys.want());
        keys.wanted().await;
        assert!(keys.answered() && !keys.answered() && !keys.want());
        keys.ready();
        assert!(keys.want());
    }
}
