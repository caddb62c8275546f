//! Payload on its way: from one link to another as far as each takes it, and credit back.

use super::{
    call::{CallKey, Peer, StreamKey},
    engine::Engine,
    flow::Flow,
    link::{Direction, Link},
    payload::Payload,
};
use crate::http2::connection::Context;

impl Engine {
    /// Moves payload of one direction, new or queued, as far as its receiver takes it.
    /// `payload` comes after what is queued.
    pub(super) fn push(&mut self, index: u32, direction: Direction, payload: Payload<'_>) {
        let now = self.context.now;
        let call = &mut self.calls[index as usize];
        let mut none = None;
        let (to, from, replay) = match (&mut call.peer, direction) {
            (Peer::Endpoint(peer), Direction::Request) => {
                (peer.at, Some(call.client), &mut peer.replay)
            }
            (Peer::Endpoint(peer), Direction::Response) => (call.client, Some(peer.at), &mut none),
            (_, Direction::Response) => (call.client, None, &mut none),
            // Without a stream to send it on, it waits.
            (_, Direction::Request) => {
                call.request.push(payload.bytes(), 0, now);
                return self.account(index);
            }
        };
        let flow = match direction {
            Direction::Request => &mut call.request,
            Direction::Response => &mut call.response,
        };
        // Where the endpoint is gone, its whole response is still on its way.
        let Some(link) = self.links.get_mut(to.link) else { return };
        self.buffers.supply(&mut link.out);
        let mut taken = 0;
        let crumbs = direction == Direction::Request && flow.is_crumbs(payload.len(), now);
        let room = |link: &Link, wanted| match crumbs && !link.pressed {
            true => 0,
            false => link.room_on(to.stream, wanted),
        };
        // An end goes with the last bytes, unless more follows.
        let ends = |flow: &Flow, rest: usize| {
            flow.ended && flow.trailers.is_none() && flow.reset.is_none() && rest == 0
        };
        let queued = flow.queued().len();
        let part = if queued > 0 { room(link, queued) } else { 0 };
        if part > 0 {
            let rest = queued - part + payload.len();
            let (end, more) = (ends(flow, rest), rest.saturating_add(flow.to_come()));
            let bytes = &flow.queued()[..part];
            link.connection.data(to.stream, bytes, end, &mut link.out);
            self.replays.keep(replay, bytes, more, &mut self.context);
            flow.done |= end;
            flow.sent(part, now);
            taken += flow.pop(part, now);
        }
        let mut passed = 0;
        if flow.queued().is_empty() && !payload.is_empty() {
            passed = room(link, payload.len());
            if passed > 0 {
                let end = ends(flow, payload.len() - passed);
                let (first, others) = payload.split_at(passed);
                let more = others.len().saturating_add(flow.to_come());
                self.replays.keep(replay, first.bytes(), more, &mut self.context);
                if link.send(to.stream, first, end) {
                    self.sending.push(to.link);
                }
                flow.done |= end;
                flow.sent(passed, now);
                taken += passed;
            }
        }
        if passed < payload.len() {
            flow.push(payload.bytes(), passed, now);
        }
        flow.bytes += taken as u64;
        if taken > 0 || !payload.is_empty() {
            call.moved_at = now;
        }
        let key = CallKey { index, serial: call.serial };
        if !flow.queued().is_empty() && !link.held && link.connection.capacity(to.stream) > 0 {
            link.held = true;
            self.held.push(to.link);
        }
        let waits = queued > 0 || passed < payload.len();
        wait_or_end(flow, link, to.stream, (key, direction), &mut self.context);
        if !link.dirty {
            self.touch(to.link);
        }
        if waits {
            self.account(index);
        }
        if let Some(from) = from
            && taken > 0
        {
            self.credit_stream(from, to.link, taken);
        }
        if direction == Direction::Response && self.calls[index as usize].response.done {
            self.finish(index);
        }
    }

    /// Gives bytes back to a stream's sender, whose receiver took them.
    fn credit_stream(&mut self, from: StreamKey, to: usize, bytes: usize) {
        let window = self.links.get(to).map_or(0, |to| self.buffered.stream_window(to));
        let Some(link) = self.links.get_mut(from.link) else { return };
        link.connection.credit_stream(from.stream, bytes, window, &mut link.out);
        if !link.dirty && !link.out.is_empty() {
            self.touch(from.link);
        }
    }

    /// Tries again what waits for one stream of a link, of which more may be sent.
    pub(super) fn pump_stream(&mut self, id: usize, index: u32) {
        let Some(call) = self.calls.get(index as usize) else { return };
        let (direction, flow) = match call.client.link == id {
            true => (Direction::Response, &call.response),
            false => (Direction::Request, &call.request),
        };
        if flow.waits {
            self.push(index, direction, Payload::NONE);
        }
    }

    /// Sends what was held back, however little may be sent of it: more may never come.
    pub(super) fn pump_held(&mut self) {
        for id in std::mem::take(&mut self.held) {
            let Some(link) = self.links.get_mut(id) else { continue };
            (link.held, link.pressed) = (false, true);
            self.pump_waiting(id);
            if let Some(link) = self.links.get_mut(id) {
                link.pressed = false;
            }
        }
    }

    /// Tries again what waits for a link.
    pub(super) fn pump_waiting(&mut self, id: usize) {
        let Some(link) = self.links.get_mut(id) else { return };
        // One that closes has said its last, and would be touched again and again.
        if link.closing {
            return;
        }
        for _ in 0..link.waiting.len() {
            let Some(link) = self.links.get_mut(id) else { return };
            if link.room() == 0 {
                return;
            }
            let Some((key, direction)) = link.waiting.pop_front() else { return };
            let Some(call) = self.call(key) else { continue };
            match direction {
                Direction::Request => call.request.waits = false,
                Direction::Response => call.response.waits = false,
            }
            self.push(key.index, direction, Payload::NONE);
        }
    }
}

/// Lets what a link did not take wait for it; where nothing is left, sends the end that is due.
fn wait_or_end(
    flow: &mut Flow,
    link: &mut Link,
    stream: u32,
    waiting: (CallKey, Direction),
    context: &mut Context,
) {
    if !flow.queued().is_empty() {
        if !std::mem::replace(&mut flow.waits, true) {
            link.waiting.push_back(waiting);
        }
    } else if flow.ended && !flow.done {
        flow.done = true;
        match (flow.reset.take(), flow.trailers.take()) {
            (Some(reason), _) => link.connection.reset(stream, reason, &mut link.out),
            (None, Some(block)) => {
                link.connection.block(stream, &block, true, &mut link.out);
                context.recycle(block);
            }
            (None, None) => link.connection.data(stream, &[], true, &mut link.out),
        }
    }
}
