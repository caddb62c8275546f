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
    /// Came once, behind those that were wanted of a block: both literals as they came.
    Raw { name: Box<[u8]>, value: Box<[u8]> },
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
        block: &[u8],
        fields: &mut Fields,
        mut line: impl FnMut(Line<'_>),
    ) -> Result<(), Broken> {
        self.decode_while(block, fields, |found| {
            line(found);
            true
        })
    }

    /// Hands out the lines of a whole block until `line` wants no more. Of those behind it the table
    /// is kept, and no name is looked at, so that a block of many names costs its peer more than
    /// this end.
    ///
    /// # Errors
    /// The block breaks RFC 7541; the lines before were handed out.
    pub fn decode_while(
        &mut self,
        mut block: &[u8],
        fields: &mut Fields,
        mut line: impl FnMut(Line<'_>) -> bool,
    ) -> Result<(), Broken> {
        let mut wanted = true;
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
                if wanted {
                    wanted = match self.known(index, fields) {
                        Some(field) => line(Line::Known(field)),
                        None => line(self.at(index, fields)?),
                    };
                } else if index == 0 || index > STATICS + self.entries.len() {
                    return Err(Broken);
                }
                block = rest;
                continue;
            }
            let (prefix, indexing) = match first >> 4 {
                4..=7 => (6, true),
                0 | 1 => (4, false),
                _ => return Err(Broken),
            };
            let (index, rest) = integer(block, prefix).ok_or(Broken)?;
            if index == 0 && !wanted {
                block = self.pass(rest, indexing)?;
                continue;
            }
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
            let moving = Moving { name: &name, value, length, lawful, never_indexed };
            wanted = wanted && line(Line::Moving(moving));
            if indexing {
                self.insert(name, value, length, lawful);
            }
            block = rest;
        }
        Ok(())
    }

    /// Passes a field over whose name is a literal, and puts it into the table where it belongs
    /// there; what follows it.
    fn pass<'a>(&mut self, rest: &'a [u8], indexing: bool) -> Result<&'a [u8], Broken> {
        let (name, rest) = Literal::parse(rest).ok_or(Broken)?;
        let (value, rest) = Literal::parse(rest).ok_or(Broken)?;
        let (of_name, _) = name.inspect(false).map_err(|_| Broken)?;
        let (of_value, _) = value.inspect(false).map_err(|_| Broken)?;
        if indexing {
            let content = Content::Raw { name: name.wire.into(), value: value.wire.into() };
            self.put(of_name + of_value + OVERHEAD, content);
        }
        Ok(rest)
    }

    /// The entry at an index of the dynamic table, with its name looked at.
    fn entry(&mut self, at: usize, fields: &mut Fields) -> Result<&mut Content, Broken> {
        let content = &mut self.entries.get_mut(at).ok_or(Broken)?.content;
        if let Content::Raw { name, value } = content {
            let literal = Literal::parse(name).expect("it was parsed before").0;
            let name = fields.name(&literal).expect("it was inspected before");
            let literal = Literal::parse(value).expect("it was parsed before").0;
            let pseudo = name.role().is_pseudo();
            let (length, lawful) = literal.inspect(pseudo).expect("it was inspected before");
            let (value, lawful) = (std::mem::take(value), lawful && name.is_lawful());
            *content = Content::Fresh { name, value, length, lawful, asked: false };
        }
        Ok(content)
    }

    /// The field at an index, where it has its identity already, as most have.
    fn known<'a>(&'a self, index: usize, fields: &'a Fields) -> Option<&'a Rc<Field>> {
        if index <= STATICS {
            return fields.at(index);
        }
        match &self.entries.get(index - STATICS - 1)?.content {
            Content::Known(field) => Some(field),
            _ => None,
        }
    }

    /// The line at an index; an entry that is referred to for the first time gets its identity.
    fn at<'a>(&'a mut self, index: usize, fields: &'a mut Fields) -> Result<Line<'a>, Broken> {
        let at = index.checked_sub(STATICS + 1).ok_or(Broken)?;
        let content = self.entry(at, fields)?;
        // Asked once: a block may refer to an entry thousands of times.
        if let Content::Fresh { name, value, asked, .. } = content
            && !std::mem::replace(asked, true)
        {
            let literal = Literal::parse(value).expect("it was parsed before").0;
            let mut plain = Vec::new();
            literal.decode(&mut plain).expect("it was inspected before");
            if let Some(field) = fields.known(name, &plain) {
                *content = Content::Known(field);
            }
        }
        Ok(match content {
            Content::Raw { .. } => return Err(Broken),
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

    fn name_at(&mut self, index: usize, fields: &mut Fields) -> Result<Rc<Name>, Broken> {
        if let Some(field) = fields.at(index) {
            return Ok(Rc::clone(field.name()));
        }
        let at = index.checked_sub(STATICS + 1).ok_or(Broken)?;
        Ok(match self.entry(at, fields)? {
            Content::Raw { .. } => return Err(Broken),
            Content::Fresh { name, .. } => Rc::clone(name),
            Content::Known(field) => Rc::clone(field.name()),
        })
    }

    fn insert(&mut self, name: Rc<Name>, value: Literal<'_>, length: usize, lawful: bool) {
        let size = name.plain().len() + length + OVERHEAD;
        let value = value.wire.into();
        self.put(size, Content::Fresh { name, value, length, lawful, asked: false });
    }

    fn put(&mut self, size: usize, content: Content) {
        self.evict(size);
        // What is larger than the table empties it, and that is all (RFC 7541, 4.4).
        if size <= self.limit {
            self.size += size;
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
