//! Calls that nobody can take, and clients that make no others.

use super::{call::Peer, cause::Cause, engine::Engine};
use crate::grpc::{Code, Status};

impl Engine {
    /// Counts a call that was turned away for what its client asked. A connection on which there
    /// are too many of these, and too few others, is asked to end; what is open on it goes on.
    pub(super) fn erred(&mut self, id: usize) {
        let now = self.context.now;
        let Some(link) = self.links.get_mut(id) else { return };
        if link.connection.err(now) || link.connection.has_gone() || link.closing {
            return;
        }
        link.cause.get_or_insert(Cause::Erring);
        link.drain(now);
        link.connection.dismiss(&mut link.out);
        self.touch(id);
    }

    /// Whether a call's head is larger than its endpoint takes, which has told so: then it is
    /// answered here. Some endpoints end the connection over it, with everybody's calls.
    pub(super) fn is_too_large_for(&mut self, index: u32, id: usize) -> bool {
        let most = self.links[id].connection.max_header_list();
        let call = &self.calls[index as usize];
        let Peer::Opening(opening) = &call.peer else { return false };
        let size = opening.head.size();
        if size <= most {
            return false;
        }
        let endpoint = opening.waits_for.as_ref().map(|waits_for| waits_for.endpoint().address());
        let endpoint = endpoint.map(|it| it.to_string()).unwrap_or_default();
        let words = format!(
            "the metadata of this call has {size} bytes, and its endpoint {endpoint} takes {most} \
             (SETTINGS_MAX_HEADER_LIST_SIZE)"
        );
        let client = self.links.get(call.client.link).and_then(|link| link.client);
        let refusals = call.listener.refusals();
        refusals.cut(client.map(|it| it.ip()), "endpoint_header_list_size", &words);
        self.fail(index, &Status::new(Code::ResourceExhausted, words));
        true
    }
}

/// Whether a status tells a client that what it asks is wrong, and not that there is no room for it.
pub(super) fn is_clients_fault(code: Code) -> bool {
    !matches!(code, Code::ResourceExhausted | Code::Unavailable)
}
