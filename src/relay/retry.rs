//! Calls that are placed again.

use super::{
    call::{CallKey, Opening, Peer},
    engine::Engine,
    millis,
    payload::Payload,
    replay::Again,
    upstream::code,
};
use crate::{
    grpc::{Code, retry_delay},
    http2::{block::Block, frame::Reason},
};

impl Engine {
    /// Places a call again after `delay` milliseconds, with what was sent of it. False where it
    /// must end: what it needs is not kept, it was answered, or it was placed enough.
    pub(super) fn place_again(&mut self, index: u32, how: Again, why: &str, delay: u64) -> bool {
        let Some(call) = self.calls.get_mut(index as usize) else { return false };
        let retry = call.listener.ways[usize::from(call.way)].policy.retry.as_ref();
        let Peer::Endpoint(peer) = &mut call.peer else { return false };
        let most = how.attempts(retry);
        if peer.replay.as_ref().is_none_or(|replay| replay.left.len() + 1 >= most) {
            return false;
        }
        if let Some(retry) = retry.filter(|_| how.costs() && call.retrying.is_none()) {
            let upstream = &call.listener.targets[usize::from(call.target)].upstream;
            call.retrying = upstream.retry(retry.budget);
            if call.retrying.is_none() {
                return false;
            }
        }
        let Some(replay) = peer.replay.take() else { return false };
        let bodiless = replay.bodiless;
        let address = peer.in_flight.endpoint().address();
        let (head, mut left) = self.replays.restore(replay, &mut call.request, self.context.now);
        left.push(address);
        let why = Some(why.to_owned());
        let opening = Opening { left, why, ..Opening::new(head, bodiless) };
        let before = std::mem::replace(&mut call.peer, Peer::Opening(opening));
        call.listener.retried(call.target, how.label());
        if let Peer::Endpoint(before) = before {
            self.leave_stream(before.at, Reason::CANCEL, false, before.in_flight);
        }
        self.account(index);
        self.renew(index);
        let key = self.key(index);
        match delay {
            0 => self.place(key, Payload::NONE),
            _ => self.delay(key, delay),
        }
        true
    }

    /// Places a call again whose endpoint answered with nothing but a status, where its route says
    /// so of this one.
    pub(super) fn place_after_status(&mut self, index: u32, block: &Block) -> bool {
        let Some(call) = self.calls.get(index as usize) else { return false };
        let Peer::Endpoint(peer) = &call.peer else { return false };
        let Some(retry) = &call.policy().retry else { return false };
        let Some(replay) = &peer.replay else { return false };
        let Some(code) = code(block) else { return false };
        if !retry.statuses.iter().any(|status| *status as u8 == code as u8) {
            return false;
        }
        let told = block.first_of(DETAILS).and_then(|details| retry_delay(&details));
        if code == Code::ResourceExhausted && told.is_none() {
            // Without one it will not get better (OTLP specification, Throttling).
            return false;
        }
        let delay = told.map_or_else(|| pause(replay.left.len()), millis);
        if delay > millis(retry.max_delay) || self.context.now + delay >= call.ends_at() {
            return false;
        }
        let why = format!("{} answered {code}", peer.in_flight.endpoint().address());
        self.place_again(index, Again::Status, &why, delay)
    }

    /// Has a call placed after so many milliseconds.
    pub(super) fn delay(&mut self, key: CallKey, delay: u64) {
        if let Some(call) = self.call(key)
            && let Peer::Opening(opening) = &mut call.peer
        {
            opening.delayed = true;
            self.delayed.push((key, self.context.now + delay));
        }
    }

    /// Places the calls whose delay is over.
    pub(super) fn place_delayed(&mut self) {
        let now = self.context.now;
        let due: Vec<CallKey> =
            self.delayed.extract_if(.., |(_, at)| *at <= now).map(|(key, _)| key).collect();
        for key in due {
            if let Some(call) = self.call(key)
                && let Peer::Opening(opening) = &mut call.peer
                && std::mem::take(&mut opening.delayed)
            {
                self.place(key, Payload::NONE);
            }
        }
    }
}

/// How long to wait before another retry, in milliseconds: the first goes elsewhere at once.
fn pause(retries: usize) -> u64 {
    match retries {
        0 => 0,
        _ => (FIRST_PAUSE << retries.min(6)) + fastrand::u64(..FIRST_PAUSE),
    }
}

const DETAILS: &[u8] = b"grpc-status-details-bin";
/// In milliseconds.
const FIRST_PAUSE: u64 = 25;
