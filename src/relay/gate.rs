//! Whether a call may be forwarded, and for whom, as its listener asks.

use super::{Listener, call::StreamKey, engine::Engine};
use crate::{
    auth::{Denied, Gate, Said},
    http2::block::Block,
};

impl Engine {
    /// Asks a call who makes it, and writes down in its head for which tenant that is.
    ///
    /// # Errors
    /// Why it is turned away, which is counted.
    pub(super) fn admit(
        &mut self,
        listener: &Listener,
        gate: &Gate,
        client: StreamKey,
        head: &mut Block,
    ) -> Result<(), Denied> {
        let client = self.links[client.link].client;
        let (authorization, tenant) = (said(head, AUTHORIZATION), said(head, TENANT));
        match gate.admit(&authorization, &tenant) {
            // Whatever it said, and however often, this is said instead.
            Ok(Some(tenant)) => {
                head.remove_named(TENANT);
                match self.context.fields.known(self.own.tenant(), tenant.as_bytes()) {
                    Some(field) => head.push_known(&field),
                    None => head.push_text(self.own.tenant(), tenant.as_bytes()),
                }
            }
            Ok(None) => {}
            Err(denied) => {
                listener.denied(client, denied);
                return Err(denied);
            }
        }
        if let Some(client) = client.filter(|_| gate.tells_client()) {
            self.own.forwarded_for(client, head);
        }
        if !gate.forwards() {
            head.remove_named(AUTHORIZATION);
        }
        Ok(())
    }

    /// Whether a health check or a stream of reflection is answered.
    pub(super) fn may_ask(
        &self,
        listener: &Listener,
        gate: &Gate,
        client: StreamKey,
        head: &Block,
    ) -> Result<(), Denied> {
        let client = self.links[client.link].client;
        let answers = gate.answers(|| said(head, AUTHORIZATION));
        answers.inspect_err(|denied| listener.denied(client, *denied))
    }
}

/// What a head says under a name.
fn said(head: &Block, name: &[u8]) -> Said {
    match head.only(name) {
        Some(value) => Said::Once(value),
        None if head.lines().any(|line| line.name().plain() == name) => Said::Often,
        None => Said::Nothing,
    }
}

const AUTHORIZATION: &[u8] = b"authorization";
const TENANT: &[u8] = b"x-scope-orgid";
