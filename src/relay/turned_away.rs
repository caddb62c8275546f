//! Answers of a server that stops, to calls that no handler got to see.
//!
//! gRPC's core (C++, Python, Ruby, PHP) cancels by itself what reaches it between its stop and its
//! last GOAWAY, which counts such calls as taken. Mostly its first GOAWAY comes before that answer.
//! Where the server was held up between the two the answer comes first; it is kept for a moment.

use super::{call::Peer, doubt::Doubt, engine::Engine, replay::Again, upstream::code};
use crate::{grpc::Code, http2::block::Block};

impl Engine {
    /// Gives a response that is its head alone back, unless it says that the call was turned away:
    /// then it is placed again, or its answer kept.
    pub(super) fn unless_turned_away(&mut self, index: u32, block: Block) -> Option<Block> {
        let Some(call) = self.calls.get(index as usize) else { return Some(block) };
        let Peer::Endpoint(peer) = &call.peer else { return Some(block) };
        if peer.replay.is_none() || !is_of_core(&block) {
            return Some(block);
        }
        let link = peer.at.link;
        if self.links.get(link).is_some_and(|link| link.told.is_some()) {
            let why = "every endpoint turned the call away";
            if !self.place_again(index, Again::TurnedAway, why, 0) {
                return Some(block);
            }
            self.context.recycle(block);
        } else if call.request.done {
            let until = self.context.now + MOMENT;
            self.doubts.push(Doubt { call: self.key(index), link, block, until });
        } else {
            return Some(block);
        }
        None
    }

    /// A link's GOAWAY has come.
    pub(super) fn end_doubts_of(&mut self, link: usize) {
        let told: Vec<_> = self.doubts.extract_if(.., |doubt| doubt.link == link).collect();
        for doubt in told {
            self.end_doubt(doubt);
        }
    }

    /// Passes answers on that were kept long enough.
    pub(super) fn end_doubts(&mut self) {
        let now = self.context.now;
        let late: Vec<_> = self.doubts.extract_if(.., |doubt| doubt.until <= now).collect();
        for doubt in late {
            if let Some(call) = self.call(doubt.call)
                && let Peer::Endpoint(peer) = &mut call.peer
                && let Some(replay) = peer.replay.take()
            {
                self.replays.end(replay, &mut self.context);
            }
            self.end_doubt(doubt);
        }
    }

    fn end_doubt(&mut self, doubt: Doubt) {
        match self.call(doubt.call) {
            Some(_) => self.response_head(doubt.call.index, doubt.block, 200, true),
            None => self.context.recycle(doubt.block),
        }
    }
}

/// Whether a response that is its head alone says in the core's own words that it is cancelled.
fn is_of_core(block: &Block) -> bool {
    code(block) == Some(Code::Cancelled)
        && block.first_of(b"grpc-message").is_some_and(|message| message == b"CANCELLED")
}

/// How long an answer is kept at least, in milliseconds.
const MOMENT: u64 = 100;
