//! HPACK (RFC 7541) as the clients that are played write it, and as the checks need it read.
//!
//! The encoder keeps no strings. A field that was put into the dynamic table remembers at which
//! insertion, so that a look-up is one comparison and the load costs little beside the proxy.

use std::collections::VecDeque;

use loona_hpack::Decoder;

use crate::frame::Fault;

/// The Huffman code (RFC 7541, appendix B) of the printable characters from space to `~`, and
/// how many bits each has. Nothing else is sent.
const CODES: [u32; 95] = [
    0x14, 0x3f8, 0x3f9, 0xffa, 0x1ff9, 0x15, 0xf8, 0x7fa, 0x3fa, 0x3fb, 0xf9, 0x7fb, 0xfa, 0x16,
    0x17, 0x18, 0x0, 0x1, 0x2, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x5c, 0xfb, 0x7ffc, 0x20,
    0xffb, 0x3fc, 0x1ffa, 0x21, 0x5d, 0x5e, 0x5f, 0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67,
    0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f, 0x70, 0x71, 0x72, 0xfc, 0x73, 0xfd, 0x1ffb,
    0x7fff0, 0x1ffc, 0x3ffc, 0x22, 0x7ffd, 0x3, 0x23, 0x4, 0x24, 0x5, 0x25, 0x26, 0x27, 0x6, 0x74,
    0x75, 0x28, 0x29, 0x2a, 0x7, 0x2b, 0x76, 0x2c, 0x8, 0x9, 0x2d, 0x77, 0x78, 0x79, 0x7a, 0x7b,
    0x7ffe, 0x7fc, 0x3ffd, 0x1ffd,
];
const BITS: [u8; 95] = [
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15,
    6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8,
    13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7,
    7, 7, 15, 11, 14, 13,
];

/// Entries of the static table (RFC 7541, appendix A); the dynamic one begins after them.
const STATIC: u64 = 61;
/// What the decoder of a peer grants unless its SETTINGS say otherwise, in bytes.
const TABLE: usize = 4096;

/// Appends an integer whose first byte shares its upper bits with `mark`.
pub(crate) fn integer(out: &mut Vec<u8>, mark: u8, prefix: u8, value: u64) {
    let most = (1u64 << prefix) - 1;
    if value < most {
        out.push(mark | value as u8);
        return;
    }
    out.push(mark | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a string with its length, by Huffman where asked and shorter, as Go decides it.
pub(crate) fn string(out: &mut Vec<u8>, text: &[u8], huffman: bool) {
    let symbol = |byte: &u8| usize::from(byte.wrapping_sub(b' ')).min(94);
    if huffman {
        let bits: usize = text.iter().map(|byte| usize::from(BITS[symbol(byte)])).sum();
        let bytes = bits.div_ceil(8);
        if bytes < text.len() {
            integer(out, 0x80, 7, bytes as u64);
            let (mut held, mut count) = (0u64, 0);
            for byte in text {
                let bits = BITS[symbol(byte)];
                held = held << bits | u64::from(CODES[symbol(byte)]);
                count += bits;
                while count >= 8 {
                    count -= 8;
                    out.push((held >> count) as u8);
                }
            }
            if count > 0 {
                // The end is padded with ones.
                out.push((held << (8 - count)) as u8 | 0xff >> count);
            }
            return;
        }
    }
    integer(out, 0, 7, text.len() as u64);
    out.extend_from_slice(text);
}

/// The number of an insertion into a connection's dynamic table.
pub(crate) type Insertion = u64;

/// A connection's dynamic table, as the sizes of its entries.
#[derive(Debug)]
pub(crate) struct Encoder {
    sizes: VecDeque<usize>,
    used: usize,
    limit: usize,
    /// Insertions so far.
    inserted: Insertion,
    /// A smaller table that the peer must be told of.
    update: Option<usize>,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { sizes: VecDeque::new(), used: 0, limit: TABLE, inserted: 0, update: None }
    }

    /// What the peer's SETTINGS_HEADER_TABLE_SIZE asks for. More than the default is not used, as
    /// grpc-go and grpc-java do not.
    pub(crate) fn resize(&mut self, table: u32) {
        let limit = (table as usize).min(TABLE);
        if limit != self.limit {
            self.limit = limit;
            self.update = Some(limit);
            self.evict(0);
        }
    }

    /// Opens a header block.
    pub(crate) fn open(&mut self, out: &mut Vec<u8>) {
        if let Some(limit) = self.update.take() {
            integer(out, 0x20, 5, limit as u64);
        }
    }

    /// The index by which an insertion is named now, if it is still in the table.
    pub(crate) fn index(&self, insertion: Insertion) -> Option<u64> {
        let age = self.inserted - insertion;
        (age < self.sizes.len() as u64).then_some(STATIC + 1 + age)
    }

    /// Takes an entry in; `None` where the table is too small for it.
    pub(crate) fn insert(&mut self, name: usize, value: usize) -> Option<Insertion> {
        let size = name + value + 32;
        self.evict(size);
        if size > self.limit {
            return None;
        }
        self.sizes.push_back(size);
        self.used += size;
        self.inserted += 1;
        Some(self.inserted)
    }

    /// Whether an entry of this size has a place, once others gave way.
    pub(crate) fn takes(&self, name: usize, value: usize) -> bool {
        name + value + 32 <= self.limit
    }

    fn evict(&mut self, room: usize) {
        while self.used + room > self.limit {
            let Some(size) = self.sizes.pop_front() else { return };
            self.used -= size;
        }
    }
}

/// What matters of a response's header block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Meaning {
    pub(crate) status: Option<u16>,
    pub(crate) grpc_status: Option<u16>,
}

/// Reads every header block of a connection, most of them without decoding: what a block means is
/// remembered for as long as it must mean the same.
pub(crate) struct Reader {
    decoder: Decoder<'static>,
    known: Vec<Known>,
    /// Blocks that insert into the dynamic table and that the decoder has not seen yet. nginx
    /// inserts with every response and never refers to what it inserted.
    unseen: VecDeque<Vec<u8>>,
}

struct Known {
    block: Vec<u8>,
    meaning: Meaning,
    /// It holds only as long as nothing is inserted.
    refers: bool,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self { decoder: Decoder::new(), known: Vec::new(), unseen: VecDeque::new() }
    }

    pub(crate) fn read(&mut self, block: &[u8]) -> Result<Meaning, Fault> {
        /// So many insertions, of 32 bytes at least, leave nothing of what was before them.
        const REPLACED: usize = TABLE / 32;
        const MOST: usize = 8;
        let effect = effect(block).ok_or(NO_HPACK)?;
        if effect.inserts {
            self.known.retain(|known| !known.refers);
        }
        if let Some(known) = self.known.iter().find(|known| known.block == block) {
            if effect.inserts {
                if self.unseen.len() == REPLACED {
                    self.unseen.pop_front();
                }
                self.unseen.push_back(block.to_vec());
            }
            return Ok(known.meaning);
        }
        for block in self.unseen.drain(..) {
            self.decoder.decode_with_cb(&block, |_, _| {}).map_err(|_| NO_HPACK)?;
        }
        let mut meaning = Meaning::default();
        let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
        let decoded = self.decoder.decode_with_cb(block, |name, value| match &name[..] {
            b":status" => meaning.status = number(&value),
            b"grpc-status" => meaning.grpc_status = number(&value),
            _ => {}
        });
        decoded.map_err(|_| NO_HPACK)?;
        if !(effect.resizes || effect.inserts && effect.refers) {
            if self.known.len() == MOST {
                self.known.clear();
            }
            self.known.push(Known { block: block.to_vec(), meaning, refers: effect.refers });
        }
        Ok(meaning)
    }
}

const NO_HPACK: Fault = "a header block that is no HPACK";

/// How a block and the dynamic table depend on each other.
#[derive(Debug, Default)]
struct Effect {
    refers: bool,
    inserts: bool,
    resizes: bool,
}

/// What a block does, by its outlines; `None` if it ends too early.
fn effect(mut block: &[u8]) -> Option<Effect> {
    let mut effect = Effect::default();
    while let Some(first) = block.first() {
        let prefix = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let index = take_integer(&mut block, prefix)?;
        effect.resizes |= prefix == 5;
        effect.inserts |= prefix == 6;
        effect.refers |= prefix != 5 && index as u64 > STATIC;
        let strings = match (prefix, index) {
            (7 | 5, _) => 0,
            (_, 0) => 2,
            _ => 1,
        };
        for _ in 0..strings {
            let length = take_integer(&mut block, 7)?;
            block = block.get(length..)?;
        }
    }
    Some(effect)
}

fn take_integer(block: &mut &[u8], prefix: u8) -> Option<usize> {
    let most = (1usize << prefix) - 1;
    let (first, mut rest) = block.split_first()?;
    let mut value = usize::from(*first) & most;
    let mut shift = 0;
    while value >= most || shift > 0 {
        let (next, after) = rest.split_first()?;
        rest = after;
        value += usize::from(next & 0x7f) << shift;
        shift += 7;
        if next & 0x80 == 0 {
            break;
        }
        if shift > 28 {
            return None;
        }
    }
    *block = rest;
    Some(value)
}
