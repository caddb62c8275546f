//! One direction of a call: what its receiver did not take yet, and what was credited of it.

use crate::{grpc::MessageSizes, http2::block::Block};

/// One direction's payload.
#[derive(Debug)]
pub(super) struct Flow {
    /// What the receiver did not take yet, from `start` on.
    queue: Vec<u8>,
    start: usize,
    /// How much of that was credited to its sender already: what is to be sent once more.
    credited: usize,
    /// The sender has ended its half.
    pub(super) ended: bool,
    /// The end was sent on.
    pub(super) done: bool,
    /// It stands on the receiver's list of those that wait.
    pub(super) waits: bool,
    pub(super) trailers: Option<Block>,
    /// Reads the lengths of messages; none where the payload is no gRPC.
    pub(super) sizes: Option<MessageSizes>,
    pub(super) bytes: u64,
}

impl Flow {
    pub(super) fn new(max_message_size: Option<u64>) -> Self {
        Self {
            queue: Vec::new(),
            start: 0,
            credited: 0,
            ended: false,
            done: false,
            waits: false,
            trailers: None,
            sizes: max_message_size.map(MessageSizes::new),
            bytes: 0,
        }
    }

    pub(super) fn queued(&self) -> &[u8] {
        &self.queue[self.start..]
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start == self.queue.len() {
            self.queue.clear();
            self.start = 0;
        }
        self.queue.extend_from_slice(bytes);
    }

    /// How much of what is queued is still to be credited.
    pub(super) fn uncredited(&self) -> usize {
        self.queued().len() - self.credited
    }

    /// Leaves out what was taken; how much of that is to be credited.
    pub(super) fn pop(&mut self, bytes: usize) -> usize {
        self.start += bytes;
        if self.start == self.queue.len() {
            self.queue = Vec::new();
            self.start = 0;
        }
        let known = bytes.min(self.credited);
        self.credited -= known;
        bytes - known
    }

    /// Puts what was sent back before what is queued, to be sent on another stream.
    pub(super) fn restore(&mut self, mut sent: Vec<u8>) {
        self.credited += sent.len();
        sent.extend_from_slice(self.queued());
        (self.queue, self.start) = (sent, 0);
        (self.done, self.waits) = (false, false);
    }

    /// How much is known to come before the message that has begun is whole.
    pub(super) fn to_come(&self) -> usize {
        self.sizes.as_ref().map_or(0, MessageSizes::remaining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_credited_is_not_credited_again() {
        let mut flow = Flow::new(None);
        flow.push(b"abcdef");
        assert_eq!(flow.pop(4), 4);
        flow.restore(b"abcd".to_vec());
        assert_eq!((flow.queued(), flow.uncredited()), (&b"abcdef"[..], 2));
        assert_eq!(flow.pop(3), 0);
        flow.restore(b"abc".to_vec());
        assert_eq!((flow.queued(), flow.uncredited()), (&b"abcdef"[..], 2));
        assert_eq!((flow.pop(5), flow.pop(1)), (1, 1));
    }
}
