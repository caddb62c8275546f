//! What ends because of time: links that are idle, old, silent or stuck.

use std::{mem::replace, time::Duration};

use tokio::time::Instant;

use super::{cause::Cause, engine::Engine, link::Kind, millis, pings::Pings};
use crate::http2::frame::Reason;

impl Engine {
    /// Begins a turn: takes the time. A worker has a turn twenty times a second; where it had none for
    /// long, the process stood still, and that time is not counted: what peers sent meanwhile was
    /// not read yet, so that none of them was silent.
    pub(super) fn tick(&mut self) {
        let before = replace(&mut self.clock, Instant::now());
        let passed = self.clock.duration_since(before);
        if passed > STOOD_STILL {
            self.begun += passed;
        }
        let now = self.clock.duration_since(self.begun).as_millis();
        self.context.now = u64::try_from(now).unwrap_or(u64::MAX);
    }

    /// Asks a client's connection to end.
    pub(super) fn drain(&mut self, id: usize) {
        let now = self.context.now;
        if let Some(link) = self.links.get_mut(id) {
            link.drain(now);
            self.touch(id);
        }
    }

    /// Ends what is late, idle or old.
    pub(super) fn check_times(&mut self) {
        self.end_late();
        self.pump_held();
        self.leave_removed();
        self.end_doubts();
        self.given_up.tell();
        self.buffers.trim();
        self.replays.trim();
        self.trim_calls();
        let now = self.context.now;
        let (mut ready, mut leaving, mut suspects) = (Vec::new(), Vec::new(), Vec::new());
        for slot in self.links.next_slots(SLICE) {
            let Some((id, link)) = self.links.in_slot(slot) else { continue };
            if link.closing {
                // Nobody takes what is left to be said.
                if now > link.quiet_since + CLOSING {
                    link.abandon(Cause::Stalled);
                }
                continue;
            }
            let patience = match &link.kind {
                Kind::Client(listener) => millis(listener.limits.send_timeout),
                Kind::Endpoint(_) => self.patience,
            };
            if !link.blocked {
                link.moved_at = now;
            } else if now - link.moved_at >= patience {
                // Nobody reads; what waits is given up.
                link.abandon(Cause::Stalled);
                continue;
            }
            if link.is_full() {
                // It is this end that does not read on.
                link.connection.wait_anew(now);
            }
            let cut = link.connection.is_waiting_since();
            let cut = cut.map_or(0, |since| now.saturating_sub(since));
            let streams = link.connection.streams();
            if streams > 0 {
                link.quiet_since = now;
            }
            let quiet = now.saturating_sub(link.quiet_since);
            match &link.kind {
                Kind::Client(listener) => {
                    let limits = &listener.limits;
                    let patience = millis(limits.handshake_timeout);
                    let silent = !link.connection.is_settled() && quiet >= patience;
                    let stuck = cut >= millis(limits.frame_timeout);
                    // A client that does not answer says nothing of having heard it.
                    if link.draining && now.saturating_sub(link.old_at) >= patience {
                        link.connection.go_away(true, &mut link.out);
                    }
                    let pings = Pings::of_clients(limits);
                    let drained = link.draining
                        && streams == 0
                        && (link.connection.has_gone() || quiet >= patience);
                    if silent || stuck || drained {
                        if silent {
                            link.cause.get_or_insert(Cause::Unspoken);
                        } else if stuck {
                            link.cause.get_or_insert(Cause::Unfinished);
                        }
                        link.close(Reason::NO_ERROR);
                    } else if link.draining {
                        leaving.push(id);
                    } else if quiet >= millis(limits.first_request_timeout)
                        && !link.connection.has_asked()
                    {
                        link.cause.get_or_insert(Cause::Unasked);
                        link.close(Reason::NO_ERROR);
                    } else if quiet >= millis(limits.idle_timeout) || now >= link.old_at {
                        link.drain(now);
                    }
                    if streams == 0 {
                        link.heard_at = now;
                    } else {
                        pings.check(link, 0, now);
                    }
                }
                Kind::Endpoint(_) if cut >= self.frame_patience => {
                    link.cause.get_or_insert(Cause::Unfinished);
                    link.close(Reason::NO_ERROR);
                }
                Kind::Endpoint(_) if streams == 0 && link.draining => {
                    link.close(Reason::NO_ERROR);
                }
                Kind::Endpoint(at) => {
                    let lane = self.lanes.get(at);
                    let calm = lane.map_or(0, |lane| lane.pinged_too_often);
                    if lane.is_some_and(|lane| self.pings.judge(link, &lane.endpoint, now)) {
                        suspects.push(id);
                    }
                    if streams == 0 {
                        link.heard_at = now;
                    } else {
                        self.pings.check(link, calm, now);
                    }
                    let old = now >= link.old_at || link.connection.is_spent();
                    if old && !link.draining {
                        ready.push(id);
                    }
                }
            }
            if link.closing {
                link.quiet_since = now;
            }
            if !link.out.is_empty() && !link.dirty {
                link.dirty = true;
                self.dirty.push(id);
            }
        }
        suspects.into_iter().for_each(|id| self.suspect(id));
        for id in ready {
            self.retire(id, true);
        }
        for id in leaving {
            self.end_leaving(id);
        }
    }
}

/// Links that are looked at in one turn: all of a few thousand within a second, and none of them
/// holds up the others' calls.
const SLICE: usize = 512;
/// How long a closed link's last words may take, in milliseconds.
const CLOSING: u64 = 1000;
/// A worker without a turn for so long stood still.
const STOOD_STILL: Duration = Duration::from_secs(2);
