//! A request's head: what it comes to, and where it goes.

use std::{rc::Rc, sync::Arc};

use super::{
    End, Listener,
    call::{Label, Local, Opening, Peer, StreamKey},
    engine::Engine,
    link::Kind,
};
use crate::{
    answer::HttpCheck,
    grpc::{Code, Status, is_grpc},
    http2::{block::Block, field::Role, hpack::Line},
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
                    new: true,
                    first: 0..0,
                    waits_for: None,
                    tried: Vec::new(),
                    left: Vec::new(),
                    why: None,
                };
                let key = self.add_call(&listener, client, label, Peer::Opening(opening), end);
                self.opening.push(key);
            }
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
                self.begin_check(&listener, client, block, dialect, end);
            }
            Route::Reflection => self.begin_reflection(&listener, client, block, end),
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
                    request.grpc = is_grpc(line.text(&mut plain));
                }
                Role::Te => tes += 1,
                Role::GrpcTimeout => timeouts += 1,
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
    }
}

/// Whether an authority is one, which of a field that repeats is written down on it.
fn is_lawful(line: &Line<'_>, plain: &mut Vec<u8>) -> bool {
    let Line::Known(field) = line else { return is_authority(line.text(plain)) };
    if field.note() == 0 {
        field.set_note(if is_authority(field.value()) { LAWFUL } else { UNLAWFUL });
    }
    field.note() == LAWFUL
}

const LAWFUL: u32 = 1;
const UNLAWFUL: u32 = 2;
