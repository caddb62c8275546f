//! What all connections of a worker share.

use crate::http2::{block::Block, field::Fields};

/// What all connections of a worker share.
#[derive(Debug)]
pub struct Context {
    /// Names and repeated fields.
    pub fields: Fields,
    /// Blocks to be used again.
    pub blocks: Vec<Block>,
    /// The time, in milliseconds from any beginning.
    pub now: u64,
    /// How many more frames are taken before [`next`](super::Connection::next) has none left.
    pub frames: usize,
}

impl Default for Context {
    /// Taking as many frames as come.
    fn default() -> Self {
        let (fields, blocks) = (Fields::default(), Vec::new());
        Self { fields, blocks, now: 0, frames: usize::MAX }
    }
}

impl Context {
    /// An empty block.
    pub fn block(&mut self) -> Block {
        self.blocks.pop().unwrap_or_default()
    }

    /// Takes a block back.
    pub fn recycle(&mut self, mut block: Block) {
        block.clear();
        block.fit();
        if self.blocks.len() < BLOCKS {
            self.blocks.push(block);
        }
    }
}

/// Blocks that are kept.
const BLOCKS: usize = 256;
