//! Clients' connections that are idle, and the end of one that makes room for another.

use std::{cmp::Reverse, time::Duration};

use super::{
    Listener, Relay,
    cause::Cause,
    engine::Engine,
    link::{Kind, Link},
};
use crate::{http2::frame::Reason, metrics::Text};

/// How idle a connection is. The least of several is the first that makes room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Idle {
    /// It has asked something at some time.
    asked: bool,
    quiet: Reverse<Duration>,
}

impl Idle {
    /// A connection without a call for this long. None where it is not idle: it has come, or was
    /// asked something, a moment ago.
    pub fn new(asked: bool, quiet: Duration) -> Option<Self> {
        (quiet >= MOMENT).then_some(Self { asked, quiet: Reverse(quiet) })
    }

    /// A reserved connection, each of which gives way to a newer one.
    pub fn reserved(quiet: Duration) -> Self {
        Self { asked: false, quiet: Reverse(quiet) }
    }
}

/// Links as they may make room, the first one last.
#[derive(Debug)]
pub(super) struct IdleLinks {
    /// When they were looked for.
    at: u64,
    listener: Option<Text>,
    reserved: bool,
    /// With the time since when each is idle.
    links: Vec<(Idle, u64, usize)>,
}

impl Relay {
    /// The connection that is the first to make room, of this listener or of any, beyond those that
    /// it takes where `reserved`. It is ended where `end` says so.
    pub fn longest_idle(
        &self,
        listener: Option<&Listener>,
        reserved: bool,
        end: bool,
    ) -> Option<Idle> {
        self.turn(|engine| {
            let (idle, id) = engine.longest_idle(listener, reserved)?;
            if end {
                engine.end_idle(id);
            }
            Some(idle)
        })
    }
}

impl Engine {
    fn longest_idle(
        &mut self,
        listener: Option<&Listener>,
        reserved: bool,
    ) -> Option<(Idle, usize)> {
        // All links are looked at ten times a second at most, however many connections come.
        let looked = self.idle.take().filter(|idle| {
            self.context.now < idle.at + LOOK
                && idle.reserved == reserved
                && idle.listener.as_ref() == listener.map(|it| &it.name)
        });
        let looked = looked.unwrap_or_else(|| Box::new(self.look_for_idle(listener, reserved)));
        let looked = self.idle.insert(looked);
        while let Some((idle, since, id)) = looked.links.last() {
            let link = self.links.get(*id);
            if link.is_some_and(|it| !it.closing && (reserved || is_idle(it, *since))) {
                return Some((*idle, *id));
            }
            looked.links.pop();
        }
        None
    }

    fn look_for_idle(&self, listener: Option<&Listener>, reserved: bool) -> IdleLinks {
        let now = self.context.now;
        let links = self.links.iter().filter_map(|(id, link)| {
            let Kind::Client(own) = &link.kind else { return None };
            let other = listener.is_some_and(|it| !own.is_named_as(it));
            if other || link.reserved != reserved || link.closing {
                return None;
            }
            let busy = link.connection.streams() > 0;
            let quiet = Duration::from_millis(now.saturating_sub(link.quiet_since));
            let idle = match (reserved, busy) {
                (false, true) => None,
                (false, false) => Idle::new(link.connection.has_asked(), quiet),
                (true, _) => Some(Idle::reserved(quiet)),
            };
            Some((idle?, link.quiet_since, id))
        });
        let mut links: Vec<_> = links.collect();
        links.sort_unstable_by_key(|(idle, _, id)| Reverse((*idle, *id)));
        IdleLinks { at: now, listener: listener.map(|it| it.name.clone()), reserved, links }
    }

    /// Ends a link at once, without a wait for what its client may still say.
    fn end_idle(&mut self, id: usize) {
        let now = self.context.now;
        let Some(link) = self.links.get_mut(id) else { return };
        link.cause = Some(Cause::MadeRoom);
        link.close(Reason::NO_ERROR);
        if !link.blocked {
            link.write(now);
        }
        link.abandon(Cause::MadeRoom);
    }
}

fn is_idle(link: &Link, since: u64) -> bool {
    link.connection.streams() == 0 && link.quiet_since == since
}

/// How long a connection has for its first call, and between two, before it counts as idle.
const MOMENT: Duration = Duration::from_secs(1);
/// How long links that were found idle are gone through before they are looked for again, in
/// milliseconds.
const LOOK: u64 = 100;
