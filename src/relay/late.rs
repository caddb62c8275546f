//! What ends because a call takes too long: by its client's own word, or by its route's.

use std::time::Duration;

use humantime::format_duration;

use super::{
    call::{Call, Local, Opening, Peer},
    engine::Engine,
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
        }
    }
}

impl Engine {
    /// Ends what lingers and what is late, and places what was put off.
    pub(super) fn end_late(&mut self) {
        self.end_lingering();
        self.place_delayed();
        self.place_all_queued();
        self.move_on();
        let late = self.calls.iter();
        let late: Vec<_> =
            late.filter_map(|(index, call)| Some((index as u32, self.late(call)?))).collect();
        for (index, late) in late {
            // One that ends may take another with it.
            if self.calls.contains(index as usize) {
                self.end_call(index, late);
            }
        }
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
        match &call.peer {
            Peer::Local(Local { asked, .. }) => {
                asked.as_ref().is_some_and(|asked| asked.until <= now).then_some(Late::Message)
            }
            Peer::Reflection(stream) => {
                let link = self.links.get(call.client.link);
                let over = stream.asked && link.is_some_and(|link| link.draining);
                (stream.until <= now || over).then_some(Late::Question)
            }
            // What is left is up to the client.
            _ if call.response.ended => None,
            _ if call.deadline <= now => Some(Late::Deadline),
            Peer::Opening(Opening { queued: Some((_, until)), .. }) if *until <= now => {
                Some(Late::Room)
            }
            peer => {
                let policy = call.policy();
                let past = |since: u64, bound: Option<Duration>| {
                    bound.filter(|bound| now.saturating_sub(since) >= millis(*bound))
                };
                let sent = matches!(peer, Peer::Endpoint(_)) && call.request.done;
                let asked = policy.response_timeout.filter(|_| sent && !call.answered);
                past(call.begun, policy.call_timeout)
                    .map(Late::End)
                    .or_else(|| past(call.moved_at, asked).map(Late::Response))
                    .or_else(|| past(call.moved_at, policy.idle_timeout).map(Late::Payload))
            }
        }
    }

    /// Whether it is the endpoint that a call is late for: it has not answered in the time of the
    /// route, or in the client's and nothing at all has come from it since it had the call.
    fn is_endpoints_fault(&self, call: &Call, late: Late) -> bool {
        let Peer::Endpoint(peer) = &call.peer else { return false };
        let link = self.links.get(peer.at.link);
        let silent = link.is_some_and(|link| link.heard_at < call.moved_at);
        match late {
            Late::Response(_) => true,
            // A client may be too short of time for anyone.
            Late::Deadline => {
                let waited = self.context.now.saturating_sub(call.moved_at);
                !call.answered && silent && waited >= SILENCE
            }
            _ => false,
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
        let call = &self.calls[index as usize];
        call.listener.timed_out(call.target, late.label());
        if self.is_endpoints_fault(call, late)
            && let Peer::Endpoint(peer) = &call.peer
        {
            peer.in_flight.endpoint().fault(Fault::Timeout);
        }
        let status = late.status();
        let again = matches!(late, Late::Response(_));
        if !again || !self.place_again(index, Again::Timeout, &status.message, 0) {
            self.fail(index, &status);
        }
    }
}

/// How long an endpoint may be silent before a client's deadline says something of it, in
/// milliseconds.
const SILENCE: u64 = 1000;
