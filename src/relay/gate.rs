//! Whether a call may be forwarded, and for whom, as its listener asks.

use std::time::Duration;

use super::{
    Listener,
    call::{Holds, StreamKey},
    engine::Engine,
    quota::{Lack, Shed},
};
use crate::{
    auth::{Denied, Gate, Said},
    grpc::{Code, Status},
    http2::block::Block,
};

impl Engine {
    /// Asks a call who makes it, and writes down in its head for which tenant that is. What it
    /// holds from then on is returned.
    ///
    /// # Errors
    /// With what it is turned away, which is counted.
    pub(super) fn admit(
        &mut self,
        listener: &Listener,
        gate: &Gate,
        client: StreamKey,
        head: &mut Block,
    ) -> Result<Holds, Status> {
        let link = &self.links[client.link];
        let (client, peer, now) = (link.client.map(|it| it.ip()), &link.peer, self.clock);
        let shed = |whose, shed: Shed| {
            let (reason, words) = reason(whose, shed.lack);
            listener.refusals().denied(client, reason);
            // Each at another time, so that they do not all return at once.
            let retry_delay = Some(shed.wait + LATER.mul_f64(fastrand::f64()));
            Status { retry_delay, ..Status::new(Code::ResourceExhausted, words) }
        };
        let mut holds = Holds::default();
        // Before anything is proved: it bounds those who guess, too.
        let taken = listener.take_of_address(client, now);
        holds.add(taken.map_err(|it| shed(Whose::Address, it))?);
        let tenant = said(head, TENANT);
        let admitted = gate.admit(|| said(head, AUTHORIZATION), peer, &tenant);
        let admitted = admitted.map_err(|denied| {
            listener.refusals().denied(client, denied.label());
            denied.status()
        })?;
        if let Some(quota) = &listener.tenants {
            let tenant = match (&admitted, &tenant) {
                (Some(tenant), _) => tenant.as_bytes(),
                (None, Said::Once(tenant)) => tenant,
                (None, _) => b"",
            };
            let taken = quota.take(tenant, now);
            holds.add(taken.map_err(|it| shed(Whose::Tenant, it))?);
        }
        // Whatever it said, and however often, this is said instead.
        if let Some(tenant) = admitted {
            head.remove_named(TENANT);
            match self.context.fields.known(self.own.tenant(), tenant.as_bytes()) {
                Some(field) => head.push_known(&field),
                None => head.push_text(self.own.tenant(), tenant.as_bytes()),
            }
        }
        if let Some(client) = client.filter(|_| gate.tells_client()) {
            self.own.forwarded_for(client, head);
        }
        if !gate.forwards() {
            head.remove_named(AUTHORIZATION);
        }
        Ok(holds)
    }

    /// Whether a health check or a stream of reflection is answered.
    pub(super) fn may_ask(
        &self,
        listener: &Listener,
        client: StreamKey,
        head: &Block,
    ) -> Result<(), Denied> {
        let link = &self.links[client.link];
        let client = link.client.map(|it| it.ip());
        listener.lets_ask(client, || said(head, AUTHORIZATION), &link.peer)
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

/// Whose bound it is.
#[derive(Debug, Clone, Copy)]
enum Whose {
    Address,
    Tenant,
}

/// Why a call is shed: as metrics have it, and as its client is told.
fn reason(whose: Whose, lack: Lack) -> (&'static str, &'static str) {
    match (whose, lack) {
        (Whose::Address, Lack::Calls) => ("address_rate", "too many calls of this address"),
        (Whose::Address, Lack::Bytes) => ("address_bytes", "too many bytes of this address"),
        (Whose::Address, Lack::InFlight) => {
            ("address_in_flight", "too many calls of this address at a time")
        }
        (Whose::Tenant, Lack::Calls) => ("tenant_rate", "too many calls of this tenant"),
        (Whose::Tenant, Lack::Bytes) => ("tenant_bytes", "too many bytes of this tenant"),
        (Whose::Tenant, Lack::InFlight) => {
            ("tenant_in_flight", "too many calls of this tenant at a time")
        }
    }
}

const AUTHORIZATION: &[u8] = b"authorization";
/// How far apart calls that are shed at once may come back.
const LATER: Duration = Duration::from_secs(1);
const TENANT: &[u8] = b"x-scope-orgid";
