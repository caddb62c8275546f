//! Streams that are answered here, from the board.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Listener,
    call::{Asked, CallKey, Label, Local, Peer, StreamKey},
    engine::{Command, Engine},
    link::Direction,
    millis,
    payload::Payload,
};
use crate::{
    answer::{Answer, MAX_REQUEST},
    grpc::{Code, Status},
    http2::{block::Block, field::Role},
    route::Dialect,
};

impl Engine {
    /// Answers by a response that is not gRPC's; to HEAD without its body.
    pub(super) fn plain(
        &mut self,
        listener: &Arc<Listener>,
        client: StreamKey,
        request: &Block,
        response: &http::Response<Bytes>,
        end: bool,
    ) {
        let local = Peer::Local(Local { asked: None, watch: None });
        let key = self.add_call(listener, client, Label::Health, local, end);
        let mut block = self.context.block();
        self.own.plain(response, &mut block);
        let head = request.first_is(Role::Method, |method| method == b"HEAD");
        let bodiless = head || response.body().is_empty();
        self.answer_head(key.index, &block, bodiless);
        self.context.recycle(block);
        if bodiless {
            return self.finish(key.index);
        }
        let call = &mut self.calls[key.index as usize];
        call.response.ended = true;
        self.push(key.index, Direction::Response, Payload::own(response.body()));
    }

    /// A health check that is a call begins.
    pub(super) fn begin_check(
        &mut self,
        listener: &Arc<Listener>,
        client: StreamKey,
        request: Block,
        dialect: Dialect,
        end: bool,
    ) {
        let until = self.context.now + millis(listener.limits.handshake_timeout);
        let encoding = request.first(Role::GrpcEncoding);
        // Read here alone, so that calls pay nothing for it.
        let agent = request.first_of(b"user-agent");
        let way = listener.answers.not_serving_as(agent.as_deref());
        self.context.recycle(request);
        let asked = Some(Asked { dialect, encoding, way, until });
        let local = Peer::Local(Local { asked, watch: None });
        let key = self.add_call(listener, client, Label::Health, local, end);
        self.look_by(key.index, until);
        if end {
            self.answer(key.index);
        }
    }

    /// More of a health check's message has come, or its end.
    pub(super) fn asked(&mut self, index: u32) {
        let call = &self.calls[index as usize];
        let body = call.request.queued();
        if body.len() > MAX_REQUEST {
            let status = Status::new(Code::ResourceExhausted, "health check too large");
            self.fail(index, &status);
        } else if call.request.ended || is_whole(body) {
            self.answer(index);
        }
    }

    /// Answers a health check whose message is there.
    pub(super) fn answer(&mut self, index: u32) {
        let call = &mut self.calls[index as usize];
        let Peer::Local(local) = &mut call.peer else { return };
        let Some(asked) = local.asked.take() else { return };
        let body = call.request.queued().to_vec();
        let taken = body.len();
        call.request.pop(taken, self.context.now);
        let encoding = asked.encoding.as_deref();
        let answers = call.listener.answers.clone();
        let answer = match asked.dialect {
            Dialect::Check | Dialect::Http => answers.check(&body, encoding, asked.way),
            Dialect::List => answers.list(),
            Dialect::Alb => answers.alb(),
            Dialect::Watch => match answers.watch(&body, encoding).and_then(|watch| {
                self.begin_watch(index)?;
                Ok(watch)
            }) {
                Err(status) => Answer::refusal(status),
                Ok(watch) => {
                    let key = self.key(index);
                    let mut block = self.context.block();
                    self.own.grpc_head(&mut block);
                    self.answer_head(index, &block, false);
                    self.context.recycle(block);
                    self.commands.push(Command::Watch(key, watch));
                    return;
                }
            },
        };
        let Some(message) = answer.message else {
            return self.fail(index, &answer.status);
        };
        let (mut head, mut trailers) = (self.context.block(), self.context.block());
        self.own.grpc_head(&mut head);
        self.answer_head(index, &head, false);
        self.context.recycle(head);
        self.own.status(&answer.status, &mut trailers);
        let response = &mut self.calls[index as usize].response;
        (response.ended, response.trailers) = (true, Some(trailers));
        self.push(index, Direction::Response, Payload::own(&message));
    }

    pub(super) fn answer_head(&mut self, index: u32, block: &Block, end: bool) {
        let call = &mut self.calls[index as usize];
        call.answered = true;
        let client = call.client;
        if let Some(link) = self.links.get_mut(client.link) {
            link.connection.block(client.stream, block, end, &mut link.out);
            self.touch(client.link);
        }
    }

    /// Sends a Watch stream's next message; false when the stream is over.
    pub(super) fn watch_message(&mut self, key: CallKey, message: &Bytes) -> bool {
        if self.call(key).is_none() {
            return false;
        }
        self.push(key.index, Direction::Response, Payload::own(message));
        true
    }

    /// Ends a Watch stream, so that its client asks again, elsewhere.
    pub(super) fn watch_end(&mut self, key: CallKey) {
        if self.call(key).is_some() {
            self.end_local(key.index, &Status::unavailable("draining"));
        }
    }

    /// Ends a response by `status`, after what waits of it.
    pub(super) fn end_local(&mut self, index: u32, status: &Status) {
        let mut trailers = self.context.block();
        self.own.status(status, &mut trailers);
        let response = &mut self.calls[index as usize].response;
        (response.ended, response.trailers) = (true, Some(trailers));
        self.push(index, Direction::Response, Payload::NONE);
    }
}

/// Whether `body` holds the one message that its prefix announces: what follows is not waited
/// for, since some clients never end their half.
fn is_whole(body: &[u8]) -> bool {
    body.split_first_chunk::<5>().is_some_and(|([_, length @ ..], message)| {
        message.len() >= u32::from_be_bytes(*length) as usize
    })
}
