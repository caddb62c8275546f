//! The endpoints of an upstream at one moment.

use std::{ops::Deref, sync::Arc};

use super::{Endpoint, pool::Pool, ring::Ring};
use crate::config;

/// The endpoints of an upstream at one moment, backups last. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    all: Arc<[Arc<Endpoint>]>,
    primaries: usize,
    ring: Option<Arc<Ring>>,
}

impl Endpoints {
    /// Those that are `wanted`, of these where they are known.
    pub(super) fn reconciled(
        &self,
        wanted: &[config::Endpoint],
        pool: &Arc<Pool>,
        hashed: bool,
    ) -> Self {
        let endpoint = |it: &config::Endpoint| {
            let known = self.iter().find(|endpoint| endpoint.address() == it.address);
            let known = known.cloned().inspect(|endpoint| endpoint.set_backup(it.backup));
            known.unwrap_or_else(|| Arc::new(Endpoint::new(it.address, it.backup, pool)))
        };
        let primaries = wanted.iter().filter(|it| !it.backup);
        let backups = wanted.iter().filter(|it| it.backup);
        let all: Arc<[_]> = primaries.clone().chain(backups).map(endpoint).collect();
        let ring = hashed.then(|| Arc::new(Ring::of(all.iter().map(|it| it.address()))));
        Self { primaries: primaries.count(), all, ring }
    }

    /// How many come before the first backup.
    pub(super) fn primaries(&self) -> usize {
        self.primaries
    }

    pub(super) fn ring(&self) -> Option<&Ring> {
        self.ring.as_deref()
    }
}

impl Deref for Endpoints {
    type Target = [Arc<Endpoint>];

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}
