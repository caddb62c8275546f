//! What the peer sends.

use super::{Connection, Context, Event, Fatal, NONE, Outcome, Reading, Role};
use crate::http2::{
    frame::{
        self, CONTINUATION, DATA, END_STREAM, GOAWAY, HEADERS, Head, PADDED, PING, PREFACE,
        PRIORITY, PUSH_PROMISE, RST_STREAM, Reason, SETTINGS, WINDOW_UPDATE,
    },
    limits::Cheap,
};

impl Connection {
    /// The next event in `input[*at..]`, moving `at` on; `None` when all of it was taken, or as many
    /// frames as [`Context::frames`] admits. Answers to the peer are appended to `out`.
    ///
    /// # Errors
    /// The peer broke the protocol for good: GOAWAY was appended, and the connection must be
    /// closed when that is written.
    pub fn next(
        &mut self,
        input: &[u8],
        at: &mut usize,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Outcome {
        match self.over {
            // What comes after the end is not read: it may be anything.
            Some(fatal) => Err(fatal),
            None => self.advance_or_end(input, at, context, out),
        }
    }

    /// Apart, so that the outcome is made where the caller has it: it is large to copy.
    fn advance_or_end(
        &mut self,
        input: &[u8],
        at: &mut usize,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let outcome = self.advance(input, at, context, out);
        if let Err(Fatal(reason)) = outcome {
            self.over = Some(Fatal(reason));
            self.abort(reason, out);
        }
        outcome
    }

    fn advance(
        &mut self,
        input: &[u8],
        at: &mut usize,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Outcome {
        loop {
            if let Some(event) = match self.reading {
                Reading::Preface(seen) => {
                    let rest = &input[*at..];
                    let matched = rest.len().min(PREFACE.len() - seen);
                    if rest[..matched] != PREFACE[seen..seen + matched] {
                        return Err(Fatal(Reason::PROTOCOL_ERROR));
                    }
                    *at += matched;
                    if seen + matched < PREFACE.len() {
                        self.reading = Reading::Preface(seen + matched);
                        return Ok(None);
                    }
                    self.reading = Reading::Frame;
                    None
                }
                Reading::Padding(head) => {
                    let Some(padding) = input.get(*at) else {
                        self.cut_at = context.now;
                        return Ok(None);
                    };
                    *at += 1;
                    let padding = usize::from(*padding);
                    if padding >= head.length {
                        return Err(Fatal(Reason::PROTOCOL_ERROR));
                    }
                    self.begin_data(head, padding, context, out)?
                }
                Reading::Data { .. } => {
                    if *at == input.len() && !self.is_data_over() {
                        self.cut_at = context.now;
                        return Ok(None);
                    }
                    self.take_data(input, at, out)?
                }
                Reading::Frame if context.frames == 0 => return Ok(None),
                Reading::Frame => match self.whole_frame(input, at, context)? {
                    Frame::Cut => return Ok(None),
                    Frame::Data(head) => {
                        self.expect_no_block()?;
                        if head.has(PADDED) {
                            if head.length == 0 {
                                return Err(Fatal(Reason::FRAME_SIZE_ERROR));
                            }
                            self.reading = Reading::Padding(head);
                            None
                        } else {
                            self.begin_data(head, 0, context, out)?
                        }
                    }
                    Frame::Inside(head, start) => {
                        self.frame(head, &input[start..start + head.length], context, out)?
                    }
                    Frame::Kept(head) => {
                        let partial = std::mem::take(&mut self.partial);
                        let outcome = self.frame(head, &partial[Head::SIZE..], context, out);
                        self.partial = partial;
                        self.partial.clear();
                        outcome?
                    }
                },
            } {
                return Ok(Some(event));
            }
        }
    }

    /// Finds the next frame: in the input, or put together from what was kept of the last one.
    /// Of DATA only the head is taken.
    fn whole_frame(
        &mut self,
        input: &[u8],
        at: &mut usize,
        context: &mut Context,
    ) -> Result<Frame, Fatal> {
        let rest = &input[*at..];
        if self.partial.is_empty() {
            if let Some(head) = rest.first_chunk() {
                let head = self.lawful(Head::parse(head))?;
                if head.kind == DATA {
                    *at += Head::SIZE;
                    context.frames -= 1;
                    return Ok(Frame::Data(head));
                }
                let start = *at + Head::SIZE;
                if rest.len() >= Head::SIZE + head.length {
                    context.frames -= 1;
                    *at = start + head.length;
                    return Ok(Frame::Inside(head, start));
                }
            }
            self.partial.extend_from_slice(rest);
            self.cut_at = context.now;
            *at = input.len();
            return Ok(Frame::Cut);
        }
        let mut fill = |partial: &mut Vec<u8>, length: usize| {
            let more = length.saturating_sub(partial.len()).min(input.len() - *at);
            partial.extend_from_slice(&input[*at..*at + more]);
            *at += more;
            partial.len() >= length
        };
        if !fill(&mut self.partial, Head::SIZE) {
            return Ok(Frame::Cut);
        }
        let head = self.partial.first_chunk().expect("it has at least nine bytes");
        let head = self.lawful(Head::parse(head))?;
        if head.kind == DATA {
            self.partial.clear();
            return Ok(Frame::Data(head));
        }
        if fill(&mut self.partial, Head::SIZE + head.length) {
            Ok(Frame::Kept(head))
        } else {
            Ok(Frame::Cut)
        }
    }

    fn lawful(&self, head: Head) -> Result<Head, Fatal> {
        if head.length > super::DEFAULT_FRAME {
            return Err(Fatal(Reason::FRAME_SIZE_ERROR));
        }
        if self.overdrawn {
            return Err(Fatal(Reason::ENHANCE_YOUR_CALM));
        }
        // SETTINGS are the peer's preface.
        if !self.settled && head.kind != SETTINGS {
            return Err(Fatal(Reason::PROTOCOL_ERROR));
        }
        Ok(head)
    }

    fn expect_no_block(&self) -> Result<(), Fatal> {
        match self.assembling {
            Some(_) => Err(Fatal(Reason::PROTOCOL_ERROR)),
            None => Ok(()),
        }
    }

    pub(super) fn allow(&mut self, what: Cheap, now: u64) -> Result<(), Fatal> {
        match self.budget.allow(what, now) {
            true => Ok(()),
            false => Err(Fatal(Reason::ENHANCE_YOUR_CALM)),
        }
    }

    /// Whether a stream was opened at some time.
    pub(super) fn is_idle(&self, id: u32) -> bool {
        let own = (id % 2 == 1) == (self.role == Role::Client);
        if own { id >= self.next } else { id > self.highest }
    }

    fn begin_data(
        &mut self,
        head: Head,
        padding: usize,
        context: &Context,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let id = head.stream;
        if id == 0 || self.is_idle(id) {
            return Err(Fatal(Reason::PROTOCOL_ERROR));
        }
        self.receive.receive(head.length).map_err(|_| Fatal(Reason::FLOW_CONTROL_ERROR))?;
        let end = head.has(END_STREAM);
        let overhead = padding + usize::from(head.has(PADDED));
        let left = head.length - overhead;
        if left > 0 {
            self.budget.received();
        } else if !end {
            self.allow(Cheap::Empty, context.now)?;
        }
        let mut wanted = false;
        let fault = match self.streams.get_mut(&id) {
            Some(stream) if !stream.receiving => Some(Reason::STREAM_CLOSED),
            Some(stream) if !stream.headed => Some(Reason::PROTOCOL_ERROR),
            Some(stream) => match stream.receive.receive(head.length) {
                Ok(()) if stream.expects(left, end) => {
                    wanted = true;
                    None
                }
                Ok(()) => Some(Reason::PROTOCOL_ERROR),
                Err(_) => Some(Reason::FLOW_CONTROL_ERROR),
            },
            None => {
                let passed = self.role == Role::Client || self.is_forgotten(id);
                (!passed).then_some(Reason::STREAM_CLOSED)
            }
        };
        let event = fault.and_then(|reason| self.fail(id, reason, out));
        self.reading = Reading::Data { stream: id, left, padding, end, wanted };
        // Nobody takes padding, nor what comes for a stream that is over.
        self.credit(if wanted { overhead } else { head.length }, out);
        if overhead > 0 {
            self.credit_stream(id, overhead, 0, out);
        }
        Ok(event)
    }

    fn is_data_over(&self) -> bool {
        matches!(self.reading, Reading::Data { left: 0, padding: 0, .. })
    }

    fn take_data(&mut self, input: &[u8], at: &mut usize, out: &mut Vec<u8>) -> Outcome {
        let Reading::Data { stream: id, left, padding, end, wanted } = self.reading else {
            return Ok(None);
        };
        let start = *at;
        let stop = start + left.min(input.len() - start);
        let (taken, left) = (stop - start, left - (stop - start));
        let skipped = if left == 0 { padding.min(input.len() - stop) } else { 0 };
        let padding = padding - skipped;
        *at = stop + skipped;
        let over = left == 0 && padding == 0;
        self.reading = match over {
            true => Reading::Frame,
            false => Reading::Data { stream: id, left, padding, end, wanted },
        };
        if !wanted {
            return Ok(None);
        }
        // Reset meanwhile, between two parts of one frame: the rest is nobody's.
        let Some(stream) = self.streams.get_mut(&id) else {
            self.credit(taken, out);
            return Ok(None);
        };
        let end = end && over;
        if taken == 0 && !end {
            return Ok(None);
        }
        let call = stream.call;
        if end {
            stream.receiving = false;
            if !stream.sending {
                self.streams.remove(&id);
            }
        }
        Ok(Some(Event::Data { stream: id, call, start, stop, end }))
    }

    /// Answers an error of one stream, which is over by it (RFC 9113, 5.4.2).
    pub(super) fn fail(&mut self, id: u32, reason: Reason, out: &mut Vec<u8>) -> Option<Event> {
        self.overdrawn |= reason != Reason::REFUSED_STREAM && !self.budget.allow(Cheap::Fault, 0);
        frame::put_reset(id, reason, out);
        self.forget(id);
        let call = self.streams.remove(&id).map_or(NONE, |stream| stream.call);
        // Who opens too many streams may not have heard yet how many there may be.
        let broken = reason != Reason::REFUSED_STREAM;
        broken.then_some(Event::Broken { stream: id, call, reason })
    }

    fn frame(
        &mut self,
        head: Head,
        payload: &[u8],
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Outcome {
        if head.kind == CONTINUATION {
            return self.continuation(head, payload, context, out);
        }
        self.expect_no_block()?;
        match head.kind {
            HEADERS => self.headers(head, payload, context, out),
            PRIORITY => self.priority(head, payload, context, out),
            RST_STREAM => self.rst_stream(head, payload, context),
            SETTINGS => self.settings(head, payload, context, out),
            PING => self.ping(head, payload, context, out),
            GOAWAY => self.goaway(head, payload, context),
            WINDOW_UPDATE => self.window_update(head, payload, context, out),
            PUSH_PROMISE => Err(Fatal(Reason::PROTOCOL_ERROR)),
            _ => self.allow(Cheap::Unknown, context.now).map(|()| None),
        }
    }
}

/// Where a frame is.
enum Frame {
    /// Not all of it has come.
    Cut,
    /// A DATA frame, whose payload is taken as it comes.
    Data(Head),
    /// Its payload is in the input, from there.
    Inside(Head, usize),
    /// All of it is in `partial`.
    Kept(Head),
}
