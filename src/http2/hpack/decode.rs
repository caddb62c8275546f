//! The decoder and its table.

use std::{collections::VecDeque, rc::Rc};

use super::{
    super::{
        field::{Field, Fields, Name, OVERHEAD},
        literal::{Literal, integer},
    },
    Line, Moving,
};

/// A block that leaves the decoder's table in doubt: COMPRESSION_ERROR for the connection
/// (RFC 9113, 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// One direction's decoder.
#[derive(Debug)]
pub struct Decoder {
    entries: VecDeque<Entry>,
    size: usize,
    limit: usize,
    announced: usize,
}

#[derive(Debug)]
struct Entry {
    size: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Came once, as a literal.
    Fresh { name: Rc<Name>, value: Box<[u8]>, length: usize, lawful: bool, asked: bool },
    /// Was referred to again.
    Known(Rc<Field>),
}

impl Decoder {
    /// For a peer that was told that it may use a table of `size` bytes
    /// (SETTINGS_HEADER_TABLE_SIZE).
    pub fn new(size: usize) -> Self {
        Self { entries: VecDeque::new(), size: 0, limit: size, announced: size }
    }

    /// Bytes in the table.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Hands out the lines of a whole block in their order.
    ///
    /// # Errors
    /// The block breaks RFC 7541; the lines before were handed out.
    pub fn decode(
        &mut self,
        mut block: &[u8],
        fields: &mut Fields,
        mut line: impl FnMut(Line<'_>),
    ) -> Result<(), Broken> {
        while let Some((size, rest)) = size_update(block)? {
            if size > self.announced {
                return Err(Broken);
            }
            self.limit = size;
            self.evict(0);
            block = rest;
        }
        while let Some(first) = block.first() {
            if first & 0x80 != 0 {
                let (index, rest) = integer(block, 7).ok_or(Broken)?;
                line(self.at(index, fields)?);
                block = rest;
                continue;
            }
            let (prefix, indexing) = match first >> 4 {
                4..=7 => (6, true),
                0 | 1 => (4, false),
                _ => return Err(Broken),
            };
            let (index, rest) = integer(block, prefix).ok_or(Broken)?;
            let (name, rest) = if index == 0 {
                let (literal, rest) = Literal::parse(rest).ok_or(Broken)?;
                (fields.name(&literal).ok_or(Broken)?, rest)
            } else {
                (self.name_at(index, fields)?, rest)
            };
            let (value, rest) = Literal::parse(rest).ok_or(Broken)?;
            let pseudo = name.role().is_pseudo();
            let (length, lawful) = value.inspect(pseudo).map_err(|_| Broken)?;
            let lawful = lawful && name.is_lawful();
            let never_indexed = first >> 4 == 1;
            line(Line::Moving(Moving { name: &name, value, length, lawful, never_indexed }));
            if indexing {
                self.insert(name, value, length, lawful);
            }
            block = rest;
        }
        Ok(())
    }

    /// The line at an index; an entry that is referred to for the first time gets its identity.
    fn at<'a>(&'a mut self, index: usize, fields: &'a mut Fields) -> Result<Line<'a>, Broken> {
        if index <= STATICS {
            return fields.at(index).map(Line::Known).ok_or(Broken);
        }
        let entry = self.entries.get_mut(index - STATICS - 1).ok_or(Broken)?;
        // Asked once: a block may refer to an entry thousands of times.
        if let Content::Fresh { name, value, asked, .. } = &mut entry.content
            && !std::mem::replace(asked, true)
        {
            let literal = Literal::parse(value).expect("it was parsed before").0;
            let mut plain = Vec::new();
            literal.decode(&mut plain).expect("it was inspected before");
            if let Some(field) = fields.known(name, &plain) {
                entry.content = Content::Known(field);
            }
        }
        Ok(match &entry.content {
            Content::Known(field) => Line::Known(field),
            Content::Fresh { name, value, length, lawful, .. } => Line::Moving(Moving {
                name,
                value: Literal::parse(value).expect("it was parsed before").0,
                length: *length,
                lawful: *lawful,
                never_indexed: false,
            }),
        })
    }

    fn name_at(&self, index: usize, fields: &Fields) -> Result<Rc<Name>, Broken> {
        if let Some(field) = fields.at(index) {
            return Ok(Rc::clone(field.name()));
        }
        let entry = index.checked_sub(STATICS + 1).and_then(|at| self.entries.get(at));
        Ok(match &entry.ok_or(Broken)?.content {
            Content::Fresh { name, .. } => Rc::clone(name),
            Content::Known(field) => Rc::clone(field.name()),
        })
    }

    fn insert(&mut self, name: Rc<Name>, value: Literal<'_>, length: usize, lawful: bool) {
        let size = name.plain().len() + length + OVERHEAD;
        self.evict(size);
        // What is larger than the table empties it, and that is all (RFC 7541, 4.4).
        if size <= self.limit {
            self.size += size;
            let content =
                Content::Fresh { name, value: value.wire.into(), length, lawful, asked: false };
            self.entries.push_front(Entry { size, content });
        }
    }

    /// Makes room for `more` bytes.
    fn evict(&mut self, more: usize) {
        while self.size + more > self.limit {
            match self.entries.pop_back() {
                Some(entry) => self.size -= entry.size,
                None => return,
            }
        }
    }
}

/// A dynamic table size update at the front of a block (RFC 7541, 6.3).
fn size_update(block: &[u8]) -> Result<Option<(usize, &[u8])>, Broken> {
    match block.first() {
        Some(first) if first & 0xe0 == 0x20 => integer(block, 5).map(Some).ok_or(Broken),
        _ => Ok(None),
    }
}

const STATICS: usize = 61;
