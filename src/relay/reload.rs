//! What changes under open connections when a new configuration is taken over.

use std::sync::Arc;

use super::{
    Listener, Relay,
    call::{Label, Peer},
    engine::Engine,
    link::{Kind, Link},
    millis,
    pings::Pings,
    settings::Settings,
};
use crate::http2::field::Role;

impl Relay {
    /// Takes other settings over. Calls in flight go on by those that they began with, and so do
    /// the limits that a connection's first SETTINGS have told its peer.
    pub fn reload(&self, settings: Arc<Settings>) {
        self.turn(|engine| engine.reload(Arc::clone(&settings)));
        *self.settings().borrow_mut() = settings;
    }

    /// What is now the listener of this name; itself where it is not there any more.
    pub fn current(&self, listener: &Arc<Listener>) -> Arc<Listener> {
        Arc::clone(self.settings().borrow().current(listener))
    }
}

impl Engine {
    fn reload(&mut self, settings: Arc<Settings>) {
        for (id, link) in self.links.iter_mut() {
            link.reload(&settings, self.context.now);
            if !link.out.is_empty() && !link.dirty {
                link.dirty = true;
                self.dirty.push(id);
            }
        }
        self.forget_methods();
        let most = settings.limits.max_replay_size.as_u64();
        self.replays.set_most(usize::try_from(most).unwrap_or(usize::MAX));
        self.most_links = settings.limits.max_upstream_connections as usize;
        self.patience = millis(settings.limits.send_timeout);
        self.frame_patience = millis(settings.limits.frame_timeout);
        self.pings = Pings::of_endpoints(&settings.limits);
        self.buffered.set_bounds(&settings.limits);
        self.set_resets(&settings.limits);
        self.settings = Some(settings);
        let calls: Vec<_> = self.calls.iter().map(|(index, _)| index as u32).collect();
        calls.into_iter().for_each(|index| self.renew(index));
        // Before new calls come to where these are to wait now.
        self.place_all_queued();
    }

    /// Has a call that no endpoint has go by the settings of now: those that it began with may know
    /// endpoints only that are no more.
    pub(super) fn renew(&mut self, index: u32) {
        let Some(settings) = &self.settings else { return };
        let call = &mut self.calls[index as usize];
        let listener = settings.current(&call.listener);
        let Peer::Opening(opening) = &call.peer else { return };
        if Arc::ptr_eq(listener, &call.listener) {
            return;
        }
        let path = opening.head.first(Role::Path).unwrap_or_default();
        let value = |name: &str| opening.head.only(name.as_bytes());
        let way = listener.way(&listener.candidates(&path), value);
        let target = way.and_then(|way| listener.ways[usize::from(way)].choose());
        let (Some(way), Some(target)) = (way, target) else { return };
        call.listener.targets[usize::from(call.target)].streams.dec();
        call.listener = Arc::clone(listener);
        (call.way, call.target) = (way, target);
        call.listener.targets[usize::from(target)].streams.inc();
    }

    /// The methods of another configuration count for other upstreams. Calls in flight are counted
    /// by their paths instead, and what the table's fields say is of an epoch that is over.
    fn forget_methods(&mut self) {
        for (_, call) in &mut self.calls {
            match &mut call.label {
                Label::Known(method) => {
                    let path = self.methods[*method as usize].path().into();
                    call.label = Label::Path(path, None);
                }
                Label::Path(_, field) => *field = None,
                Label::Health => {}
            }
        }
        self.methods.clear();
        self.epoch = self.epoch.wrapping_add(1) & (u32::MAX >> METHOD);
    }

    /// What a field's note says of the method at `index`.
    pub(super) fn note_of(&self, index: usize) -> u32 {
        self.epoch << METHOD | (index as u32 + 1)
    }

    /// The index that a note has, where it is of this epoch.
    pub(super) fn noted(&self, note: u32) -> Option<u32> {
        let index = (note & ((1 << METHOD) - 1)).checked_sub(1)?;
        (note >> METHOD == self.epoch).then_some(index)
    }
}

impl Link {
    /// Has a client's new calls go by its listener as it is now. A client that would not be let in
    /// any more is asked to end.
    pub(super) fn reload(&mut self, settings: &Settings, now: u64) {
        let Kind::Client(listener) = &mut self.kind else { return };
        let before = std::mem::replace(listener, Arc::clone(settings.current(listener)));
        let certificate = self.session.as_ref().and_then(|session| session.certificate());
        self.peer = listener.peer(certificate);
        let (secured, certified) = (self.session.is_some(), certificate.is_some());
        if certified && !listener.trusts_as(&before) {
            // It is checked anew when it comes again, and not all come at once.
            let within = SOON.saturating_mul(u64::from(fastrand::u8(..))) / 256;
            self.old_at = self.old_at.min(now.saturating_add(within));
        }
        if !listener.keeps(self.client.map(|it| it.ip()), secured, certified) {
            self.drain(now);
        }
    }
}

/// How long connections stay at most whose certificates are to be checked by other files, in
/// milliseconds.
const SOON: u64 = 30_000;
/// Bits of a note that say which method; above them is the epoch.
const METHOD: u32 = 11;
