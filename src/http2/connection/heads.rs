//! Header blocks that the peer sends: heads that open streams, heads that answer, trailers.

use super::{
    Assembling, Connection, Context, Event, Fatal, NONE, Outcome, ReceiveWindow, Role, SendWindow,
    Stream,
};
use crate::http2::{
    block::{Block, Facts, Malformed},
    frame::{self, END_HEADERS, END_STREAM, Head, PADDED, PRIORITIZED, Reason},
    limits::Cheap,
};

impl Connection {
    pub(super) fn headers(
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

    pub(super) fn continuation(
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
        let most = match self.role {
            Role::Server => self.limits.header_list + super::DEFAULT_FRAME,
            // Other clients' calls are on this connection, too.
            Role::Client => ENDPOINT_BLOCK + super::DEFAULT_FRAME,
        };
        if block.bytes.len() > most || block.frames > self.limits.header_frames {
            self.budget.exceed("header_frames");
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
        let decoded = self.decoder.decode_while(bytes, &mut context.fields, |line| {
            block.push(line);
            too_large = block.size() > most || block.len() > fields;
            !too_large
        });
        if decoded.is_err() {
            return Err(Fatal(Reason::COMPRESSION_ERROR));
        }
        block.fit();
        if self.role == Role::Server && !self.streams.contains_key(&id) {
            if id.is_multiple_of(2) {
                return Err(Fatal(Reason::PROTOCOL_ERROR));
            }
            if id > self.highest {
                self.highest = id;
                // Above the last stream of our GOAWAY: not seen.
                if self.went.is_some_and(|last| id > last) {
                    context.recycle(block);
                    self.allow(Cheap::Unseen, context.now)?;
                    return Ok(None);
                }
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
            context.recycle(block);
            return match self.is_forgotten(id) {
                true => Ok(None),
                false => Err(Fatal(Reason::STREAM_CLOSED)),
            };
        }
        if depends_on_itself && self.streams.contains_key(&id) {
            context.recycle(block);
            return Ok(self.fail(id, Reason::PROTOCOL_ERROR, out));
        }
        self.more(id, end, too_large, block, context, out)
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
            due: u64::MAX,
        };
        self.streams.insert(id, stream);
        if too_large {
            return Some(Event::TooLarge { stream: id, block, end });
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
    ) -> Outcome {
        let Some(stream) = self.streams.get_mut(&id) else {
            context.recycle(block);
            return match self.is_idle(id) {
                true => Err(Fatal(Reason::PROTOCOL_ERROR)),
                // It was reset here.
                false => Ok(None),
            };
        };
        let (call, headed) = (stream.call, stream.headed);
        if too_large && stream.receiving && self.role == Role::Client {
            let fields = block.size() <= self.limits.header_list;
            context.recycle(block);
            if end && !stream.sending {
                self.streams.remove(&id);
            } else {
                self.reset(id, Reason::CANCEL, out);
            }
            return Ok(Some(Event::Overlong { stream: id, call, trailers: headed, fields }));
        }
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
                return Ok(self.fail(id, reason, out));
            }
        };
        if !headed && (100..200).contains(&facts.status) {
            context.recycle(block);
            self.overdrawn |= !self.budget.allow(Cheap::Interim, context.now);
            // Informational ones are not passed on, and cannot end a response.
            return Ok(if end { self.fail(id, Reason::PROTOCOL_ERROR, out) } else { None });
        }
        stream.headed = true;
        if end {
            stream.receiving = false;
            if !stream.sending {
                self.streams.remove(&id);
            }
        } else if !headed {
            stream.expected = facts.content_length;
        }
        Ok(Some(match headed {
            false => Event::Head { stream: id, call, block, status: facts.status, end },
            true => Event::Trailers { stream: id, call, block },
        }))
    }
}

/// The largest header block of an endpoint that is decoded, be it over the limit or not, in bytes.
const ENDPOINT_BLOCK: usize = 1 << 20;
