//! Streams of endpoints whose calls are over for their clients.
//!
//! Each is reset, but not all at once: a client that closes with a hundred calls would have a volley
//! of RST_STREAM come out, at which an endpoint may end the connection with everybody's calls (the
//! defence against Rapid Reset, CVE-2023-44487). Where the endpoint has the whole request it has a
//! moment to answer, which spares the reset. An address whose clients give up many requests before
//! these are whole has its further ones kept here until they are.

use std::net::IpAddr;

use super::{
    call::{CallKey, Peer, StreamKey},
    engine::Engine,
    link::{Direction, Link},
    payload::Payload,
};
use crate::{
    config::{Limits, Rate},
    http2::{connection::NONE, frame::Reason},
    upstream::InFlight,
};

/// A stream that is to be reset, unless it ends before.
#[derive(Debug)]
pub(super) struct Cancelled {
    at: StreamKey,
    reason: Reason,
    due: u64,
    in_flight: InFlight,
}

/// What is earned with time, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Allowance {
    used: u64,
    since: u64,
}

impl Allowance {
    /// Takes one. False where that is too much.
    pub(super) fn take(&mut self, rate: Rate, now: u64) -> bool {
        let earned = now.saturating_sub(self.since).saturating_mul(rate.rate.into());
        (self.used, self.since) = (self.used.saturating_sub(earned), now);
        let free = self.used + ONE <= u64::from(rate.burst) * ONE;
        if free {
            self.used += ONE;
        }
        free
    }

    /// Whether there is one to take.
    fn has_some(mut self, rate: Rate, now: u64) -> bool {
        self.take(rate, now)
    }

    /// Whether all of it is earned again.
    fn is_whole(self, rate: Rate, now: u64) -> bool {
        now.saturating_sub(self.since).saturating_mul(rate.rate.into()) >= self.used
    }
}

impl Link {
    /// Resets a stream where another reset may be sent now.
    fn cancel(&mut self, stream: u32, reason: Reason, rate: Rate, now: u64) -> bool {
        let may = self.resets.take(rate, now);
        if may {
            self.connection.reset(stream, reason, &mut self.out);
        }
        may
    }
}

impl Engine {
    /// Leaves a stream of an endpoint, which is reset if it is open still; `whole` where the endpoint
    /// has all of the request and may answer. Its room is free before anything that waits for it is
    /// told.
    pub(super) fn leave_stream(
        &mut self,
        at: StreamKey,
        reason: Reason,
        whole: bool,
        in_flight: InFlight,
    ) {
        let (now, rate) = (self.context.now, self.resets);
        let link = self.links.get_mut(at.link);
        let Some(link) = link.filter(|link| link.connection.has_stream(at.stream)) else {
            drop(in_flight);
            return self.freed(at.link);
        };
        let due = if whole { now + MOMENT } else { now };
        if due <= now && link.cancel(at.stream, reason, rate, now) {
            self.touch(at.link);
            drop(in_flight);
            return self.freed(at.link);
        }
        link.connection.mark(at.stream, NONE);
        self.cancelled.push(Cancelled { at, reason, due, in_flight });
    }

    /// Resets what is due, as far as it may.
    pub(super) fn end_cancelled(&mut self) {
        let (now, rate) = (self.context.now, self.resets);
        let links = &mut self.links;
        let over = self.cancelled.extract_if(.., |it| {
            let Some(link) = links.get_mut(it.at.link) else { return true };
            !link.connection.has_stream(it.at.stream)
                || it.due <= now && link.cancel(it.at.stream, it.reason, rate, now)
        });
        for Cancelled { at, in_flight, .. } in over.collect::<Vec<_>>() {
            drop(in_flight);
            self.touch(at.link);
            self.freed(at.link);
        }
    }

    /// Takes down that a client gave up a request that was not whole.
    pub(super) fn gave_up(&mut self, address: IpAddr) {
        let (now, rate) = (self.context.now, self.address_resets);
        if self.impatient.len() >= ADDRESSES {
            self.impatient.retain(|_, allowance| !allowance.is_whole(rate, now));
        }
        if self.impatient.len() < ADDRESSES || self.impatient.contains_key(&address) {
            _ = self.impatient.entry(address).or_default().take(rate, now);
        }
    }

    /// Keeps a call here until its request is whole, or for a while, where its address gave up many
    /// before. True where it does.
    pub(super) fn keeps_unfinished(&mut self, key: CallKey, payload: Payload<'_>) -> bool {
        if self.impatient.is_empty() {
            return false;
        }
        let (now, rate) = (self.context.now, self.address_resets);
        let Some(call) = self.calls.get(key.index as usize) else { return false };
        let address = self.client(call.client.link).address;
        let impatient = self.impatient.get(&address);
        if call.request.ended || impatient.is_none_or(|it| it.has_some(rate, now)) {
            return false;
        }
        let call = &mut self.calls[key.index as usize];
        let Peer::Opening(opening) = &mut call.peer else { return false };
        opening.delayed = true;
        call.listener.held_back("address_resets");
        self.delayed.push((key, now + PATIENCE));
        self.push(key.index, Direction::Request, payload);
        true
    }

    /// Takes other limits over.
    pub(super) fn set_resets(&mut self, limits: &Limits) {
        (self.resets, self.address_resets) = (limits.upstream_resets, limits.address_resets);
    }
}

/// How long an endpoint that has the whole request may take to answer before its stream is reset, in
/// milliseconds.
const MOMENT: u64 = 100;
/// How long a request that is not whole is kept at most, in milliseconds: some never end, and want an
/// answer.
const PATIENCE: u64 = 1000;
/// Client addresses of which it is known how often they gave up.
const ADDRESSES: usize = 1024;
const ONE: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_come_in_a_burst_and_then_at_their_rate() {
        let (rate, mut allowance) = (Rate { burst: 3, rate: 10 }, Allowance::default());
        let taken = [0, 0, 0, 0, 99, 100, 101, 300].map(|now| allowance.take(rate, now));
        assert_eq!(taken, [true, true, true, false, false, true, false, true]);
        assert!(!allowance.is_whole(rate, 400) && allowance.is_whole(rate, 600));
        assert_eq!((0..9).filter(|_| allowance.take(rate, 100_000)).count(), 3);
    }
}
