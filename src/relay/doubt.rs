//! Answers of which it is not known yet whether an endpoint gave them.

use super::call::CallKey;
use crate::http2::block::Block;

/// An answer that is kept until its connection's GOAWAY has come, or should have.
#[derive(Debug)]
pub(super) struct Doubt {
    pub(super) call: CallKey,
    pub(super) link: usize,
    pub(super) block: Block,
    pub(super) until: u64,
}
