//! Frames that carry neither heads nor payload.

use super::{
    Connection, Context, Event, Fatal, NONE, Outcome, Role, Stream,
    send::{DRAIN, WORTH},
};
use crate::http2::{
    frame::{self, ACK, Head, Reason},
    limits::Cheap,
};

impl Connection {
    pub(super) fn priority(
        &mut self,
        head: Head,
        payload: &[u8],
        context: &Context,
        out: &mut Vec<u8>,
    ) -> Outcome {
        if head.stream == 0 {
            return Err(Fatal(Reason::PROTOCOL_ERROR));
        }
        self.allow(Cheap::Priority, context.now)?;
        // An idle stream cannot be reset (RFC 9113, 6.4), so its error is the connection's.
        let idle = self.is_idle(head.stream);
        let Some(dependency) = payload.first_chunk().filter(|_| payload.len() == 5) else {
            if idle {
                return Err(Fatal(Reason::FRAME_SIZE_ERROR));
            }
            return Ok(self.fail(head.stream, Reason::FRAME_SIZE_ERROR, out));
        };
        if u32::from_be_bytes(*dependency) & frame::STREAM == head.stream {
            if idle {
                return Err(Fatal(Reason::PROTOCOL_ERROR));
            }
            return Ok(self.fail(head.stream, Reason::PROTOCOL_ERROR, out));
        }
        Ok(None)
    }

    pub(super) fn rst_stream(&mut self, head: Head, payload: &[u8], context: &Context) -> Outcome {
        let code = word(payload)?;
        if head.stream == 0 || self.is_idle(head.stream) {
            return Err(Fatal(Reason::PROTOCOL_ERROR));
        }
        // Counted before it is taken out: of a connection that ends by it, all streams are told.
        let counted = |stream: &Stream| !stream.answered && context.now < stream.due;
        if self.streams.get(&head.stream).is_some_and(counted) {
            self.allow(Cheap::Reset, context.now)?;
        }
        let Some(stream) = self.streams.remove(&head.stream) else {
            return self.allow(Cheap::Late, context.now).map(|()| None);
        };
        Ok(Some(Event::Reset { stream: head.stream, call: stream.call, reason: Reason(code) }))
    }

    pub(super) fn settings(
        &mut self,
        head: Head,
        payload: &[u8],
        context: &Context,
        out: &mut Vec<u8>,
    ) -> Outcome {
        if head.stream != 0 {
            return Err(Fatal(Reason::PROTOCOL_ERROR));
        }
        if head.has(ACK) {
            if !payload.is_empty() {
                return Err(Fatal(Reason::FRAME_SIZE_ERROR));
            }
            // Of SETTINGS that were not sent, as h2 and Go have it.
            if !self.settled || std::mem::replace(&mut self.acknowledged, true) {
                return Err(Fatal(Reason::PROTOCOL_ERROR));
            }
            return Ok(None);
        }
        if !payload.len().is_multiple_of(6) {
            return Err(Fatal(Reason::FRAME_SIZE_ERROR));
        }
        self.allow(Cheap::Settings, context.now)?;
        for pair in payload.chunks_exact(6) {
            let (id, value) = pair.split_at(2);
            self.setting(u16::from_be_bytes([id[0], id[1]]), word(value)?)?;
        }
        self.settled = true;
        frame::put_settings_ack(out);
        Ok(Some(Event::Settings))
    }

    fn setting(&mut self, id: u16, value: u32) -> Result<(), Fatal> {
        match id {
            frame::HEADER_TABLE_SIZE => self.encoder.resize(value as usize),
            frame::ENABLE_PUSH if value > 1 => return Err(Fatal(Reason::PROTOCOL_ERROR)),
            frame::MAX_CONCURRENT_STREAMS => self.peer.streams = value,
            frame::INITIAL_WINDOW_SIZE => {
                if value > frame::STREAM {
                    return Err(Fatal(Reason::FLOW_CONTROL_ERROR));
                }
                let by = i64::from(value) - i64::from(self.peer.window);
                self.peer.window = value;
                for stream in self.streams.values_mut() {
                    let changed = stream.send.change(by);
                    changed.map_err(|_| Fatal(Reason::FLOW_CONTROL_ERROR))?;
                }
            }
            frame::MAX_HEADER_LIST_SIZE => self.peer.header_list = value as usize,
            frame::MAX_FRAME_SIZE => match value {
                0x4000..=0xff_ffff => self.peer.frame = value as usize,
                _ => return Err(Fatal(Reason::PROTOCOL_ERROR)),
            },
            _ => {}
        }
        Ok(())
    }

    pub(super) fn ping(
        &mut self,
        head: Head,
        payload: &[u8],
        context: &Context,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Ok(payload) = <[u8; 8]>::try_from(payload) else {
            return Err(Fatal(Reason::FRAME_SIZE_ERROR));
        };
        if head.stream != 0 {
            return Err(Fatal(Reason::PROTOCOL_ERROR));
        }
        self.allow(Cheap::Ping, context.now)?;
        if head.has(ACK) {
            if payload == DRAIN && self.went.is_none() && self.role == Role::Server {
                self.go_away(true, out);
            }
            return Ok(None);
        }
        frame::put_ping(ACK, payload, out);
        Ok(None)
    }

    pub(super) fn goaway(&mut self, head: Head, payload: &[u8], context: &Context) -> Outcome {
        if head.stream != 0 {
            return Err(Fatal(Reason::PROTOCOL_ERROR));
        }
        let (Some(last), Some(reason)) = (payload.get(..4), payload.get(4..8)) else {
            return Err(Fatal(Reason::FRAME_SIZE_ERROR));
        };
        let (last, reason) = (word(last)? & frame::STREAM, Reason(word(reason)?));
        self.allow(Cheap::GoAway, context.now)?;
        self.told_to_go = Some(last);
        Ok(Some(Event::GoAway { last, reason }))
    }

    pub(super) fn window_update(
        &mut self,
        head: Head,
        payload: &[u8],
        context: &Context,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let more = i64::from(word(payload)? & frame::STREAM);
        if head.stream == 0 {
            self.allow(Cheap::WindowUpdate, context.now)?;
            if more == 0 {
                return Err(Fatal(Reason::PROTOCOL_ERROR));
            }
            let before = self.send.available();
            self.send.change(more).map_err(|_| Fatal(Reason::FLOW_CONTROL_ERROR))?;
            // Streams do not wait for a window that has room left for all of them.
            let worth = (before..self.send.available()).contains(&WORTH);
            return Ok(worth.then_some(Event::Window { stream: 0, call: NONE }));
        }
        if self.is_idle(head.stream) {
            return Err(Fatal(Reason::PROTOCOL_ERROR));
        }
        self.allow(Cheap::WindowUpdate, context.now)?;
        let Some(stream) = self.streams.get_mut(&head.stream) else { return Ok(None) };
        if more == 0 {
            return Ok(self.fail(head.stream, Reason::PROTOCOL_ERROR, out));
        }
        if stream.send.change(more).is_err() {
            return Ok(self.fail(head.stream, Reason::FLOW_CONTROL_ERROR, out));
        }
        Ok(Some(Event::Window { stream: head.stream, call: stream.call }))
    }
}

fn word(bytes: &[u8]) -> Result<u32, Fatal> {
    match bytes.try_into() {
        Ok(bytes) => Ok(u32::from_be_bytes(bytes)),
        Err(_) => Err(Fatal(Reason::FRAME_SIZE_ERROR)),
    }
}
