//! Signs of life that are asked for, and the one place that says when a connection is dead.

use super::{
    call::Peer,
    cause::Cause,
    engine::Engine,
    link::{Kind, Link},
    millis,
};
use crate::{config::Limits, upstream::Endpoint};

/// When peers that are silent are asked for a sign of life, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pings {
    interval: u64,
    timeout: u64,
    /// For one that looks dead.
    suspect_timeout: u64,
}

impl Pings {
    /// For endpoints.
    pub(super) fn of_endpoints(limits: &Limits) -> Self {
        Self {
            interval: millis(limits.upstream_ping_interval),
            timeout: millis(limits.upstream_ping_timeout),
            suspect_timeout: millis(limits.upstream_suspect_timeout),
        }
    }

    /// For clients.
    pub(super) fn of_clients(limits: &Limits) -> Self {
        Self {
            interval: millis(limits.client_ping_interval),
            timeout: millis(limits.client_ping_timeout),
            suspect_timeout: u64::MAX,
        }
    }

    /// Asks a link with open streams for a sign of life, or gives it up. An endpoint that found
    /// this too often, `calm` times, is asked as often only as it may bear.
    pub(super) fn check(self, link: &mut Link, calm: u32, now: u64) {
        let interval = self.interval.saturating_mul(1 << calm);
        match link.pinged_at.filter(|pinged| link.heard_at < *pinged) {
            Some(pinged) if now - pinged >= self.timeout => link.abandon(Cause::Silent),
            Some(_) => {}
            None if now.saturating_sub(link.heard_at) >= interval => {
                link.pinged_at = Some(now);
                link.connection.ask(&mut link.out);
            }
            None => {}
        }
    }

    /// Gives up an endpoint's link that looked dead and did not answer. True where it looks dead only
    /// now: the endpoint is not healthy and the link silent, or a probe found the endpoint alive on
    /// another connection after this one's last sign of life.
    pub(super) fn judge(self, link: &mut Link, endpoint: &Endpoint, now: u64) -> bool {
        if let Some(since) = link.suspected_at {
            if now.saturating_sub(since) >= self.suspect_timeout {
                link.abandon(Cause::Silent);
            }
            return false;
        }
        let doubts = endpoint.doubts();
        let doubted = std::mem::replace(&mut link.doubts, doubts) != doubts;
        let silent = now.saturating_sub(link.heard_at) >= SILENT && link.connection.streams() > 0;
        doubted || silent && !endpoint.is_healthy()
    }
}

impl Engine {
    /// Asks an endpoint's link that looks dead for a sign of life at once. Until that comes it takes
    /// no calls.
    pub(super) fn suspect(&mut self, id: usize) {
        let now = self.context.now;
        if let Some(link) = self.links.get_mut(id)
            && !link.closing
            && link.suspected_at.is_none()
            && link.suspicions < SUSPICIONS
        {
            link.suspicions += 1;
            (link.suspected_at, link.pinged_at) = (Some(now), Some(now));
            link.connection.ask(&mut link.out);
            self.touch(id);
        }
    }

    /// A link that looked dead has given a sign of life: it takes calls again.
    pub(super) fn trust(&mut self, id: usize) {
        if let Kind::Endpoint(at) = self.links[id].kind {
            self.place_waiting(at);
        }
    }

    /// Suspects the link of a call that ends without an answer, where nothing came on it since the
    /// endpoint has the whole request.
    pub(super) fn doubt_silence(&mut self, index: u32) {
        let call = &self.calls[index as usize];
        let waited = self.context.now.saturating_sub(call.moved_at);
        if let Peer::Endpoint(peer) = &call.peer
            && call.request.done
            && waited >= SUSPICIOUS
            && self.links.get(peer.at.link).is_some_and(|link| link.heard_at < call.moved_at)
        {
            self.suspect(peer.at.link);
        }
    }
}

/// How long a link of an endpoint that is not healthy may be silent, in milliseconds.
const SILENT: u64 = 1000;
/// How long a call must have waited for its end to say something of its connection, in milliseconds.
const SUSPICIOUS: u64 = 500;
/// PINGs of this kind between two responses: grpc-go takes two early ones (keepalive enforcement).
const SUSPICIONS: u8 = 2;
