//! A request's head: what it comes to, and where it goes.

use std::{rc::Rc, sync::Arc};

use super::{
    End, Listener,
    call::{Holds, Label, Local, Opening, Peer, StreamKey},
    engine::Engine,
    erring::is_clients_fault,
    late::AHEAD,
    link::Kind,
    reserved::is_brief,
};
use crate::{
    answer::HttpCheck,
    auth::{Denied, Gate},
    grpc::{Code, Status, is_grpc, timeout},
    http2::{block::Block, field::Role, hpack::Line},
    route::{Dialect, Fault, Path, Refusal, Request, Route, Verb, is_authority},
};

impl Engine {
    /// A request's head: routed, and forwarded or answered.
    pub(super) fn request_head(&mut self, client: StreamKey, block: Block, end: bool) {
        let link = &self.links[client.link];
        let Kind::Client(listener) = &link.kind else { return };
        let (listener, reserved) = (Arc::clone(listener), link.reserved);
        let Head { request, label, timeout } = self.read_head(&listener, &block);
        let route = listener.router.route(&request);
        if let Some(gate) = listener.gate()
            && matches!(route, Route::Health(_) | Route::Reflection)
            && let Err(denied) = self.may_ask(&listener, client, &block)
        {
            let by = (gate, denied);
            return self.deny(&listener, client, block, &route, end, by);
        }
        if reserved && !is_brief(&route) {
            return self.turn_away_reserved(&listener, client, block, &label, end);
        }
        match route {
            Route::Forward => self.forward(&listener, client, block, end, label, timeout),
            Route::Health(Dialect::Http) => {
                listener.answered(Dialect::Http);
                let target = block.first(Role::Path).unwrap_or_default();
                let accept = block.first(Role::Accept);
                let response = listener.answers.http(&HttpCheck {
                    target: &String::from_utf8_lossy(&target),
                    named: matches!(request.path, Path::Named { .. }),
                    accept: accept.as_deref(),
                });
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
                self.erred(client.link);
            }
            Route::Refuse(Refusal::Grpc(status)) => {
                self.refuse(&listener, client, block, &label, end, &status);
            }
            Route::Health(dialect) => {
                listener.answered(dialect);
                self.begin_check(&listener, client, block, dialect, end);
            }
            Route::Reflection => self.begin_reflection(&listener, client, block, end),
        }
    }

    /// Opens a call, unless its listener turns it away or has no way for it.
    fn forward(
        &mut self,
        listener: &Arc<Listener>,
        client: StreamKey,
        mut block: Block,
        end: bool,
        label: Label,
        timeout: Option<u64>,
    ) {
        let admitted = match listener.gate() {
            Some(gate) => self.admit(listener, gate, client, &mut block),
            None => Ok(Holds::default()),
        };
        let holds = match admitted {
            Ok(holds) => holds,
            Err(status) => {
                return self.refuse(listener, client, block, &label, end, &status);
            }
        };
        let Some(way) = self.way(listener, &label, &block) else {
            let status = Status::new(Code::Unimplemented, "no route for this call");
            return self.refuse(listener, client, block, &label, end, &status);
        };
        let target = listener.ways[usize::from(way)].choose();
        let target = target.expect("a checked route has a weight over 0");
        listener.targets[usize::from(target)].streams.inc();
        let opening = Opening { new: true, ..Opening::new(block, end) };
        let key = self.new_call(listener, client, label, Peer::Opening(opening), end);
        let call = &mut self.calls[key.index as usize];
        (call.way, call.target, call.holds) = (way, target, holds);
        let connection = &mut self.links[client.link].connection;
        if let Some(timeout) = timeout {
            call.deadline = call.begun.saturating_add(timeout);
            // The head may have been longer on its way than the reset that follows it.
            let due = call.deadline.saturating_sub(EARLY.min(timeout / 4));
            connection.mark_until(client.stream, key.index, due);
        } else {
            connection.mark(client.stream, key.index);
        }
        let end = call.deadline.saturating_sub(AHEAD).max(call.begun);
        let look = (call.begun + listener.ways[usize::from(way)].look()).min(end);
        self.look_by(key.index, look);
        self.opening.push(key);
    }

    /// Turns a call away in gRPC's words.
    pub(super) fn refuse(
        &mut self,
        listener: &Arc<Listener>,
        client: StreamKey,
        block: Block,
        label: &Label,
        end: bool,
        status: &Status,
    ) {
        let refused = End::Refused(status.code);
        match label {
            Label::Path(path, _) => listener.ended(None, path, refused),
            Label::Known(method) => {
                listener.ended(None, self.methods[*method as usize].path(), refused);
            }
            Label::Health => {}
        }
        let local = Peer::Local(Local { asked: None, watch: None });
        let key = self.add_call(listener, client, Label::Health, local, end);
        self.fail(key.index, status);
        self.context.recycle(block);
        if is_clients_fault(status.code) {
            self.erred(client.link);
        }
    }

    /// Turns a health check away, in the words that it was asked in.
    fn deny(
        &mut self,
        listener: &Arc<Listener>,
        client: StreamKey,
        block: Block,
        route: &Route,
        end: bool,
        (gate, denied): (&Gate, Denied),
    ) {
        if *route != Route::Health(Dialect::Http) {
            return self.refuse(listener, client, block, &Label::Health, end, &denied.status());
        }
        let response = crate::answer::denial(gate.refusal(denied));
        self.plain(listener, client, &block, &response, end);
        self.context.recycle(block);
        self.erred(client.link);
    }

    /// The way that a call takes, which is known by its path alone in most cases.
    fn way(&self, listener: &Listener, label: &Label, block: &Block) -> Option<u16> {
        let value = |name: &str| block.only(name.as_bytes());
        match label {
            Label::Known(method) => {
                listener.way(self.methods[*method as usize].candidates(), value)
            }
            Label::Path(path, _) => listener.way(&listener.candidates(path), value),
            Label::Health => None,
        }
    }

    /// What a head comes to. What a field that repeats means is written down on it.
    fn read_head(&mut self, listener: &Listener, block: &Block) -> Head {
        let mut request =
            Request { verb: Verb::Other, path: Path::Other, grpc: false, fault: None };
        let mut label = Label::Path(Box::default(), None);
        let (mut content_types, mut timeouts, mut tes) = (0, 0, 0);
        let mut timeout = None;
        let (mut authority, mut hosts, mut lawful, mut scheme) = (false, 0, true, false);
        let mut plain = std::mem::take(&mut self.plain);
        for line in block.lines() {
            match line.name().role() {
                Role::Method => request.verb = Verb::of(line.text(&mut plain)),
                Role::Path => match &line {
                    Line::Known(field) => match self.method(field.note(), listener) {
                        Some(method) => {
                            request.path = Path::Method;
                            label = Label::Known(method);
                        }
                        None => {
                            request.path = listener.router.path(field.value());
                            label = Label::Path(field.value().into(), Some(Rc::clone(field)));
                        }
                    },
                    Line::Moving(_) => {
                        let path = line.text(&mut plain);
                        request.path = listener.router.path(path);
                        label = Label::Path(path.into(), None);
                    }
                },
                Role::ContentType => {
                    content_types += 1;
                    request.grpc = is_grpc(line.text(&mut plain));
                }
                Role::Te => tes += 1,
                Role::GrpcTimeout => {
                    timeouts += 1;
                    timeout = timeout::parse(line.text(&mut plain));
                }
                Role::Authority => {
                    authority = true;
                    lawful &= is_lawful(&line, &mut plain);
                }
                Role::Host => {
                    hosts += 1;
                    lawful &= is_lawful(&line, &mut plain);
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
        } else if timeouts > 0 && timeout.is_none() {
            Some(Fault::BadTimeout)
        } else {
            None
        };
        self.plain = plain;
        Head { request, label, timeout }
    }

    /// The one of this listener's methods that a path's note names.
    fn method(&self, note: u32, listener: &Listener) -> Option<u32> {
        let index = self.noted(note)?;
        self.methods.get(index as usize)?.is_of(listener).then_some(index)
    }

    /// A request whose head is over the limit.
    pub(super) fn too_large(&mut self, client: StreamKey, block: Block, end: bool) {
        let Kind::Client(listener) = &self.links[client.link].kind else { return };
        let listener = Arc::clone(listener);
        if block.first_is(Role::ContentType, is_grpc) {
            let local = Peer::Local(Local { asked: None, watch: None });
            let key = self.add_call(&listener, client, Label::Health, local, end);
            let (most, fields) =
                (listener.limits.max_header_list_size, listener.limits.max_header_fields);
            let words = format!("header list larger than the {most} or {fields} fields allowed");
            self.fail(key.index, &Status::new(Code::ResourceExhausted, words));
        } else {
            let status = http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            let response = crate::answer::refusal(status);
            self.plain(&listener, client, &block, &response, end);
        }
        self.context.recycle(block);
        self.erred(client.link);
    }
}

/// What a request's head comes to.
struct Head {
    request: Request,
    label: Label,
    /// How long its client waits, in milliseconds.
    timeout: Option<u64>,
}

/// Whether an authority is one, which of a field that repeats is written down on it.
fn is_lawful(line: &Line<'_>, plain: &mut Vec<u8>) -> bool {
    let Line::Known(field) = line else { return is_authority(line.text(plain)) };
    if field.note() == 0 {
        field.set_note(if is_authority(field.value()) { LAWFUL } else { UNLAWFUL });
    }
    field.note() == LAWFUL
}

/// How much earlier than its deadline a client may give a call up at most, in milliseconds.
const EARLY: u64 = 100;
const LAWFUL: u32 = 1;
const UNLAWFUL: u32 = 2;
