//! What clients do: requests, their payload, and their end.

use std::{rc::Rc, sync::Arc};

use super::{
    End, Listener,
    call::{Asked, Call, CallKey, Label, Local, Opening, Peer, StreamKey},
    engine::Engine,
    link::{Direction, Kind},
    turn::FIELDS,
};
use crate::{
    grpc::{Code, Status, TooLarge, is_grpc},
    http2::{block::Block, field::Role, frame::Reason, hpack::Line},
    route::{Dialect, Fault, Path, Refusal, Request, Route, Verb, is_authority},
};

impl Engine {
    /// A request's head: routed, and forwarded or answered.
    pub(super) fn request_head(&mut self, client: StreamKey, block: Block, end: bool) {
        let Kind::Client(listener) = &self.links[client.link].kind else { return };
        let listener = Arc::clone(listener);
        let (request, label) = self.read_head(&listener, &block);
        match listener.router.route(&request) {
            Route::Forward => {
                listener.streams.inc();
                let opening = Opening {
                    head: block,
                    bodiless: end,
                    waits_for: None,
                    tried: Vec::new(),
                    why: None,
                };
                let key = self.add_call(&listener, client, label, Peer::Opening(opening), end);
                self.opening.push(key);
            }
            Route::Health(Dialect::Http) => {
                listener.answered(Dialect::Http);
                let target = block.first(Role::Path).unwrap_or_default();
                let target = String::from_utf8_lossy(&target);
                let query = target.split_once('?').map(|(_, query)| query);
                let response = listener.answers.http(query);
                self.plain(&listener, client, &block, &response, end);
                self.context.recycle(block);
            }
            Route::Live => {
                let response = crate::answer::live();
                self.plain(&listener, client, &block, &response, end);
                self.context.recycle(block);
            }
            Route::Refuse(Refusal::Http(status)) => {
                let response = crate::answer::refusal(status);
                self.plain(&listener, client, &block, &response, end);
                self.context.recycle(block);
            }
            Route::Refuse(Refusal::Grpc(status)) => {
                if let Label::Path(path, _) = &label {
                    listener.ended(path, End::Refused(status.code));
                }
                let local = Peer::Local(Local { asked: None, watch: None });
                let key = self.add_call(&listener, client, Label::Health, local, end);
                self.fail(key.index, &status);
                self.context.recycle(block);
            }
            Route::Health(dialect) => {
                listener.answered(dialect);
                let patience = listener.limits.handshake_timeout.as_millis();
                let until = self.context.now + u64::try_from(patience).unwrap_or(u64::MAX / 2);
                let encoding = block.first(Role::GrpcEncoding);
                let asked = Some(Asked { dialect, encoding, until });
                let local = Peer::Local(Local { asked, watch: None });
                let key = self.add_call(&listener, client, Label::Health, local, end);
                self.context.recycle(block);
                if end {
                    self.answer(key.index);
                }
            }
        }
    }

    /// What a head comes to. What a field that repeats means is written down on it.
    fn read_head(&mut self, listener: &Listener, block: &Block) -> (Request, Label) {
        let mut request =
            Request { verb: Verb::Other, path: Path::Other, grpc: false, fault: None };
        let mut label = Label::Path(Box::default(), None);
        let (mut content_types, mut timeouts, mut tes) = (0, 0, 0);
        let (mut authority, mut hosts, mut lawful, mut scheme) = (false, 0, true, false);
        let mut plain = Vec::new();
        for line in block.lines() {
            match line.name().role() {
                Role::Method => request.verb = Verb::of(line.text(&mut plain)),
                Role::Path => match &line {
                    Line::Known(field) if self.is_method(field.note(), listener) => {
                        request.path = Path::Method;
                        label = Label::Known(field.note() - 1);
                    }
                    Line::Known(field) => {
                        request.path = listener.router.path(field.value());
                        label = Label::Path(field.value().into(), Some(Rc::clone(field)));
                    }
                    Line::Moving(_) => {
                        let path = line.text(&mut plain);
                        request.path = listener.router.path(path);
                        label = Label::Path(path.into(), None);
                    }
                },
                Role::ContentType => {
                    content_types += 1;
                    request.grpc = is_grpc(Some(line.text(&mut plain)));
                }
                Role::Te => tes += 1,
                Role::GrpcTimeout => timeouts += 1,
                Role::Authority => {
                    authority = true;
                    lawful &= is_authority(line.text(&mut plain));
                }
                Role::Host => {
                    hosts += 1;
                    lawful &= is_authority(line.text(&mut plain));
                }
                Role::Scheme => scheme = matches!(line.text(&mut plain), b"http" | b"https"),
                _ => {}
            }
        }
        request.fault = if tes > 1 {
            Some(Fault::Repeated("te"))
        } else if content_types > 1 {
            Some(Fault::Repeated("content-type"))
        } else if timeouts > 1 {
            Some(Fault::Repeated("grpc-timeout"))
        } else if hosts > 1 {
            Some(Fault::Repeated("host"))
        } else if !authority && hosts == 0 {
            Some(Fault::NoAuthority)
        } else if authority && hosts == 1 && block.first(Role::Authority) != block.first(Role::Host)
        {
            Some(Fault::OtherHost)
        } else if !lawful {
            Some(Fault::BadAuthority)
        } else if !scheme {
            Some(Fault::BadScheme)
        } else {
            None
        };
        (request, label)
    }

    /// Whether a path's note names one of this listener's methods.
    fn is_method(&self, note: u32, listener: &Listener) -> bool {
        let method = note.checked_sub(1).and_then(|index| self.methods.get(index as usize));
        method.is_some_and(|method| method.is_of(listener))
    }

    /// A request whose head is over the limit.
    pub(super) fn too_large(&mut self, client: StreamKey, block: Block, end: bool) {
        let Kind::Client(listener) = &self.links[client.link].kind else { return };
        let listener = Arc::clone(listener);
        if is_grpc(block.first(Role::ContentType).as_deref()) {
            let local = Peer::Local(Local { asked: None, watch: None });
            let key = self.add_call(&listener, client, Label::Health, local, end);
            let most = listener.limits.max_header_list_size;
            let words = format!("header list larger than the {most} or {FIELDS} fields allowed");
            self.fail(key.index, &Status::new(Code::ResourceExhausted, words));
        } else {
            let status = http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            let response = crate::answer::refusal(status);
            self.plain(&listener, client, &block, &response, end);
        }
        self.context.recycle(block);
    }

    /// Payload of a request, or its end.
    pub(super) fn request_data(&mut self, index: u32, bytes: &[u8], end: bool) {
        let call = &mut self.calls[index as usize];
        call.request.ended |= end;
        match &mut call.peer {
            Peer::Local(local) => {
                let asked = local.asked.is_some();
                let link = call.client.link;
                if asked {
                    call.request.push(bytes);
                }
                self.discard(link, bytes.len());
                if asked {
                    self.asked(index);
                }
            }
            Peer::Opening(_) | Peer::Endpoint(_) => {
                if let Some(sizes) = &mut call.request.sizes
                    && let Err(error) = sizes.scan(bytes)
                {
                    return self.too_large_message(index, error, bytes.len());
                }
                self.push(index, Direction::Request, bytes);
            }
        }
    }

    /// A message's prefix says more than the listener takes.
    pub(super) fn too_large_message(&mut self, index: u32, error: TooLarge, unread: usize) {
        let link = self.calls[index as usize].client.link;
        self.discard(link, unread);
        self.fail(index, &Status::new(Code::ResourceExhausted, error.to_string()));
    }

    /// The client reset its stream, or is gone.
    pub(super) fn client_reset(&mut self, index: u32, reason: Reason) {
        let call = &mut self.calls[index as usize];
        call.end = Some(End::Reset);
        if let Peer::Endpoint(peer) = &call.peer {
            let at = peer.at;
            if let Some(link) = self.links.get_mut(at.link) {
                link.connection.reset(at.stream, reason, &mut link.out);
                self.touch(at.link);
            }
        }
        self.remove_call(index);
    }

    /// Ends a call by a status of the relay's own: trailers-only, or in the trailers where a head
    /// was sent already.
    pub(super) fn fail(&mut self, index: u32, status: &Status) {
        self.cut_endpoint(index);
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
        self.remove_call(index);
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
        self.cut_endpoint(index);
        self.remove_call(index);
    }

    /// Resets the endpoint's stream, where the call has one that is open.
    fn cut_endpoint(&mut self, index: u32) {
        if let Peer::Endpoint(peer) = &self.calls[index as usize].peer {
            let at = peer.at;
            if let Some(link) = self.links.get_mut(at.link) {
                link.connection.reset(at.stream, Reason::CANCEL, &mut link.out);
                self.touch(at.link);
            }
        }
    }

    /// Takes a call out, counts it, and gives back what it held.
    fn remove_call(&mut self, index: u32) {
        let call = self.calls.remove(index as usize);
        let Call { listener, client, started, label, end, peer, request, response, .. } = call;
        let (unsent, unread) = (request.queued().len(), response.queued().len());
        let forwarded = !matches!(label, Label::Health);
        match peer {
            Peer::Endpoint(peer) => {
                self.discard(client.link, unsent);
                self.discard(peer.at.link, unread);
                self.freed(peer.at.link);
            }
            Peer::Opening(opening) => {
                self.discard(client.link, unsent);
                self.context.recycle(opening.head);
            }
            Peer::Local(local) => {
                if let Some(watch) = local.watch {
                    watch.abort();
                }
            }
        }
        if let Some(link) = self.links.get_mut(client.link) {
            link.quiet_since = self.context.now;
        }
        if forwarded {
            listener.streams.dec();
            listener.requested.inc_by(request.bytes);
            listener.responded.inc_by(response.bytes);
            listener.duration.observe(self.clock.duration_since(started).as_secs_f64());
            self.count(&listener, label, end.unwrap_or(End::Reset));
        }
    }

    fn count(&mut self, listener: &Listener, label: Label, end: End) {
        match (label, end) {
            (Label::Health, _) => {}
            (Label::Known(method), End::Status(Code::Ok)) => {
                self.methods[method as usize].ended_well();
            }
            (Label::Known(method), end) => {
                listener.ended(self.methods[method as usize].path(), end);
            }
            (Label::Path(path, field), end) => {
                listener.ended(&path, end);
                // A method that a backend has, on a path that repeats: known from now on.
                if let Some(field) = field
                    && end == End::Status(Code::Ok)
                    && self.methods.len() < METHODS
                {
                    self.methods.push(super::own::Method::new(&path, listener));
                    field.set_note(self.methods.len() as u32);
                }
            }
        }
    }

    /// Ends what lingers and what was asked too slowly.
    pub(super) fn end_late(&mut self) {
        let now = self.context.now;
        let mut late = Vec::new();
        self.lingering.retain(|(at, until)| {
            let waits = *until > now;
            if !waits {
                late.push(*at);
            }
            waits
        });
        for at in late {
            if let Some(link) = self.links.get_mut(at.link) {
                link.connection.reset(at.stream, Reason::NO_ERROR, &mut link.out);
                self.touch(at.link);
            }
        }
        let slow: Vec<u32> = self
            .calls
            .iter()
            .filter(|(_, call)| match &call.peer {
                Peer::Local(Local { asked: Some(asked), .. }) => asked.until <= now,
                _ => false,
            })
            .map(|(index, _)| index as u32)
            .collect();
        for index in slow {
            self.reset_client(index, Reason::CANCEL);
        }
    }

    /// Opens the streams of calls whose heads came in this turn.
    pub(super) fn open_heads(&mut self) {
        for key in std::mem::take(&mut self.opening) {
            if self.call(key).is_some() {
                self.place(key);
            }
        }
    }

    pub(super) fn is_opening(&self, key: CallKey) -> bool {
        let call = self.calls.get(key.index as usize);
        call.is_some_and(|call| call.serial == key.serial && matches!(call.peer, Peer::Opening(_)))
    }
}

/// How long what a client still sends after its answer is passed over, in milliseconds: a reset
/// at once makes some clients throw the answer away.
const LINGER: u64 = 1000;
/// Methods that are counted by an index.
const METHODS: usize = 1024;
