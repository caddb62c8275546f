//! What endpoints do: responses, their payload, and their end.

use std::fmt::Arguments;

use super::{
    End,
    call::{Call, Forwarded, Peer},
    engine::Engine,
    link::Direction,
    payload::Payload,
    replay::Again,
};
use crate::{
    grpc::{Code, Status, is_grpc},
    http2::{block::Block, field::Role, frame::Reason},
    upstream::Fault,
};

impl Engine {
    /// A response's head.
    pub(super) fn response_head(&mut self, index: u32, mut block: Block, status: u16, end: bool) {
        if end {
            match self.unless_turned_away(index, block) {
                Some(other) => block = other,
                None => return,
            }
            if status == 200 && self.place_after_status(index, &block) {
                return self.context.recycle(block);
            }
        }
        let Some(call) = self.calls.get_mut(index as usize) else {
            return self.context.recycle(block);
        };
        let Peer::Endpoint(peer) = &mut call.peer else { return self.context.recycle(block) };
        if let Some(link) = self.links.get_mut(peer.at.link) {
            link.served = true;
            link.suspicions = 0;
        }
        let grpc = status == 200 && block.first_is(Role::ContentType, is_grpc);
        let code = code(&block);
        if let Some(replay) = peer.replay.take() {
            self.replays.end(replay, &mut self.context);
        }
        call.end = match code {
            // Its end is still to come, by the endpoint's status or by one of the relay's own.
            _ if grpc && !end => None,
            Some(code) => Some(End::Status(code)),
            None => Some(End::Http),
        };
        peer.missing = grpc.then(missing);
        if !grpc {
            // Its bytes are no length-prefixed messages.
            call.response.set_unframed();
        }
        match (grpc, end, code) {
            (true, true, None) => {
                call.end = Some(End::Status(Code::Unknown));
                self.own.status(&missing(), &mut block);
            }
            (true, true, Some(_)) => block.keep_first(Role::GrpcStatus),
            // A status before the end is none; it stands in where the end has none.
            (true, false, Some(code)) => {
                block.remove(Role::GrpcStatus);
                peer.missing = Some(Status::new(code, ""));
            }
            _ => {}
        }
        peer.in_flight.answered();
        call.answered = true;
        let client = call.client;
        if let Some(link) = self.links.get_mut(client.link) {
            self.buffers.supply(&mut link.out);
            link.connection.block(client.stream, &block, end, &mut link.out);
            self.touch(client.link);
        }
        self.context.recycle(block);
        if end {
            self.finish(index);
        }
    }

    /// Payload of a response, or its end without trailers.
    pub(super) fn response_data(&mut self, index: u32, payload: Payload<'_>, end: bool) {
        let now = self.context.now;
        let call = &mut self.calls[index as usize];
        let Peer::Endpoint(peer) = &mut call.peer else { return };
        call.request.answered();
        if let Err(error) = call.response.receive(payload.bytes(), now) {
            return self.fail(index, &Status::new(Code::ResourceExhausted, error.to_string()));
        }
        if end {
            call.response.ended = true;
            if let Some(missing) = peer.missing.take() {
                call.end = Some(End::Status(missing.code));
                let mut trailers = self.context.block();
                self.own.status(&missing, &mut trailers);
                self.calls[index as usize].response.trailers = Some(trailers);
            }
        }
        self.push(index, Direction::Response, payload);
    }

    /// A response's trailers.
    pub(super) fn response_trailers(&mut self, index: u32, mut block: Block) {
        let Some(call) = self.calls.get_mut(index as usize) else {
            return self.context.recycle(block);
        };
        let Peer::Endpoint(peer) = &mut call.peer else { return self.context.recycle(block) };
        if let Some(missing) = peer.missing.take() {
            let code = code(&block);
            if code.is_none() {
                self.own.status(&missing, &mut block);
            }
            call.end = Some(End::Status(code.unwrap_or(missing.code)));
            block.keep_first(Role::GrpcStatus);
        }
        (call.response.ended, call.response.trailers) = (true, Some(block));
        self.push(index, Direction::Response, Payload::NONE);
    }

    /// A response's head or trailers were larger than an endpoint's may be. The call may have had
    /// its effect, and would meet the same limit again: 8 without RetryInfo, on which OTLP's
    /// exporters do not send it again, and which gRPC's own implementations say in this case.
    pub(super) fn overlong(&mut self, index: u32, trailers: bool, fields: bool) {
        let Some(call) = self.calls.get(index as usize) else { return };
        let Peer::Endpoint(peer) = &call.peer else { return };
        let key = match fields {
            true => "max_upstream_header_fields",
            false => "max_upstream_header_list_size",
        };
        let what = if trailers { "trailers" } else { "headers" };
        self.tell_cut(call, peer, key, format_args!("its {what} are over the limit"));
        let words = format!("the {what} of the response exceed limits.{key} of Upbeat");
        let status = Status::new(Code::ResourceExhausted, words);
        if !trailers {
            return self.fail(index, &status);
        }
        // What came before is still brought to the client.
        self.calls[index as usize].end = Some(End::Status(status.code));
        self.end_local(index, &status);
    }

    /// Counts and logs a call that is cut for its endpoint's response.
    fn tell_cut(&self, call: &Call, peer: &Forwarded, reason: &'static str, what: Arguments<'_>) {
        let upstream = call.listener.targets[usize::from(call.target)].upstream.name();
        let endpoint = peer.in_flight.endpoint().address();
        let why = format!("a response of {upstream}, {endpoint}: {what}");
        let client = self.links.get(call.client.link).and_then(|link| link.client);
        call.listener.refusals().cut(client.map(|it| it.ip()), reason, why);
    }

    /// The endpoint reset its stream. After the end of its response it only wants no more of the
    /// request (RFC 9113, 8.1): what waits for the client is still brought to it. A refusal that
    /// stays is passed on as it is, since it tells the client that it may try again.
    pub(super) fn endpoint_reset(&mut self, index: u32, reason: Reason) {
        if self.calls[index as usize].response.ended {
            return;
        }
        if let Peer::Endpoint(peer) = &self.calls[index as usize].peer
            && !POLITE.contains(&reason)
        {
            let client = self.client(self.calls[index as usize].client.link).address;
            peer.in_flight.endpoint().stream_fault(Fault::Reset, client);
        }
        let (how, why) = match reason {
            Reason::REFUSED_STREAM => (Again::Refused, "every endpoint refused the call"),
            _ => (Again::Reset, "the endpoint reset the call"),
        };
        if self.place_again(index, how, why, 0) {
            return;
        }
        let call = &mut self.calls[index as usize];
        if call.response.queued().is_empty() {
            return self.reset_client(index, reason);
        }
        // What it sent before comes first.
        call.end = Some(End::Reset);
        (call.response.ended, call.response.reset) = (true, Some(reason));
    }

    /// The endpoint broke the protocol in its response: as it is, no client would take it.
    pub(super) fn broken_response(&mut self, index: u32, reason: Reason) {
        let Some(call) = self.calls.get(index as usize) else { return };
        let Peer::Endpoint(peer) = &call.peer else { return };
        self.tell_cut(call, peer, "malformed_response", format_args!("malformed: {reason}"));
        let words = "the upstream sent a malformed response";
        if call.answered {
            return self.endpoint_reset(index, reason);
        }
        if !self.place_again(index, Again::Reset, words, 0) {
            self.fail(index, &Status::new(Code::Internal, words));
        }
    }

    /// The endpoint's connection ended by an error, and maybe for this call: it is not placed again,
    /// since the next connection would end as well, with everybody's calls on it.
    pub(super) fn poisonous(&mut self, index: u32, why: &str) {
        if self.calls.get(index as usize).is_some_and(|call| !call.response.ended) {
            let words = "and may have been for it";
            let why = format!("upstream connection lost: {why}, {words}");
            self.fail(index, &Status::unavailable(why));
        }
    }

    /// The endpoint's connection is gone, or did not take the stream up. A response that is whole
    /// is still brought to the client.
    pub(super) fn endpoint_lost(&mut self, index: u32, how: Again, why: &str) {
        if self.calls.get(index as usize).is_none_or(|call| call.response.ended) {
            return;
        }
        let why = format!("upstream connection lost: {why}");
        if self.place_again(index, how, &why, 0) {
            return;
        }
        let status = Status::unavailable(why);
        let call = &mut self.calls[index as usize];
        if !call.answered || !call.response.trim() || call.response.queued().is_empty() {
            return self.fail(index, &status);
        }
        // The messages that are whole come first.
        call.end = Some(End::Status(status.code));
        let mut trailers = self.context.block();
        self.own.status(&status, &mut trailers);
        let call = &mut self.calls[index as usize];
        (call.response.ended, call.response.trailers) = (true, Some(trailers));
        self.account(index);
    }
}

fn missing() -> Status {
    Status::new(Code::Unknown, "the upstream sent no grpc-status")
}

/// The code of a block's grpc-status, where it has one.
pub(super) fn code(block: &Block) -> Option<Code> {
    let mut code = None;
    block.values(Role::GrpcStatus, |value| {
        let number = match value {
            [digit @ b'0'..=b'9'] => Some(usize::from(digit - b'0')),
            _ => str::from_utf8(value).ok().and_then(|text| text.parse().ok()),
        };
        let known = number.and_then(|number| Code::ALL.get(number).copied());
        let known = known.unwrap_or(Code::Unknown);
        code.get_or_insert(known);
    });
    code
}

/// Resets that say nothing of the endpoint's transport. By PROTOCOL_ERROR it says that the request
/// is at fault: one client must not have it ejected for all.
const POLITE: [Reason; 5] = [
    Reason::NO_ERROR,
    Reason::PROTOCOL_ERROR,
    Reason::CANCEL,
    Reason::REFUSED_STREAM,
    Reason::ENHANCE_YOUR_CALM,
];
