//! Endpoints that their upstream has no more: no new calls, and in time no trace of them.

use super::{
    engine::Engine,
    lane::{Lane, LaneKey},
    link::Kind,
};

impl Engine {
    /// Lets the calls on removed endpoints end, and then their connections; takes out their lanes
    /// when nothing is left that names them, since another endpoint may come to have the key.
    pub(super) fn leave_removed(&mut self) {
        let removed = self.lanes.iter().filter(|(_, lane)| lane.endpoint.is_removed());
        let removed: Vec<LaneKey> = removed.map(|(at, _)| *at).collect();
        for at in removed {
            self.turn_away(at);
            let links = self.lanes.get(&at).map(|lane| lane.links.clone()).unwrap_or_default();
            for id in links {
                self.retire(id, true);
            }
            // One without SETTINGS yet is in no list; it is retired when it has them.
            let is_its = |kind: &Kind| matches!(kind, Kind::Endpoint(of) if *of == at);
            let linked = self.links.iter().any(|(_, link)| is_its(&link.kind));
            let idle = |lane: &Lane| !lane.dialing && !lane.is_waited_for();
            if !linked && self.lanes.get(&at).is_some_and(idle) {
                self.lanes.remove(&at);
            }
        }
    }
}
