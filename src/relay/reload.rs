//! What changes under open connections when a new configuration is taken over.

use std::sync::Arc;

use super::{
    Listener, Relay,
    call::{Label, Peer},
    engine::Engine,
    link::Kind,
    times::Pings,
    turn::millis,
};
use crate::{config, http2::field::Role};

/// What new calls go by.
#[derive(Debug)]
pub struct Settings {
    /// All listeners.
    pub listeners: Vec<Arc<Listener>>,
    /// Of these, what concerns endpoints.
    pub limits: config::Limits,
}

impl Relay {
    /// Takes other settings over. Calls in flight go on by those that they began with, and so do
    /// the limits that a connection's first SETTINGS have told its peer.
    pub fn reload(&self, settings: Arc<Settings>) {
        self.turn(|engine| engine.reload(Arc::clone(&settings)));
        *self.settings().borrow_mut() = settings;
    }

    /// What is now the listener of this name; itself where it is not there any more.
    pub fn current(&self, listener: &Arc<Listener>) -> Arc<Listener> {
        Arc::clone(current(&self.settings().borrow(), listener))
    }
}

impl Engine {
    fn reload(&mut self, settings: Arc<Settings>) {
        for (_, link) in self.links.iter_mut() {
            if let Kind::Client(listener) = &mut link.kind {
                *listener = Arc::clone(current(&settings, listener));
                let session = link.session.as_ref();
                link.peer = listener.peer(session.and_then(|session| session.certificate()));
            }
        }
        self.forget_methods();
        let most = settings.limits.max_replay_size.as_u64();
        self.replays.set_most(usize::try_from(most).unwrap_or(usize::MAX));
        self.most_links = settings.limits.max_upstream_connections as usize;
        self.patience = millis(settings.limits.send_timeout);
        self.pings = Pings::new(&settings.limits);
        self.settings = Some(settings);
        let calls: Vec<_> = self.calls.iter().map(|(index, _)| index as u32).collect();
        calls.into_iter().for_each(|index| self.renew(index));
    }

    /// Has a call that no endpoint has go by the settings of now: those that it began with may know
    /// endpoints only that are no more.
    pub(super) fn renew(&mut self, index: u32) {
        let Some(settings) = &self.settings else { return };
        let call = &mut self.calls[index as usize];
        let listener = current(settings, &call.listener);
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

fn current<'a>(settings: &'a Settings, listener: &'a Arc<Listener>) -> &'a Arc<Listener> {
    settings.listeners.iter().find(|other| other.name == listener.name).unwrap_or(listener)
}

/// Bits of a note that say which method; above them is the epoch.
const METHOD: u32 = 11;
