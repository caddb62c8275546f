//! Lanes that nobody needs any more: no new calls, and in time no trace of them.

use std::collections::HashSet;

use super::{engine::Engine, lane::LaneKey, link::Kind};
use crate::http2::identity::ByIdentity;

impl Engine {
    /// Lets the calls on lanes of removed endpoints end, and then their connections, and so those of
    /// lanes that were for one client which is gone; takes out the lanes when nothing is left that
    /// names them, since another endpoint may come to have the key.
    pub(super) fn leave_removed(&mut self) {
        let removed = self
            .lanes
            .iter()
            .filter(|(at, lane)| lane.endpoint.is_removed() || !self.is_for_somebody(**at));
        let removed: Vec<LaneKey> = removed.map(|(at, _)| *at).collect();
        if removed.is_empty() {
            return;
        }
        for at in &removed {
            self.turn_away(*at);
            let links = self.lanes.get(at).map(|lane| lane.links.clone()).unwrap_or_default();
            for id in links {
                self.retire(id, true);
            }
        }
        // One without SETTINGS yet is in no list; it is retired when it has them.
        let linked = self.links.iter().filter_map(|(_, link)| match link.kind {
            Kind::Endpoint(at) => Some(at),
            Kind::Client(_) => None,
        });
        let linked: HashSet<LaneKey, ByIdentity> = linked.collect();
        for at in removed {
            if !linked.contains(&at)
                && self.lanes.get(&at).is_some_and(|lane| !lane.dialing && !lane.is_waited_for())
            {
                self.lanes.remove(&at);
            }
        }
    }

    /// Whether the client is there that a lane is for, where it is for one alone.
    pub(super) fn is_for_somebody(&self, at: LaneKey) -> bool {
        at.client().is_none_or(|client| self.links.contains(client))
    }
}
