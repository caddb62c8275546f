//! What links' sockets read, taken through their end of the protocol, so much in a turn.

use tracing::debug;

use super::{cause::Cause, engine::Engine};
use crate::http2::connection::{Event, Fatal};

/// What was read of a link and not taken in its turn.
#[derive(Debug, Default)]
pub(super) struct Unread {
    bytes: Vec<u8>,
    /// How much of it was taken since.
    taken: usize,
}

impl Engine {
    /// Takes what a link's socket read. False when the link is over.
    pub(super) fn take(&mut self, id: usize, input: &[u8]) -> bool {
        let link = &mut self.links[id];
        let Some(session) = &mut link.session else { return self.feed(id, input) };
        let mut plain = std::mem::take(&mut self.opened);
        let outcome = session.open(input, &mut plain, &link.socket);
        // A record that is not whole is a sign of life too.
        link.heard_at = self.context.now;
        let going_on = plain.is_empty() || self.feed(id, &plain);
        plain.clear();
        self.opened = plain;
        let cause = match outcome {
            Ok(true) => return going_on,
            Ok(false) => Cause::Closed,
            Err(error) => {
                debug!(%error, "a peer broke TLS");
                Cause::Failed(error.kind())
            }
        };
        // Its last words count, however many they are.
        while self.links[id].unread.is_some() && self.feed_on(id) {}
        let link = &mut self.links[id];
        link.cause.get_or_insert(cause);
        link.closing = true;
        self.touch(id);
        false
    }

    /// Takes what came on a link, or as much of it as one turn may take. False when the link is
    /// over.
    pub(super) fn feed(&mut self, id: usize, input: &[u8]) -> bool {
        let taken = self.feed_some(id, input);
        let link = &mut self.links[id];
        link.busy = taken < input.len();
        if link.busy && !link.closing {
            link.unread = Some(Box::new(Unread { bytes: input[taken..].to_vec(), taken: 0 }));
        }
        !link.closing
    }

    /// Takes more of what was read before. False when the link is over.
    pub(super) fn feed_on(&mut self, id: usize) -> bool {
        let Some(mut unread) = self.links[id].unread.take() else { return true };
        unread.taken += self.feed_some(id, &unread.bytes[unread.taken..]);
        let link = &mut self.links[id];
        if unread.taken < unread.bytes.len() && !link.closing {
            link.unread = Some(unread);
        }
        !link.closing
    }

    /// Takes so many frames and heads as one turn may have; how many bytes these were.
    fn feed_some(&mut self, id: usize, input: &[u8]) -> usize {
        let mut at = 0;
        let link = &mut self.links[id];
        link.heard_at = self.context.now;
        self.buffers.supply(&mut link.out);
        if link.suspected_at.take().is_some() {
            self.trust(id);
        }
        self.context.frames = FRAMES;
        let mut heads = HEADS.saturating_sub(self.heads).max(FEW_HEADS);
        loop {
            let link = &mut self.links[id];
            if link.closing || heads == 0 {
                break;
            }
            match link.connection.next(input, &mut at, &mut self.context, &mut link.out) {
                Ok(Some(event)) => {
                    if matches!(event, Event::Head { .. } | Event::TooLarge { .. }) {
                        heads -= 1;
                        self.heads += 1;
                    }
                    self.event(id, event, input);
                }
                Ok(None) => break,
                Err(Fatal(reason)) => {
                    debug!(?reason, "a peer broke the protocol");
                    let link = &mut self.links[id];
                    let key = link.connection.exceeded();
                    link.cause.get_or_insert(Cause::Broken(reason, key));
                    link.closing = true;
                    break;
                }
            }
        }
        self.open_heads(input);
        for id in self.sending.drain(..) {
            if let Some(link) = self.links.get_mut(id) {
                link.send_parts(input, self.context.now);
            }
        }
        self.relieve();
        self.touch(id);
        at
    }
}

/// Frames of one connection that are taken in a row: then it is others' turn.
const FRAMES: usize = 256;
/// Heads of requests and responses that are taken of all connections between two flushes. Whoever
/// comes after these has [`FEW_HEADS`], so that a worker is through with all that are ready in a
/// moment, however many calls each of them begins.
const HEADS: usize = 128;
/// Heads that are taken of one connection in a row in any case.
const FEW_HEADS: usize = 4;
