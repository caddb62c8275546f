//! One direction of a call: what its receiver did not take yet, what was credited of it, and since
//! when either side owes progress.

use crate::{
    grpc::{MessageSizes, TooLarge},
    http2::{block::Block, frame::Reason},
};

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
    /// The payload is made of gRPC's messages.
    framed: bool,
    pub(super) trailers: Option<Block>,
    /// The reset that ends the stream in place of trailers, since a message was cut.
    pub(super) reset: Option<Reason>,
    /// Messages up to the end of what came, up to what came last, and up to the queue.
    came: MessageSizes,
    before: MessageSizes,
    taken: MessageSizes,
    receiver: Progress,
    sender: Progress,
    pub(super) bytes: u64,
    /// How many small frames were sent on without an answer, and until when they count, in
    /// milliseconds.
    small: u8,
    small_until: u64,
}

/// How many bytes passed since a time, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    since: u64,
    bytes: usize,
}

impl Progress {
    fn begin(now: u64) -> Self {
        Self { since: now, bytes: 0 }
    }

    /// Counts bytes; with each `least` of them the time begins anew.
    fn add(&mut self, bytes: usize, least: usize, now: u64) {
        self.bytes += bytes;
        if self.bytes >= least {
            *self = Self::begin(now);
        }
    }
}

impl Flow {
    pub(super) fn new(max_message_size: u64) -> Self {
        let sizes = MessageSizes::new(max_message_size);
        Self {
            queue: Vec::new(),
            start: 0,
            credited: 0,
            ended: false,
            done: false,
            waits: false,
            framed: true,
            trailers: None,
            reset: None,
            came: sizes,
            before: sizes,
            taken: sizes,
            receiver: Progress::default(),
            sender: Progress::default(),
            bytes: 0,
            small: 0,
            small_until: 0,
        }
    }

    /// Reads no messages: the payload is no gRPC.
    pub(super) fn set_unframed(&mut self) {
        self.framed = false;
    }

    /// Reads the lengths of messages in payload that came.
    ///
    /// # Errors
    /// A message is larger than allowed.
    pub(super) fn receive(&mut self, bytes: &[u8], now: u64) -> Result<(), TooLarge> {
        if !self.framed {
            return Ok(());
        }
        self.before = self.came;
        self.came.scan(bytes)?;
        if self.came.unfinished() > 0 {
            if self.before.unfinished() == 0 {
                self.sender = Progress::begin(now);
            }
            self.sender.add(bytes.len(), LEAST_BROUGHT, now);
        }
        Ok(())
    }

    pub(super) fn queued(&self) -> &[u8] {
        &self.queue[self.start..]
    }

    /// Queues what came last, without the first `taken` bytes, which the receiver took.
    pub(super) fn push(&mut self, bytes: &[u8], taken: usize, now: u64) {
        if self.queued().is_empty() {
            self.queue.clear();
            self.start = 0;
            self.taken = self.before;
            pass(&mut self.taken, &bytes[..taken]);
            self.receiver = Progress::begin(now);
        }
        self.queue.extend_from_slice(&bytes[taken..]);
    }

    /// Leaves out what was taken; how much of that is to be credited.
    pub(super) fn pop(&mut self, bytes: usize, now: u64) -> usize {
        pass(&mut self.taken, &self.queue[self.start..self.start + bytes]);
        self.receiver.add(bytes, LEAST_TAKEN, now);
        let before = self.queued().len();
        self.start += bytes;
        if self.start == self.queue.len() {
            self.queue = Vec::new();
            self.start = 0;
        }
        if before >= LEAST_BROUGHT && before - bytes < LEAST_BROUGHT {
            // Up to now its sender may have had no room.
            self.sender = Progress::begin(now);
        }
        let known = bytes.min(self.credited);
        self.credited -= known;
        bytes - known
    }

    /// Puts what was sent back before what is queued, to be sent on another stream.
    pub(super) fn restore(&mut self, mut sent: Vec<u8>, now: u64) {
        self.credited += sent.len();
        sent.extend_from_slice(self.queued());
        (self.queue, self.start) = (sent, 0);
        (self.done, self.waits) = (false, false);
        self.taken = self.came.fresh();
        self.receiver = Progress::begin(now);
    }

    /// Leaves out the beginning of a message that will never be whole. False where a part of it was
    /// sent on already.
    pub(super) fn trim(&mut self) -> bool {
        let unfinished = self.came.unfinished();
        if !self.framed || unfinished > self.queued().len() {
            return false;
        }
        self.queue.truncate(self.queue.len() - unfinished);
        self.came = self.came.fresh();
        true
    }

    /// Whether what the receiver took ends with a whole message.
    pub(super) fn is_between_messages(&self) -> bool {
        let last = if self.queued().is_empty() { &self.came } else { &self.taken };
        self.framed && last.unfinished() == 0
    }

    /// Whether what waits and `more` that came are to be sent with what follows: a small part of a
    /// message, or small messages one after the other to which nobody says anything. A client that
    /// sends by the byte would have an endpoint get as many frames, at which that may end the
    /// connection with everybody's calls.
    pub(super) fn is_crumbs(&self, more: usize, now: u64) -> bool {
        let many = || self.small >= MOST_SMALL && now < self.small_until;
        self.framed
            && !self.ended
            && self.queued().len() + more < LEAST_BROUGHT
            && (self.came.unfinished() > 0 || many())
    }

    /// Notes a frame that was sent on.
    pub(super) fn sent(&mut self, bytes: usize, now: u64) {
        if bytes < SMALL {
            if now >= self.small_until {
                (self.small, self.small_until) = (0, now + SMALL_TIME);
            }
            self.small = self.small.saturating_add(1);
        }
    }

    /// Notes that something came back: whoever talks waits for nothing here.
    pub(super) fn answered(&mut self) {
        self.small = 0;
    }

    /// Since when its receiver has taken less than it should.
    pub(super) fn receiver_owes_since(&self) -> Option<u64> {
        (self.waits && !self.queued().is_empty()).then_some(self.receiver.since)
    }

    /// Since when its sender has brought less than it should of the message that it began.
    pub(super) fn sender_owes_since(&self) -> Option<u64> {
        let has_room = self.queued().len() < LEAST_BROUGHT;
        let owes = !self.ended && self.came.unfinished() > 0 && has_room;
        owes.then_some(self.sender.since)
    }

    /// How much is known to come before the message that has begun is whole.
    pub(super) fn to_come(&self) -> usize {
        if self.framed { self.came.remaining() } else { 0 }
    }
}

/// Reads on. Messages that are too large were refused when they came.
fn pass(sizes: &mut MessageSizes, bytes: &[u8]) {
    _ = sizes.scan(bytes);
}

/// Bytes, or the rest, that a receiver must take within `send_timeout`.
const LEAST_TAKEN: usize = 16 << 10;
/// Bytes, or the rest, that a sender must bring of a message within `message_timeout`.
const LEAST_BROUGHT: usize = 1 << 10;
/// Smaller frames are counted, in bytes, and so many of them may be sent in so many milliseconds.
const SMALL: usize = 256;
const MOST_SMALL: u8 = 4;
const SMALL_TIME: u64 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    fn came(flow: &mut Flow, bytes: &[u8], taken: usize, now: u64) {
        flow.receive(bytes, now).unwrap();
        if taken < bytes.len() {
            flow.push(bytes, taken, now);
        }
    }

    /// A message with this much payload.
    fn message(length: u8) -> Vec<u8> {
        [&[0, 0, 0, 0, length], &vec![7; length.into()][..]].concat()
    }

    #[test]
    fn what_was_credited_is_not_credited_again() {
        let mut flow = Flow::new(100);
        came(&mut flow, &message(1), 0, 0);
        assert_eq!(flow.pop(4, 0), 4);
        flow.restore(message(1)[..4].to_vec(), 0);
        assert_eq!(flow.queued(), message(1));
        assert_eq!(flow.pop(3, 0), 0);
        flow.restore(message(1)[..3].to_vec(), 0);
        assert_eq!(flow.queued(), message(1));
        assert_eq!((flow.pop(5, 0), flow.pop(1, 0)), (1, 1));
    }

    #[test]
    fn whole_messages_are_kept_and_the_beginning_of_another_is_not() {
        let mut flow = Flow::new(100);
        let all = [message(3), message(4), message(5)[..7].to_vec()].concat();
        came(&mut flow, &all, 2, 0);
        assert!(!flow.is_between_messages(), "two bytes of the first were taken");
        assert!(flow.trim());
        assert_eq!(flow.queued(), &all[2..17]);
        flow.pop(6, 0);
        assert!(flow.is_between_messages());
        flow.pop(9, 0);
        assert!(flow.is_between_messages());
    }

    #[test]
    fn a_message_of_which_a_part_was_sent_is_cut() {
        let mut flow = Flow::new(100);
        came(&mut flow, &[message(3), message(9)].concat()[..15], 10, 0);
        assert!(!flow.is_between_messages() && !flow.trim());
        flow.pop(5, 0);
        assert!(!flow.is_between_messages());
    }

    #[test]
    fn crumbs_are_small_parts_of_a_message_that_is_not_whole() {
        let mut flow = Flow::new(1 << 20);
        came(&mut flow, &[0, 0, 0, 8, 0], 0, 0);
        assert!(flow.is_crumbs(0, 0) && !flow.is_crumbs(1019, 0));
        came(&mut flow, &[7; 2048], 2048, 0);
        assert!(!flow.is_crumbs(0, 0), "it is whole");
        came(&mut flow, &[0; 4], 0, 0);
        assert!(flow.is_crumbs(0, 0));
        flow.ended = true;
        assert!(!flow.is_crumbs(0, 0), "no more will come");
    }

    #[test]
    fn small_messages_that_nobody_answers_are_sent_together() {
        let mut flow = Flow::new(100);
        for _ in 0..4 {
            assert!(!flow.is_crumbs(6, 10));
            flow.sent(6, 10);
        }
        assert!(flow.is_crumbs(6, 59) && !flow.is_crumbs(1024, 59));
        assert!(!flow.is_crumbs(6, 60), "its time is over");
        flow.answered();
        assert!(!flow.is_crumbs(6, 11));
        for _ in 0..9 {
            flow.sent(256, 11);
        }
        assert!(!flow.is_crumbs(6, 11), "they are not small");
    }

    #[test]
    fn a_receiver_owes_16_kib_or_the_rest() {
        let mut flow = Flow::new(1 << 20);
        let large = [&[0, 0, 1, 0, 0][..], &[7; 1 << 16]].concat();
        came(&mut flow, &large, 0, 10);
        flow.waits = true;
        assert_eq!(flow.receiver_owes_since(), Some(10));
        flow.pop(16 << 10, 20);
        assert_eq!(flow.receiver_owes_since(), Some(20));
        flow.pop((16 << 10) - 1, 30);
        assert_eq!(flow.receiver_owes_since(), Some(20));
        flow.pop(flow.queued().len(), 40);
        assert_eq!(flow.receiver_owes_since(), None);
    }

    #[test]
    fn a_sender_owes_a_part_of_the_message_it_began_while_it_has_room() {
        let mut flow = Flow::new(1 << 20);
        assert_eq!(flow.sender_owes_since(), None);
        came(&mut flow, &[0, 0, 1, 0, 0, 1], 6, 10);
        assert_eq!(flow.sender_owes_since(), Some(10));
        came(&mut flow, &[7; 1000], 1000, 20);
        assert_eq!(flow.sender_owes_since(), Some(10));
        came(&mut flow, &[7; 100], 100, 30);
        assert_eq!(flow.sender_owes_since(), Some(30));
        came(&mut flow, &[7; 900], 0, 40);
        flow.pop(900, 50);
        assert_eq!(flow.sender_owes_since(), Some(30), "it had room for more");
        came(&mut flow, &[7; 2000], 0, 60);
        assert_eq!(flow.sender_owes_since(), None, "its receiver owes first");
        flow.pop(2000, 70);
        assert_eq!(flow.sender_owes_since(), Some(70));
        flow.ended = true;
        assert_eq!(flow.sender_owes_since(), None);
    }
}
