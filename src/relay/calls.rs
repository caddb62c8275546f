//! A worker's calls: each at a place that the next one may have, told apart by its serial number.

use std::sync::Arc;

use super::{
    Listener,
    call::{Call, CallKey, Holds, Label, Peer, StreamKey},
    engine::Engine,
    flow::Flow,
    late::LOOK,
};

impl Engine {
    /// Adds a call, and marks its stream with it.
    pub(super) fn add_call(
        &mut self,
        listener: &Arc<Listener>,
        client: StreamKey,
        label: Label,
        peer: Peer,
        ended: bool,
    ) -> CallKey {
        let key = self.new_call(listener, client, label, peer, ended);
        self.links[client.link].connection.mark(client.stream, key.index);
        key
    }

    /// Adds a call, whose stream is to be marked with it.
    pub(super) fn new_call(
        &mut self,
        listener: &Arc<Listener>,
        client: StreamKey,
        label: Label,
        peer: Peer,
        ended: bool,
    ) -> CallKey {
        self.serials += 1;
        let serial = self.serials;
        let mut request = Flow::new(listener.max_message_size);
        request.ended = ended;
        let call = Call {
            serial,
            listener: Arc::clone(listener),
            client,
            started: self.clock,
            label,
            end: None,
            peer,
            request,
            response: Flow::new(listener.max_message_size),
            buffered: 0,
            answered: false,
            way: 0,
            target: 0,
            begun: self.context.now,
            deadline: u64::MAX,
            moved_at: self.context.now,
            retrying: None,
            holds: Holds::default(),
        };
        let index = self.calls.insert(call) as u32;
        let look = self.context.now + LOOK;
        match self.looks.get_mut(index as usize) {
            Some(place) => *place = look,
            None => self.looks.push(look),
        }
        CallKey { index, serial }
    }

    /// Gives back the room of calls that were many once.
    pub(super) fn trim_calls(&mut self) {
        let room = self.calls.capacity();
        if room > FEW && self.calls.len() < room / 4 {
            // Up to the last one that is there still.
            self.calls.shrink_to_fit();
            self.looks.truncate(self.calls.capacity());
            self.looks.shrink_to_fit();
        }
    }

    /// The call, if it is still there.
    pub(super) fn call(&mut self, key: CallKey) -> Option<&mut Call> {
        self.calls.get_mut(key.index as usize).filter(|call| call.serial == key.serial)
    }

    pub(super) fn key(&self, index: u32) -> CallKey {
        CallKey { index, serial: self.calls[index as usize].serial }
    }
}

/// Calls whose room is kept.
const FEW: usize = 256;
