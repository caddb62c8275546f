//! What the relay sends of its own, made once, and what it counts.

use std::{net::IpAddr, rc::Rc};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;

use super::Listener;
use crate::{
    grpc::{Code, Status},
    http2::{
        block::Block,
        field::{Field, Fields, Name},
    },
    metrics::Text,
    route::Candidates,
};

/// Fields of the relay's own responses.
#[derive(Debug)]
pub(super) struct Own {
    status: Rc<Name>,
    ok: Rc<Field>,
    grpc: Rc<Field>,
    codes: Vec<Rc<Field>>,
    message: Rc<Name>,
    details: Rc<Name>,
    text: Rc<Field>,
    json: Rc<Field>,
    no_store: Rc<Field>,
    allow: Rc<Field>,
    content_length: Rc<Name>,
    forwarded_for: Rc<Name>,
    tenant: Rc<Name>,
    challenge: Rc<Name>,
}

impl Own {
    pub(super) fn new(fields: &mut Fields) -> Self {
        let name = |fields: &mut Fields, name| Rc::clone(fields.own(name, "").name());
        Self {
            status: name(fields, ":status"),
            ok: fields.own(":status", "200"),
            grpc: fields.own("content-type", "application/grpc"),
            codes: Code::ALL
                .map(|code| fields.own("grpc-status", &(code as u8).to_string()))
                .to_vec(),
            message: name(fields, "grpc-message"),
            details: name(fields, "grpc-status-details-bin"),
            text: fields.own("content-type", "text/plain; charset=utf-8"),
            json: fields.own("content-type", "application/json"),
            no_store: fields.own("cache-control", "no-store"),
            allow: fields.own("allow", "GET, HEAD"),
            content_length: name(fields, "content-length"),
            forwarded_for: name(fields, "x-forwarded-for"),
            tenant: name(fields, "x-scope-orgid"),
            challenge: name(fields, "www-authenticate"),
        }
    }

    /// `:status` 200 and gRPC's content type.
    pub(super) fn grpc_head(&self, block: &mut Block) {
        block.push_known(&self.ok);
        block.push_known(&self.grpc);
    }

    /// grpc-status, grpc-message where there are words, and grpc-status-details-bin where a client
    /// should come back.
    pub(super) fn status(&self, status: &Status, block: &mut Block) {
        block.push_known(&self.codes[status.code as usize]);
        if !status.message.is_empty() {
            block.push_text(&self.message, status.encoded_message().as_bytes());
        }
        if let Some(details) = status.encoded_details() {
            block.push_text(&self.details, details.as_bytes());
        }
    }

    /// The name of the field that says for which tenant a call is.
    pub(super) fn tenant(&self) -> &Rc<Name> {
        &self.tenant
    }

    /// Tells an endpoint who the client is, and that alone: what the client says of it goes.
    pub(super) fn forwarded_for(&self, client: IpAddr, block: &mut Block) {
        block.remove_named(self.forwarded_for.plain());
        block.push_text(&self.forwarded_for, client.to_canonical().to_string().as_bytes());
    }

    /// The head of a response that is not gRPC's.
    pub(super) fn plain(&self, response: &http::Response<Bytes>, block: &mut Block) {
        block.push_text(&self.status, response.status().as_str().as_bytes());
        let json = response.headers().get(http::header::CONTENT_TYPE);
        block.push_known(match json.is_some_and(|it| it == "application/json") {
            true => &self.json,
            false => &self.text,
        });
        block.push_known(&self.no_store);
        if response.headers().contains_key(http::header::ALLOW) {
            block.push_known(&self.allow);
        }
        if let Some(challenge) = response.headers().get(http::header::WWW_AUTHENTICATE) {
            block.push_text(&self.challenge, challenge.as_bytes());
        }
        block.push_text(&self.content_length, response.body().len().to_string().as_bytes());
    }
}

/// A gRPC method of a listener that a backend is known to have, as it is counted.
#[derive(Debug)]
pub(super) struct Method {
    path: Box<[u8]>,
    listener: Text,
    candidates: Candidates,
    /// Calls that went well, by target.
    ok: Vec<Option<Counter>>,
}

impl Method {
    pub(super) fn new(path: &[u8], listener: &Listener) -> Self {
        Self {
            path: path.into(),
            listener: listener.name.clone(),
            candidates: listener.candidates(path),
            ok: vec![None; listener.targets.len()],
        }
    }

    /// Whether it is this listener's.
    pub(super) fn is_of(&self, listener: &Listener) -> bool {
        self.listener == listener.name
    }

    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The ways that its calls may take.
    pub(super) fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    /// Counts a call that went well, the common case.
    pub(super) fn ended_well(&mut self, listener: &Listener, target: u16) {
        let ok = &mut self.ok[usize::from(target)];
        let path = &self.path;
        ok.get_or_insert_with(|| listener.requests(Some(target), path, Code::Ok.name(), true))
            .inc();
    }
}
