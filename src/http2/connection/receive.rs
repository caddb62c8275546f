//! What the peer sends.

use super::{
    Assembling, Connection, Context, Event, Fatal, NONE, Reading, ReceiveWindow, Role, SendWindow,
    Stream, send::DRAIN,
};
use crate::http2::{
    block::{Block, Facts, Malformed},
    frame::{
        self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Head, PADDED,
        PING, PREFACE, PRIORITIZED, PRIORITY, PUSH_PROMISE, RST_STREAM, Reason, SETTINGS,
        WINDOW_UPDATE,
    },
    limits::Cheap,
};

type Outcome = Result<Option<Event>, Fatal>;

impl Connection {
    /// The next event in `input[*at..]`, moving `at` on; `None` when all of it was taken. Answers
    /// to the peer are appended to `out`.
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
        let outcome = self.advance(input, at, context, out);
        if let Err(Fatal(reason)) = outcome {
            frame::put_goaway(self.highest, reason, out);
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
                    let Some(padding) = input.get(*at) else { return Ok(None) };
                    *at += 1;
                    let padding = usize::from(*padding);
                    if padding >= head.length {
                        return Err(Fatal(Reason::PROTOCOL_ERROR));
                    }
                    self.begin_data(head, padding, context, out)?
                }
                Reading::Data { .. } => {
                    if *at == input.len() && !self.is_data_over() {
                        return Ok(None);
                    }
                    self.take_data(input, at, out)?
                }
                Reading::Frame => match self.whole_frame(input, at)? {
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
    fn whole_frame(&mut self, input: &[u8], at: &mut usize) -> Result<Frame, Fatal> {
        let rest = &input[*at..];
        if self.partial.is_empty() {
            if let Some(head) = rest.first_chunk() {
                let head = self.lawful(Head::parse(head))?;
                if head.kind == DATA {
                    *at += Head::SIZE;
                    return Ok(Frame::Data(head));
                }
                let start = *at + Head::SIZE;
                if rest.len() >= Head::SIZE + head.length {
                    *at = start + head.length;
                    return Ok(Frame::Inside(head, start));
                }
            }
            self.partial.extend_from_slice(rest);
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

    fn allow(&mut self, what: Cheap, now: u64) -> Result<(), Fatal> {
        match self.budget.allow(what, now) {
            true => Ok(()),
            false => Err(Fatal(Reason::ENHANCE_YOUR_CALM)),
        }
    }

    /// Whether a stream was opened at some time.
    fn is_idle(&self, id: u32) -> bool {
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
        if left == 0 && !end {
            self.allow(Cheap::Empty, context.now)?;
        }
        let fault = match self.streams.get_mut(&id) {
            Some(stream) if !stream.receiving => Some(Reason::STREAM_CLOSED),
            Some(stream) if !stream.headed => Some(Reason::PROTOCOL_ERROR),
            Some(stream) => match stream.receive.receive(head.length) {
                Ok(()) => None,
                Err(_) => Some(Reason::FLOW_CONTROL_ERROR),
            },
            None if self.role == Role::Client || self.reset.contains(&id) => None,
            None => {
                frame::put_reset(id, Reason::STREAM_CLOSED, out);
                self.forget(id);
                None
            }
        };
        let event = fault.and_then(|reason| self.fail(id, reason, out));
        let wanted = self.streams.contains_key(&id);
        self.reading = Reading::Data { stream: id, left, padding, end, wanted };
        // Nobody takes padding, nor what comes for a stream that is over.
        self.credit(id, if wanted { overhead } else { head.length }, out);
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
            self.credit(id, taken, out);
            return Ok(None);
        };
        let end = end && over;
        if let Some(expected) = &mut stream.expected {
            let short = end && *expected > taken as u64;
            match expected.checked_sub(taken as u64) {
                Some(rest) if !short => *expected = rest,
                _ => return Ok(self.fail(id, Reason::PROTOCOL_ERROR, out)),
            }
        }
        if taken == 0 && !end {
            return Ok(None);
        }
        let call = stream.call;
        if end {
            stream.receiving = false;
            self.settle(id);
        }
        Ok(Some(Event::Data { stream: id, call, start, stop, end }))
    }

    /// Answers an error of one stream, which is over by it (RFC 9113, 5.4.2).
    fn fail(&mut self, id: u32, reason: Reason, out: &mut Vec<u8>) -> Option<Event> {
        frame::put_reset(id, reason, out);
        self.forget(id);
        let stream = self.streams.remove(&id)?;
        Some(Event::Reset { stream: id, call: stream.call, reason })
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
            GOAWAY => self.goaway(head, payload),
            WINDOW_UPDATE => self.window_update(head, payload, context, out),
            PUSH_PROMISE => Err(Fatal(Reason::PROTOCOL_ERROR)),
            _ => self.allow(Cheap::Unknown, context.now).map(|()| None),
        }
    }

    fn headers(
        &mut self,
        head: Head,
        payload: &[u8],
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let broken = Fatal(Reason::PROTOCOL_ERROR);
        if head.stream == 0 {
            return Err(broken);
        }
        let mut fragment = payload;
        let mut padding = 0;
        if head.has(PADDED) {
            let (length, rest) = fragment.split_first().ok_or(Fatal(Reason::FRAME_SIZE_ERROR))?;
            (padding, fragment) = (usize::from(*length), rest);
        }
        let mut depends_on_itself = false;
        if head.has(PRIORITIZED) {
            let (dependency, rest) =
                fragment.split_first_chunk().ok_or(Fatal(Reason::FRAME_SIZE_ERROR))?;
            depends_on_itself = u32::from_be_bytes(*dependency) & frame::STREAM == head.stream;
            fragment = rest.get(1..).ok_or(Fatal(Reason::FRAME_SIZE_ERROR))?;
        }
        let length = fragment.len().checked_sub(padding).ok_or(broken)?;
        let fragment = &fragment[..length];
        let end = head.has(END_STREAM);
        if head.has(END_HEADERS) {
            return self.whole_block(head.stream, end, depends_on_itself, fragment, context, out);
        }
        self.assembling = Some(Assembling {
            stream: head.stream,
            end,
            depends_on_itself,
            frames: 1,
            since: context.now,
            bytes: fragment.to_vec(),
        });
        Ok(None)
    }

    fn continuation(
        &mut self,
        head: Head,
        payload: &[u8],
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Some(block) = self.assembling.as_mut().filter(|block| block.stream == head.stream)
        else {
            return Err(Fatal(Reason::PROTOCOL_ERROR));
        };
        block.frames += 1;
        block.bytes.extend_from_slice(payload);
        // Huffman makes a list no more than a few times smaller; what goes beyond it is no list
        // that would be taken.
        if block.bytes.len() > self.limits.header_list + super::DEFAULT_FRAME
            || block.frames > 2 + self.limits.header_list.div_ceil(super::DEFAULT_FRAME)
        {
            return Err(Fatal(Reason::ENHANCE_YOUR_CALM));
        }
        if !head.has(END_HEADERS) {
            return Ok(None);
        }
        let Some(whole) = self.assembling.take() else { return Ok(None) };
        let Assembling { stream, end, depends_on_itself, bytes, .. } = whole;
        self.whole_block(stream, end, depends_on_itself, &bytes, context, out)
    }

    /// A block is decoded in any case, since the table it changes is the connection's.
    fn whole_block(
        &mut self,
        id: u32,
        end: bool,
        depends_on_itself: bool,
        bytes: &[u8],
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let mut block = context.block();
        let (most, fields) = (self.limits.header_list, self.limits.header_fields);
        let mut too_large = false;
        let decoded = self.decoder.decode(bytes, &mut context.fields, |line| {
            if !too_large {
                block.push(line);
                too_large = block.size() > most || block.len() > fields;
            }
        });
        if decoded.is_err() {
            return Err(Fatal(Reason::COMPRESSION_ERROR));
        }
        let known = self.streams.contains_key(&id);
        if !known && self.role == Role::Server {
            if id.is_multiple_of(2) {
                return Err(Fatal(Reason::PROTOCOL_ERROR));
            }
            if id > self.highest {
                self.highest = id;
                self.budget.opened();
                return Ok(self.request(
                    id,
                    end,
                    depends_on_itself,
                    too_large,
                    block,
                    context,
                    out,
                ));
            }
        }
        if !known {
            context.recycle(block);
            return match self.role {
                Role::Client if self.is_idle(id) => Err(Fatal(Reason::PROTOCOL_ERROR)),
                Role::Client => Ok(None),
                Role::Server if self.reset.contains(&id) => Ok(None),
                Role::Server => Err(Fatal(Reason::STREAM_CLOSED)),
            };
        }
        if depends_on_itself {
            context.recycle(block);
            return Ok(self.fail(id, Reason::PROTOCOL_ERROR, out));
        }
        Ok(self.more(id, end, too_large, block, context, out))
    }

    /// A request's head.
    #[expect(clippy::too_many_arguments, reason = "what a head consists of")]
    fn request(
        &mut self,
        id: u32,
        end: bool,
        depends_on_itself: bool,
        too_large: bool,
        block: Block,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Option<Event> {
        // Above the last stream of our GOAWAY: not seen.
        if self.went.is_some_and(|last| id > last) {
            context.recycle(block);
            return None;
        }
        let refusal = if self.streams.len() >= self.limits.streams as usize {
            Some(Reason::REFUSED_STREAM)
        } else if depends_on_itself {
            Some(Reason::PROTOCOL_ERROR)
        } else {
            None
        };
        let facts = if too_large { Ok(Facts::default()) } else { block.check_request() };
        let facts = match (refusal, facts) {
            (None, Ok(facts))
                if !(end && facts.content_length.is_some_and(|length| length > 0)) =>
            {
                facts
            }
            (refusal, _) => {
                context.recycle(block);
                return self.fail(id, refusal.unwrap_or(Reason::PROTOCOL_ERROR), out);
            }
        };
        let stream = Stream {
            call: NONE,
            send: SendWindow::new(self.peer.window),
            receive: ReceiveWindow::new(self.limits.stream_window),
            receiving: !end,
            sending: true,
            headed: true,
            answered: false,
            expected: facts.content_length,
        };
        self.streams.insert(id, stream);
        if too_large {
            context.recycle(block);
            return Some(Event::TooLarge { stream: id });
        }
        Some(Event::Head { stream: id, call: NONE, block, status: 0, end })
    }

    /// A response's head, or trailers.
    fn more(
        &mut self,
        id: u32,
        end: bool,
        too_large: bool,
        block: Block,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Option<Event> {
        let stream = self.streams.get_mut(&id)?;
        let (call, headed) = (stream.call, stream.headed);
        let facts = match headed {
            _ if !stream.receiving => Err(Reason::STREAM_CLOSED),
            _ if too_large => Err(Reason::PROTOCOL_ERROR),
            false => block.check_response().map_err(|Malformed| Reason::PROTOCOL_ERROR),
            true if !end || stream.expected.is_some_and(|rest| rest > 0) => {
                Err(Reason::PROTOCOL_ERROR)
            }
            true => match block.check_trailers() {
                Ok(()) => Ok(Facts::default()),
                Err(Malformed) => Err(Reason::PROTOCOL_ERROR),
            },
        };
        let facts = match facts {
            Ok(facts) => facts,
            Err(reason) => {
                context.recycle(block);
                return self.fail(id, reason, out);
            }
        };
        if !headed && (100..200).contains(&facts.status) {
            context.recycle(block);
            // Informational ones are not passed on, and cannot end a response.
            return if end { self.fail(id, Reason::PROTOCOL_ERROR, out) } else { None };
        }
        stream.headed = true;
        if end {
            stream.receiving = false;
        } else if !headed {
            stream.expected = facts.content_length;
        }
        self.settle(id);
        Some(match headed {
            false => Event::Head { stream: id, call, block, status: facts.status, end },
            true => Event::Trailers { stream: id, call, block },
        })
    }

    fn priority(
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
        let Some(dependency) = payload.first_chunk().filter(|_| payload.len() == 5) else {
            return Ok(self.fail(head.stream, Reason::FRAME_SIZE_ERROR, out));
        };
        if u32::from_be_bytes(*dependency) & frame::STREAM == head.stream {
            return Ok(self.fail(head.stream, Reason::PROTOCOL_ERROR, out));
        }
        Ok(None)
    }

    fn rst_stream(&mut self, head: Head, payload: &[u8], context: &Context) -> Outcome {
        let code = word(payload)?;
        if head.stream == 0 || self.is_idle(head.stream) {
            return Err(Fatal(Reason::PROTOCOL_ERROR));
        }
        let Some(stream) = self.streams.remove(&head.stream) else { return Ok(None) };
        if !stream.answered {
            self.allow(Cheap::Reset, context.now)?;
        }
        Ok(Some(Event::Reset { stream: head.stream, call: stream.call, reason: Reason(code) }))
    }

    fn settings(
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
            return match (payload.is_empty(), self.settled) {
                (true, true) => Ok(None),
                (true, false) => Err(Fatal(Reason::PROTOCOL_ERROR)),
                (false, _) => Err(Fatal(Reason::FRAME_SIZE_ERROR)),
            };
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
            frame::MAX_FRAME_SIZE => match value {
                0x4000..=0xff_ffff => self.peer.frame = value as usize,
                _ => return Err(Fatal(Reason::PROTOCOL_ERROR)),
            },
            _ => {}
        }
        Ok(())
    }

    fn ping(
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
        if head.has(ACK) {
            if payload == DRAIN && self.went.is_none() && self.role == Role::Server {
                self.go_away(true, out);
            }
            return Ok(None);
        }
        self.allow(Cheap::Ping, context.now)?;
        frame::put_ping(ACK, payload, out);
        Ok(None)
    }

    fn goaway(&mut self, head: Head, payload: &[u8]) -> Outcome {
        if head.stream != 0 {
            return Err(Fatal(Reason::PROTOCOL_ERROR));
        }
        let (Some(last), Some(reason)) = (payload.get(..4), payload.get(4..8)) else {
            return Err(Fatal(Reason::FRAME_SIZE_ERROR));
        };
        let (last, reason) = (word(last)? & frame::STREAM, Reason(word(reason)?));
        self.told_to_go = Some(last);
        Ok(Some(Event::GoAway { last, reason }))
    }

    fn window_update(
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
            self.send.change(more).map_err(|_| Fatal(Reason::FLOW_CONTROL_ERROR))?;
            return Ok(Some(Event::Window { stream: 0, call: NONE }));
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

fn word(bytes: &[u8]) -> Result<u32, Fatal> {
    match bytes.try_into() {
        Ok(bytes) => Ok(u32::from_be_bytes(bytes)),
        Err(_) => Err(Fatal(Reason::FRAME_SIZE_ERROR)),
    }
}
