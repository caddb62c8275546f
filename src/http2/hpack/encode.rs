//! The encoder and its table.

use std::collections::VecDeque;

use super::{
    super::{field::Field, literal::put_integer},
    Moving,
};

/// One direction's encoder.
#[derive(Debug)]
pub struct Encoder {
    /// Identity and size of each entry, the newest first.
    entries: VecDeque<(u32, u32)>,
    size: usize,
    limit: usize,
    /// Table sizes to announce: the smallest since the last block, and the last.
    updates: Option<(usize, usize)>,
    /// Entries ever inserted, of which only the last byte is needed: there are at most 128.
    inserted: u8,
    /// What `inserted` was when an identity was, if its slot was not taken by another one since.
    places: Box<[u8; PLACES]>,
}

impl Encoder {
    /// For a peer whose table has `size` bytes; more than 4096 are not used.
    pub fn new(size: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            limit: size.min(MOST),
            updates: (size < MOST).then_some((size, size)),
            inserted: 0,
            places: Box::new([0; PLACES]),
        }
    }

    /// Bytes in the table.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The peer's table has another size now (SETTINGS_HEADER_TABLE_SIZE).
    pub fn resize(&mut self, size: usize) {
        let size = size.min(MOST);
        if size == self.limit && self.updates.is_none() {
            return;
        }
        let smallest = self.updates.map_or(size, |(smallest, _)| smallest.min(size));
        self.updates = Some((smallest, size));
        self.limit = size;
        // What the smaller size in between evicts is gone, also if it grew again.
        self.evict_to(smallest);
    }

    /// Begins a block: announces a table size that has changed.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some((smallest, last)) = self.updates.take() {
            if smallest < last {
                put_integer(0x20, 5, smallest, out);
            }
            put_integer(0x20, 5, last, out);
        }
    }

    /// Writes a field that repeats: its index, or a literal that enters the table.
    pub fn known(&mut self, field: &Field, out: &mut Vec<u8>) {
        let id = field.id();
        if id <= STATICS {
            out.push(0x80 | id as u8);
            return;
        }
        // The newest entry has index 62; the table holds the last `entries.len()` insertions.
        let age = usize::from(self.inserted.wrapping_sub(self.places[id as usize % PLACES]));
        if self.entries.get(age).is_some_and(|(holder, _)| *holder == id) {
            put_integer(0x80, 7, STATICS as usize + 1 + age, out);
            return;
        }
        put_integer(0x40, 6, field.name().static_index().into(), out);
        if field.name().static_index() == 0 {
            out.extend_from_slice(field.name().literal());
        }
        out.extend_from_slice(field.literal());
        self.evict_to(self.limit.saturating_sub(field.size()));
        if field.size() <= self.limit {
            self.size += field.size();
            self.inserted = self.inserted.wrapping_add(1);
            self.entries.push_front((id, field.size() as u32));
            self.places[id as usize % PLACES] = self.inserted;
        }
    }

    /// Copies a literal as it is coded, past the table.
    pub fn moving(&mut self, line: &Moving<'_>, out: &mut Vec<u8>) {
        let form = if line.never_indexed { 0x10 } else { 0 };
        put_integer(form, 4, line.name.static_index().into(), out);
        if line.name.static_index() == 0 {
            out.extend_from_slice(line.name.literal());
        }
        out.extend_from_slice(line.value.wire);
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size {
            match self.entries.pop_back() {
                Some((_, entry)) => self.size -= entry as usize,
                None => return,
            }
        }
    }
}

const STATICS: u32 = 61;
/// The largest table that is used, in bytes: at most 128 entries.
const MOST: usize = 4096;
/// Slots for identities; a power of two, and twice as many as entries.
const PLACES: usize = 256;
