//! What clients do after a request's head: its payload, and its end.

use super::{
    End, Listener,
    call::{Call, CallKey, Label, Peer},
    engine::Engine,
    link::{Direction, Kind, Link},
    payload::Payload,
};
use crate::{
    grpc::{Code, Status, TooLarge},
    http2::frame::Reason,
};

impl Engine {
    /// Payload of a request, or its end.
    pub(super) fn request_data(&mut self, index: u32, payload: Payload<'_>, end: bool) {
        if let Peer::Opening(opening) = &self.calls[index as usize].peer
            && !opening.first.is_empty()
            && !payload.is_empty()
        {
            let key = self.key(index);
            self.open_head(key, payload.input());
            if self.call(key).is_none() {
                return;
            }
        }
        let now = self.context.now;
        let call = &mut self.calls[index as usize];
        call.request.ended |= end;
        match &mut call.peer {
            Peer::Local(local) => {
                if local.asked.is_some() {
                    call.request.push(payload.bytes(), 0, now);
                    self.asked(index);
                }
            }
            Peer::Reflection(_) => {
                call.request.push(payload.bytes(), 0, now);
                self.reflected(index);
            }
            Peer::Opening(_) | Peer::Endpoint(_) => {
                call.holds.took(payload.len(), self.clock);
                if let Err(error) = call.request.receive(payload.bytes(), now) {
                    return self.too_large_message(index, error);
                }
                match &mut call.peer {
                    Peer::Opening(opening) if opening.new => {
                        if !payload.is_empty() {
                            opening.first = payload.range();
                        }
                    }
                    Peer::Opening(_) if end => {
                        self.push(index, Direction::Request, payload);
                        self.let_go(self.key(index));
                    }
                    _ => self.push(index, Direction::Request, payload),
                }
            }
        }
    }

    /// A message's prefix says more than the listener takes.
    pub(super) fn too_large_message(&mut self, index: u32, error: TooLarge) {
        self.fail(index, &Status::new(Code::ResourceExhausted, error.to_string()));
    }

    /// The client broke the protocol in its request, whose stream was reset for it.
    pub(super) fn broken_request(&mut self, id: usize, index: u32, reason: Reason) {
        let Some(Link { kind: Kind::Client(listener), client, .. }) = self.links.get(id) else {
            return;
        };
        let why = format!("the client sent a malformed request: {reason}");
        listener.refusals().cut(client.map(|it| it.ip()), "malformed_request", why);
        if self.calls.contains(index as usize) {
            self.client_reset(index, reason);
        }
    }

    /// The client reset its stream, or is gone.
    pub(super) fn client_reset(&mut self, index: u32, reason: Reason) {
        self.doubt_silence(index);
        let call = &mut self.calls[index as usize];
        call.end = Some(End::Reset);
        let (unfinished, client) = (call.is_unfinished(), call.client.link);
        if unfinished && self.links.contains(client) {
            self.gave_up(self.client(client).address);
        }
        self.remove_call(index, reason);
    }

    /// Ends a call by a status of the relay's own: trailers-only, or in the trailers where a head
    /// was sent already. A message that was cut is followed by a reset: behind a part of one, clients
    /// take trailers for a broken server.
    pub(super) fn fail(&mut self, index: u32, status: &Status) {
        let call = &mut self.calls[index as usize];
        if call.answered && !call.response.is_between_messages() {
            return self.reset_client(index, reset_as(status.code));
        }
        let mut block = self.context.block();
        let call = &mut self.calls[index as usize];
        call.end = call.end.or(Some(match call.answered {
            true => End::Status(status.code),
            false => End::Refused(status.code),
        }));
        let client = call.client;
        if !call.answered {
            self.own.grpc_head(&mut block);
        }
        self.own.status(status, &mut block);
        if let Some(link) = self.links.get_mut(client.link) {
            link.connection.block(client.stream, &block, true, &mut link.out);
            self.touch(client.link);
        }
        self.context.recycle(block);
        self.finish(index);
    }

    /// Resets the client's stream with a code that the endpoint gave.
    pub(super) fn reset_client(&mut self, index: u32, reason: Reason) {
        let call = &mut self.calls[index as usize];
        call.end = Some(End::Reset);
        let client = call.client;
        if let Some(link) = self.links.get_mut(client.link) {
            link.connection.reset(client.stream, reason, &mut link.out);
            self.touch(client.link);
        }
        self.remove_call(index, Reason::CANCEL);
    }

    /// The response has ended, and so has the call. What its client still sends is not taken, and
    /// after a while reset.
    pub(super) fn finish(&mut self, index: u32) {
        let call = &self.calls[index as usize];
        let (client, going_on) = (call.client, !call.request.ended);
        if going_on {
            self.lingering.push((client, self.context.now + LINGER));
            if let Some(link) = self.links.get_mut(client.link) {
                link.connection.mark(client.stream, crate::http2::connection::NONE);
            }
        }
        self.remove_call(index, Reason::CANCEL);
    }

    /// Takes a call out, counts it, and gives back what it held. `reason` is told to an endpoint whose
    /// stream is open still.
    fn remove_call(&mut self, index: u32, reason: Reason) {
        let call = self.calls.remove(index as usize);
        self.looks[index as usize] = u64::MAX;
        let Call {
            listener,
            client,
            started,
            label,
            end,
            peer,
            request,
            response,
            target,
            buffered,
            ..
        } = call;
        if buffered > 0 {
            self.change_buffered(client.link, buffered, 0);
        }
        let forwarded = !matches!(label, Label::Health);
        let took = self.clock.duration_since(started);
        match peer {
            Peer::Endpoint(peer) => {
                if let Some(replay) = peer.replay {
                    self.replays.end(replay, &mut self.context);
                }
                if let Some(End::Status(_)) = end {
                    peer.in_flight.ended(took);
                }
                self.leave_stream(peer.at, reason, request.done, peer.in_flight);
            }
            Peer::Opening(opening) => {
                self.context.recycle(opening.head);
                if let Some(waiting) = opening.waiting {
                    self.leave(waiting);
                }
                if let Some((ticket, _)) = &opening.queued {
                    self.queues.leave(ticket);
                }
                let upstream = &listener.targets[usize::from(target)].upstream;
                if let Some(in_flight) = opening.waits_for {
                    drop(in_flight);
                    if upstream.line().is_waited_in() {
                        self.offer_room(upstream);
                    }
                }
            }
            // A Watch ends with what it holds.
            Peer::Local(_) | Peer::Reflection(_) => {}
        }
        if let Some(link) = self.links.get_mut(client.link) {
            link.quiet_since = self.context.now;
        }
        if forwarded {
            let counted = &listener.targets[usize::from(target)];
            counted.streams.dec();
            counted.duration.observe(took.as_secs_f64());
            listener.requested.inc_by(request.bytes);
            listener.responded.inc_by(response.bytes);
            self.count(&listener, target, label, end.unwrap_or(End::Reset));
        }
    }

    fn count(&mut self, listener: &Listener, target: u16, label: Label, end: End) {
        match (label, end) {
            (Label::Health, _) => {}
            (Label::Known(method), End::Status(Code::Ok)) => {
                self.methods[method as usize].ended_well(listener, target);
            }
            (Label::Known(method), end) => {
                listener.ended(Some(target), self.methods[method as usize].path(), end);
            }
            (Label::Path(path, field), end) => {
                listener.ended(Some(target), &path, end);
                // A method that a backend has, on a path that repeats: known from now on.
                if let Some(field) = field
                    && end == End::Status(Code::Ok)
                    && self.methods.len() < METHODS
                {
                    field.set_note(self.note_of(self.methods.len()));
                    self.methods.push(super::own::Method::new(&path, listener));
                }
            }
        }
    }

    /// Opens the streams of calls whose heads came in `input`.
    pub(super) fn open_heads(&mut self, input: &[u8]) {
        for at in 0..self.opening.len() {
            self.open_head(self.opening[at], input);
        }
        self.opening.clear();
    }

    fn open_head(&mut self, key: CallKey, input: &[u8]) {
        if let Some(call) = self.call(key)
            && let Peer::Opening(opening) = &mut call.peer
            && std::mem::take(&mut opening.new)
        {
            let first = Payload::read(input, std::mem::take(&mut opening.first));
            if !self.keeps_unfinished(key, first) {
                self.place(key, first);
            }
        }
    }
}

/// The reset that gRPC clients read as this code (PROTOCOL-HTTP2.md, Errors).
pub(super) fn reset_as(code: Code) -> Reason {
    match code {
        Code::Unavailable => Reason::REFUSED_STREAM,
        Code::ResourceExhausted => Reason::ENHANCE_YOUR_CALM,
        _ => Reason::CANCEL,
    }
}

/// How long what a client still sends after its answer is passed over, in milliseconds: a reset
/// at once makes some clients throw the answer away.
const LINGER: u64 = 1000;
/// Methods that are counted by an index.
const METHODS: usize = 1024;
