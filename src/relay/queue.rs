//! Calls that wait for room.

use std::{collections::VecDeque, sync::Arc};

use super::call::CallKey;
use crate::upstream::Upstream;

/// A worker's calls that wait until an endpoint of an upstream has room.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) upstream: Arc<Upstream>,
    pub(super) calls: VecDeque<CallKey>,
}

/// An upstream's place in memory, which its queue holds.
pub(super) type QueueKey = usize;
