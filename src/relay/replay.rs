//! What is kept of calls for the case that they are placed again, and how often they are.

use std::net::SocketAddr;

use super::{buffers::Buffers, flow::Flow};
use crate::{
    config::Retry,
    http2::{block::Block, connection::Context},
};

/// What another endpoint needs of a call: kept until its response's head has come.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) head: Block,
    /// The request is its head alone.
    pub(super) bodiless: bool,
    /// Endpoints that had the call and gave it back.
    pub(super) left: Vec<SocketAddr>,
    /// The payload that was sent.
    sent: Vec<u8>,
}

/// Why a call is to be placed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Its stream was reset by REFUSED_STREAM: not processed (RFC 9113, 8.7).
    Refused,
    /// Its stream is above the last one of a GOAWAY: not processed.
    GoAway,
    /// So it is, and the GOAWAY was said of an error, which the call may have been the cause of.
    Erred,
    /// The connection ended before the socket had taken the whole head: not processed.
    Unsent,
    /// The endpoint said GOAWAY, and then that the call is cancelled, which nobody asked for.
    TurnedAway,
    /// The endpoint answered with a status that its route lets be tried again.
    Status,
    /// The connection ended, and who knows how far the endpoint came.
    Lost,
    /// So did its stream, by a reset.
    Reset,
    /// No response came in time.
    Timeout,
}

impl Again {
    /// As a metric has it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::GoAway => "goaway",
            Self::Erred => "goaway_error",
            Self::Unsent => "unsent",
            Self::TurnedAway => "turned_away",
            Self::Status => "status",
            Self::Lost => "lost",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
        }
    }

    /// How often such a call is placed in all, where `retry` is what its route says.
    pub(super) fn attempts(self, retry: Option<&Retry>) -> usize {
        match self {
            Self::Refused | Self::GoAway | Self::Unsent | Self::TurnedAway => PLACEMENTS,
            Self::Erred => 2,
            Self::Status => retry.map_or(0, |retry| retry.attempts as usize),
            Self::Lost | Self::Reset | Self::Timeout => {
                retry.filter(|retry| retry.idempotent).map_or(0, |retry| retry.attempts as usize)
            }
        }
    }

    /// Whether it counts against the budget: where the backend may have worked for it.
    pub(super) fn costs(self) -> bool {
        !matches!(
            self,
            Self::Refused | Self::GoAway | Self::Erred | Self::Unsent | Self::TurnedAway
        )
    }
}

/// What a worker keeps of its calls, which is bounded.
#[derive(Debug)]
pub(super) struct Replays {
    /// Payload of one call, in bytes.
    most: usize,
    /// Heads of all, and the room that their payload has, in bytes.
    kept: usize,
    /// A new one for each call costs a third of a call at 16 KiB.
    spares: Buffers,
}

impl Replays {
    /// Keeping at most so much payload of each call, in bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { most, kept: 0, spares: Buffers::new(ROOM) }
    }

    /// Drops the room that no call needs any more.
    pub(super) fn trim(&mut self) {
        self.spares.trim();
    }

    /// Keeping at most so much of those that are sent from now on.
    pub(super) fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.kept == 0
    }

    /// Keeps a head that is sent now.
    pub(super) fn begin(
        &mut self,
        head: Block,
        bodiless: bool,
        left: Vec<SocketAddr>,
        context: &mut Context,
    ) -> Option<Replay> {
        if self.kept + head.size() > MOST {
            context.recycle(head);
            return None;
        }
        let sent = match bodiless {
            true => Vec::new(),
            false => self.spares.take(),
        };
        self.kept += head.size() + sent.capacity();
        Some(Replay { head, bodiless, left, sent })
    }

    /// Keeps payload that is sent now and `more` that is known to follow, or gives the call up
    /// where that is too much: a large message is not copied up to the bound first.
    pub(super) fn keep(
        &mut self,
        place: &mut Option<Replay>,
        bytes: &[u8],
        more: usize,
        context: &mut Context,
    ) {
        let Some(replay) = place else { return };
        let whole = replay.sent.len().saturating_add(bytes.len()).saturating_add(more);
        let room = replay.sent.capacity();
        if whole <= self.most && self.kept + whole.saturating_sub(room) <= MOST {
            if room < whole {
                // At once for the whole message, as most requests are one.
                replay.sent.reserve(whole - replay.sent.len());
                self.kept += replay.sent.capacity() - room;
            }
            replay.sent.extend_from_slice(bytes);
        } else if let Some(replay) = place.take() {
            self.end(replay, context);
        }
    }

    /// Gives back what was kept of a call.
    pub(super) fn end(&mut self, replay: Replay, context: &mut Context) {
        let Replay { head, sent, .. } = replay;
        self.kept -= head.size() + sent.capacity();
        context.recycle(head);
        self.spares.give(sent);
    }

    /// Puts what was sent back to what is to be sent; the head and the endpoints that had it.
    pub(super) fn restore(
        &mut self,
        replay: Replay,
        request: &mut Flow,
        now: u64,
    ) -> (Block, Vec<SocketAddr>) {
        let Replay { head, sent, left, .. } = replay;
        self.kept -= head.size() + sent.capacity();
        request.restore(sent, now);
        (head, left)
    }
}

/// How often a call that was not processed is placed at most: what several endpoints refuse, the
/// next one will as well.
const PLACEMENTS: usize = 3;
/// What a worker keeps of all its calls, in bytes.
const MOST: usize = 16 << 20;
/// Room that waits to be used again, in bytes.
const ROOM: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_a_calls_bound_is_given_up_at_once() {
        let (mut replays, mut context) = (Replays::new(10), Context::default());
        let mut replay = replays.begin(Block::new(), false, Vec::new(), &mut context);
        replays.keep(&mut replay, &[7; 6], 4, &mut context);
        replays.keep(&mut replay, &[7; 4], 0, &mut context);
        assert_eq!((replay.is_some(), replays.kept), (true, 10));
        replays.keep(&mut replay, &[7], 0, &mut context);
        assert!(replay.is_none() && replays.is_empty());

        let mut announced = replays.begin(Block::new(), false, Vec::new(), &mut context);
        replays.keep(&mut announced, &[7; 5], 6, &mut context);
        assert!(announced.is_none() && replays.is_empty());
    }

    #[test]
    fn what_is_beyond_the_workers_bound_is_given_up_alone() {
        let (mut replays, mut context) = (Replays::new(MOST), Context::default());
        let mut first = replays.begin(Block::new(), false, Vec::new(), &mut context);
        let mut second = replays.begin(Block::new(), false, Vec::new(), &mut context);
        replays.keep(&mut first, &vec![7; MOST - 1], 0, &mut context);
        replays.keep(&mut second, &[7; 2], 0, &mut context);
        assert!(first.is_some() && second.is_none());
        replays.end(first.unwrap(), &mut context);
        assert!(replays.is_empty());
    }
}
