//! Streams of reflection, which are answered here: question by question, for as long as there are
//! any.

use std::sync::Arc;

use super::{
    Listener,
    call::{Label, Peer, Reflection, StreamKey},
    engine::Engine,
    link::Direction,
    millis,
    payload::Payload,
};
use crate::{
    answer::{MAX_REQUEST, reflect},
    grpc::{Code, Status},
    http2::{block::Block, field::Role},
};

impl Engine {
    /// A stream begins. Its response's head does not wait for a question: some clients ask only
    /// after it.
    pub(super) fn begin_reflection(
        &mut self,
        listener: &Arc<Listener>,
        client: StreamKey,
        request: Block,
        end: bool,
    ) {
        let encoding = request.first(Role::GrpcEncoding);
        self.context.recycle(request);
        let until = self.context.now + millis(listener.limits.handshake_timeout);
        let peer = Peer::Reflection(Reflection { encoding, asked: false, until });
        let key = self.add_call(listener, client, Label::Health, peer, end);
        self.look_by(key.index, until);
        let mut head = self.context.block();
        self.own.grpc_head(&mut head);
        self.answer_head(key.index, &head, false);
        self.context.recycle(head);
        if end {
            self.reflected(key.index);
        }
    }

    /// More of a stream has come, or its end: what is a whole question is answered.
    pub(super) fn reflected(&mut self, index: u32) {
        let call = &mut self.calls[index as usize];
        let Peer::Reflection(stream) = &call.peer else { return };
        let encoding = stream.encoding.clone();
        let ended = call.request.ended;
        let body = call.request.queued().to_vec();
        call.request.pop(body.len(), self.context.now);
        let mut rest = body.as_slice();
        while let Some(length) = length(rest) {
            if length > MAX_REQUEST {
                let words = "reflection request too large";
                return self.fail(index, &Status::new(Code::ResourceExhausted, words));
            }
            let Some((question, others)) = rest.split_at_checked(length) else { break };
            rest = others;
            match reflect(question, encoding.as_deref()) {
                Ok(answer) => self.push(index, Direction::Response, Payload::own(&answer)),
                Err(status) => return self.fail(index, &status),
            }
            if self.calls[index as usize].response.queued().len() > MOST_UNREAD {
                let words = "too many answers that are not read";
                return self.fail(index, &Status::new(Code::ResourceExhausted, words));
            }
        }
        if !ended {
            let call = &mut self.calls[index as usize];
            call.request.push(rest, 0, self.context.now);
            if let Peer::Reflection(stream) = &mut call.peer
                && rest.len() < body.len()
            {
                stream.asked = true;
                stream.until = self.context.now + millis(call.listener.limits.handshake_timeout);
            }
        } else if rest.is_empty() {
            self.end_local(index, &Status::OK);
        } else {
            self.fail(index, &Status::new(Code::Internal, "the stream ends within a message"));
        }
    }

    /// Ends a stream on which nothing was asked for long, or which holds up a connection that is to
    /// end: all that was asked is answered.
    pub(super) fn end_silent_reflection(&mut self, index: u32) {
        let unread = !self.calls[index as usize].response.queued().is_empty();
        let status = match unread {
            true => Status::new(Code::Cancelled, "the answers were not read in time"),
            false => Status::OK,
        };
        self.fail(index, &status);
    }
}

/// The length of the message that begins here, with its prefix.
fn length(bytes: &[u8]) -> Option<usize> {
    let ([_, length @ ..], _) = bytes.split_first_chunk::<5>()?;
    Some((u32::from_be_bytes(*length) as usize).saturating_add(5))
}

/// Answers that wait for their reader, in bytes: some ten of the longest ones.
const MOST_UNREAD: usize = 64 << 10;
