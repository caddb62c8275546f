//! Links that are gone, and what becomes of their calls.

use super::{
    call::Peer,
    cause::Cause,
    engine::Engine,
    link::{Kind, Link},
    replay::Again,
};
use crate::{
    http2::{connection::NONE, frame::Reason},
    net,
};

impl Engine {
    /// A link is gone. Its calls fail, each in its way. True where it was this end's choice, and
    /// the peer may still be reading.
    pub(super) fn remove_link(&mut self, id: usize) -> bool {
        let Some(mut link) = self.links.try_remove(id) else { return false };
        if let Some(session) = &mut link.session {
            session.close(&link.socket);
        }
        let peer = match link.kind {
            Kind::Client(_) => "client",
            Kind::Endpoint(_) => "endpoint",
        };
        let mut why = link.cause.unwrap_or(Cause::Closed).says(peer);
        self.tell_end(&link, &why);
        if let Some(reason) = link.told {
            why += &format!(", after GOAWAY {reason}");
        }
        let calls: Vec<u32> = link.connection.calls().filter(|call| *call != NONE).collect();
        match link.kind {
            Kind::Client(_) => {
                let address = link.client.map(|client| net::client(client.ip()));
                for index in calls {
                    let Some(call) = self.calls.get(index as usize) else { continue };
                    if call.client.link != id {
                        continue;
                    }
                    if let Some(address) = address.filter(|_| call.is_unfinished()) {
                        self.gave_up(address);
                    }
                    self.client_reset(index, Reason::CANCEL);
                }
            }
            Kind::Endpoint(at) => {
                // A connection that was told to end did so, or was counted then.
                let erred = link.told.filter(|reason| *reason != Reason::NO_ERROR);
                let mut fault = match link.told {
                    None => link.cause.unwrap_or(Cause::Closed).fault(),
                    Some(_) => None,
                };
                self.lane_lost(at, id, link.served, false);
                for index in calls {
                    let Some(call) = self.calls.get(index as usize) else { continue };
                    if let Peer::Endpoint(peer) = &call.peer
                        && peer.at.link == id
                    {
                        if !call.response.ended
                            && let Some(fault) = fault.take()
                        {
                            peer.in_flight.endpoint().fault(fault);
                        }
                        let unsent = link.taken() < peer.head_end;
                        match erred {
                            Some(_) if unsent => self.endpoint_lost(index, Again::Erred, &why),
                            Some(reason) if reason.blames() => self.poisonous(index, &why),
                            _ if unsent => self.endpoint_lost(index, Again::Unsent, &why),
                            _ => self.endpoint_lost(index, Again::Lost, &why),
                        }
                    }
                }
            }
        }
        link.cause.is_some_and(Cause::is_ours)
    }

    /// Counts and logs a link that ended for what its peer did.
    fn tell_end(&self, link: &Link, why: &str) {
        let Some(reason) = link.cause.and_then(Cause::blame) else { return };
        match &link.kind {
            Kind::Client(listener) => {
                listener.refusals().ended(link.client.map(|it| it.ip()), reason, why);
            }
            Kind::Endpoint(at) => {
                if let Some(lane) = self.lanes.get(at) {
                    let (upstream, endpoint) = (lane.upstream.name(), lane.endpoint.address());
                    self.given_up.add(upstream, endpoint, reason, why);
                }
            }
        }
    }
}
