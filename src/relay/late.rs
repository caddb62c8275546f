//! What ends because a call takes too long: by its client's own word, or by its route's.

use std::time::Duration;

use humantime::format_duration;

use super::{
    call::{Call, Local, Opening, Peer},
    engine::Engine,
    link::Direction,
    millis,
    replay::Again,
};
use crate::{
    grpc::{Code, Status},
    http2::frame::Reason,
    upstream::Fault,
};

/// What a call is late for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// The message of a health check.
    Message,
    /// A question of reflection.
    Question,
    /// The end that its client has set.
    Deadline,
    /// The beginning of its response.
    Response(Duration),
    /// Room on an endpoint.
    Room,
    /// More payload.
    Payload(Duration),
    /// Taking what waits for its client, or for its endpoint.
    Taking(Direction, Duration),
    /// The rest of a message that its client began.
    Rest(Duration),
    /// The end that its route has set.
    End(Duration),
}

impl Late {
    /// As a metric has it.
    fn label(self) -> &'static str {
        match self {
            Self::Message | Self::Question | Self::Room | Self::Deadline => "deadline",
            Self::Response(_) => "response",
            Self::Payload(_) => "idle",
            Self::End(_) => "call",
            Self::Taking(Direction::Response, _) => "send",
            Self::Taking(Direction::Request, _) => "upstream_send",
            Self::Rest(_) => "message",
        }
    }

    /// What the client is told: 4 is for its own deadline alone.
    fn status(self) -> Status {
        let within =
            |what, bound| Status::unavailable(format!("{what} within {}", format_duration(bound)));
        match self {
            Self::Message | Self::Question | Self::Room | Self::Deadline => {
                Status::new(Code::DeadlineExceeded, "deadline exceeded")
            }
            Self::Response(bound) => within("no response", bound),
            Self::Payload(bound) => within("nothing passed", bound),
            Self::End(bound) => within("not over", bound),
            Self::Taking(Direction::Request, bound) => {
                within("endpoint took less than 16 KiB (limits.send_timeout)", bound)
            }
            Self::Taking(Direction::Response, bound) => {
                let within = format_duration(bound);
                let words = format!("took less than 16 KiB within {within} (limits.send_timeout)");
                Status::new(Code::Cancelled, words)
            }
            Self::Rest(bound) => {
                let within = format_duration(bound);
                let words = format!(
                    "less than 1 KiB of the message came within {within} (limits.message_timeout)"
                );
                Status::new(Code::Cancelled, words)
            }
        }
    }
}

impl Engine {
    /// Ends what lingers and what is late, and places what was put off.
    pub(super) fn end_late(&mut self) {
        self.end_lingering();
        self.end_cancelled();
        self.place_delayed();
        self.place_all_queued();
        self.share_streams();
        let now = self.context.now;
        let due = self.looks.iter().enumerate().filter(|(_, at)| **at <= now);
        for index in due.map(|(index, _)| index as u32).collect::<Vec<_>>() {
            // One that ends may take another with it.
            if self.calls.contains(index as usize) {
                self.look_at(index);
            }
        }
    }

    /// Ends a call that is late; else takes down when it may be.
    fn look_at(&mut self, index: u32) {
        let key = self.key(index);
        match self.late(&self.calls[index as usize]) {
            Some(late) => self.end_call(index, late),
            None => {
                if self.calls[index as usize].ends_at() <= self.context.now + AHEAD {
                    // The next call should not come to a dead connection as well.
                    self.doubt_silence(index);
                }
                self.move_on(key);
            }
        }
        if self.call(key).is_some() {
            self.looks[index as usize] = self.next_look(&self.calls[index as usize]);
        }
    }

    /// Has a call looked at no later than at a time.
    pub(super) fn look_by(&mut self, index: u32, at: u64) {
        let look = &mut self.looks[index as usize];
        *look = at.min(*look);
    }

    /// When a call is to be looked at again: when it may be late, and at least once a second, since
    /// what it may be late for changes.
    fn next_look(&self, call: &Call) -> u64 {
        let now = self.context.now;
        let own = match &call.peer {
            Peer::Local(Local { asked, .. }) => asked.as_ref().map(|asked| asked.until),
            Peer::Reflection(stream) => Some(stream.until),
            Peer::Opening(Opening { queued: Some((_, until)), .. }) => Some(*until),
            Peer::Opening(_) | Peer::Endpoint(_) => None,
        };
        let ways = &call.listener.ways;
        let forwarded = matches!(call.peer, Peer::Opening(_) | Peer::Endpoint(_));
        let way = ways.get(usize::from(call.way)).filter(|_| forwarded);
        let soon = now + way.map_or(LOOK, |way| way.look());
        let end = if forwarded { call.ends_at() } else { u64::MAX };
        let end = if end > now + AHEAD { end - AHEAD } else { end };
        own.into_iter().fold(soon.min(end), u64::min).max(now + 1)
    }

    fn end_lingering(&mut self) {
        let now = self.context.now;
        let late = self.lingering.extract_if(.., |(_, until)| *until <= now);
        for (at, _) in late.collect::<Vec<_>>() {
            if let Some(link) = self.links.get_mut(at.link) {
                link.connection.reset(at.stream, Reason::NO_ERROR, &mut link.out);
                self.touch(at.link);
            }
        }
    }

    /// What a call is late for now.
    fn late(&self, call: &Call) -> Option<Late> {
        let now = self.context.now;
        let past = |since: u64, bound: Duration| now.saturating_sub(since) >= millis(bound);
        let limits = &call.listener.limits;
        if call.response.receiver_owes_since().is_some_and(|at| past(at, limits.send_timeout)) {
            return Some(Late::Taking(Direction::Response, limits.send_timeout));
        }
        match &call.peer {
            Peer::Local(Local { asked, .. }) => {
                asked.as_ref().is_some_and(|asked| asked.until <= now).then_some(Late::Message)
            }
            Peer::Reflection(stream) => {
                let link = self.links.get(call.client.link);
                let over = stream.asked && link.is_some_and(|link| link.draining);
                (stream.until <= now || over).then_some(Late::Question)
            }
            _ if call.deadline <= now => Some(Late::Deadline),
            Peer::Opening(Opening { queued: Some((_, until)), .. }) if *until <= now => {
                Some(Late::Room)
            }
            peer => {
                let policy = call.policy();
                let bound =
                    |since: u64, bound: Option<Duration>| bound.filter(|it| past(since, *it));
                let has_it = matches!(peer, Peer::Endpoint(_));
                let sent = has_it && call.request.done;
                let asked = policy.response_timeout.filter(|_| sent && !call.answered);
                bound(call.begun, policy.call_timeout)
                    .map(Late::End)
                    .or_else(|| bound(call.moved_at, asked).map(Late::Response))
                    .or_else(|| bound(call.moved_at, policy.idle_timeout).map(Late::Payload))
                    .or_else(|| self.late_payload(call, has_it))
            }
        }
    }

    /// What a call's request is late for, of its client or of its endpoint.
    fn late_payload(&self, call: &Call, has_endpoint: bool) -> Option<Late> {
        if call.response.ended {
            return None;
        }
        let past = |since: u64, bound: u64| self.context.now.saturating_sub(since) >= bound;
        let timeout = call.listener.limits.message_timeout;
        let has_room = self.links.get(call.client.link).is_some_and(|link| link.withheld == 0);
        if has_room && call.request.sender_owes_since().is_some_and(|at| past(at, millis(timeout)))
        {
            return Some(Late::Rest(timeout));
        }
        let stuck = call.request.receiver_owes_since().filter(|_| has_endpoint)?;
        let timeout = Duration::from_millis(self.patience);
        past(stuck, self.patience).then_some(Late::Taking(Direction::Request, timeout))
    }

    /// Whether it is the endpoint that a call is late for, which has the whole request and has not
    /// answered in the time of the route or of the client. True where nothing at all has come on its
    /// connection since, which says something of the endpoint; false where it is this call alone.
    fn blames_endpoint(&self, call: &Call, late: Late) -> Option<bool> {
        let Peer::Endpoint(peer) = &call.peer else { return None };
        let silent = self.links.get(peer.at.link).is_some_and(|it| it.heard_at < call.moved_at);
        let waited = self.context.now.saturating_sub(call.moved_at);
        match late {
            Late::Response(_) => Some(silent),
            // A client may be too short of time for anyone.
            Late::Deadline if !call.answered && call.request.done && silent => {
                (waited >= SILENCE).then_some(true)
            }
            _ => None,
        }
    }

    /// Ends a call that is late, or places it again.
    pub(super) fn end_call(&mut self, index: u32, late: Late) {
        match late {
            Late::Message => return self.reset_client(index, Reason::CANCEL),
            Late::Question => return self.end_silent_reflection(index),
            Late::Room => return self.shed(index, "timeout"),
            _ => {}
        }
        self.doubt_silence(index);
        let call = &self.calls[index as usize];
        call.listener.timed_out(call.target, late.label());
        if let Peer::Endpoint(peer) = &call.peer {
            let (endpoint, client) = (peer.in_flight.endpoint(), call.client.link);
            match self.blames_endpoint(call, late) {
                Some(true) => endpoint.fault(Fault::Timeout),
                Some(false) => endpoint.stream_fault(Fault::Timeout, self.client(client).address),
                None => {}
            }
        }
        let status = late.status();
        match late {
            Late::Taking(Direction::Response, _) => {
                return self.cut(self.key(index), "send_timeout", status);
            }
            Late::Taking(Direction::Request, _) => {
                return self.cut(self.key(index), "upstream_send_timeout", status);
            }
            Late::Rest(_) => return self.cut(self.key(index), "message_timeout", status),
            _ => {}
        }
        let again = matches!(late, Late::Response(_));
        if !again || !self.place_again(index, Again::Timeout, &status.message, 0) {
            self.fail(index, &status);
        }
    }
}

/// How long an endpoint may be silent before a client's deadline says something of it, in
/// milliseconds.
const SILENCE: u64 = 1000;
/// How long before its end a call is looked at for that, in milliseconds.
pub(super) const AHEAD: u64 = 100;
/// Between two looks at a call, in milliseconds.
pub(super) const LOOK: u64 = 1000;
