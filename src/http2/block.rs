//! A header block between its decoder and its encoder, checked once (RFC 9113, 8).

mod check;

use std::rc::Rc;

pub use self::check::{Facts, Malformed};
use super::{
    field::{Field, Name, OVERHEAD, Role},
    hpack::{Encoder, Line, Moving},
    literal::{Literal, put_integer},
};

/// The fields of one block in their order. Kept and used again, so that its buffers are.
#[derive(Debug, Default)]
pub struct Block {
    items: Vec<Item>,
    /// The literals of moving values.
    literals: Vec<u8>,
    size: usize,
}

#[derive(Debug)]
enum Item {
    Known(Rc<Field>),
    Moving { name: Rc<Name>, start: usize, end: usize, length: usize, lawful: bool, never: bool },
}

impl Item {
    fn name(&self) -> &Rc<Name> {
        match self {
            Self::Known(field) => field.name(),
            Self::Moving { name, .. } => name,
        }
    }

    fn role(&self) -> Role {
        self.name().role()
    }

    fn size(&self) -> usize {
        match self {
            Self::Known(field) => field.size(),
            Self::Moving { name, length, .. } => name.plain().len() + length + OVERHEAD,
        }
    }
}

impl Block {
    /// Without fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the fields and keeps the room.
    pub fn clear(&mut self) {
        self.items.clear();
        self.literals.clear();
        self.size = 0;
    }

    /// Gives back room for values beyond a little more than is used: blocks are held for as long as
    /// calls wait, and to be used again.
    pub fn fit(&mut self) {
        if self.literals.capacity() - self.literals.len() > SPARE {
            self.literals.shrink_to_fit();
        }
    }

    /// Appends a line.
    pub fn push(&mut self, line: Line<'_>) {
        match line {
            Line::Known(field) => self.push_known(field),
            Line::Moving(moving) => {
                let start = self.literals.len();
                self.literals.extend_from_slice(moving.value.wire);
                self.size += moving.name.plain().len() + moving.length + OVERHEAD;
                self.items.push(Item::Moving {
                    name: Rc::clone(moving.name),
                    start,
                    end: self.literals.len(),
                    length: moving.length,
                    lawful: moving.lawful,
                    never: moving.never_indexed,
                });
            }
        }
    }

    /// Appends a field that repeats.
    pub fn push_known(&mut self, field: &Rc<Field>) {
        self.size += field.size();
        self.items.push(Item::Known(Rc::clone(field)));
    }

    /// Appends a field with a value of its own, as a literal that enters no table.
    pub fn push_text(&mut self, name: &Rc<Name>, value: &[u8]) {
        let start = self.literals.len();
        put_integer(0, 7, value.len(), &mut self.literals);
        self.literals.extend_from_slice(value);
        self.size += name.plain().len() + value.len() + OVERHEAD;
        self.items.push(Item::Moving {
            name: Rc::clone(name),
            start,
            end: self.literals.len(),
            length: value.len(),
            lawful: true,
            never: false,
        });
    }

    /// Its size as a header list (RFC 9113, 6.5.2), in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many fields it has.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The fields in their order.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.items.iter().map(|item| self.line(item))
    }

    /// The fields with a role in their order. The others are passed over, without a look at their
    /// values.
    fn lines_of(&self, role: Role) -> impl Iterator<Item = Line<'_>> {
        self.items.iter().filter(move |item| item.role() == role).map(|item| self.line(item))
    }

    fn line<'a>(&'a self, item: &'a Item) -> Line<'a> {
        match item {
            Item::Known(field) => Line::Known(field),
            Item::Moving { name, start, end, length, lawful, never } => Line::Moving(Moving {
                name,
                value: self.literal(*start, *end),
                length: *length,
                lawful: *lawful,
                never_indexed: *never,
            }),
        }
    }

    fn literal(&self, start: usize, end: usize) -> Literal<'_> {
        Literal::parse(&self.literals[start..end]).expect("it was parsed before").0
    }

    /// Writes the fields that `keep` lets through.
    pub fn write(&self, encoder: &mut Encoder, out: &mut Vec<u8>, keep: impl Fn(Role) -> bool) {
        encoder.begin(out);
        for line in self.lines() {
            if keep(line.name().role()) {
                match line {
                    Line::Known(field) => encoder.known(field, out),
                    Line::Moving(moving) => encoder.moving(&moving, out),
                }
            }
        }
    }

    /// Hands the values of all fields with a role out, as text.
    pub fn values(&self, role: Role, mut value: impl FnMut(&[u8])) {
        let mut plain = Vec::new();
        for line in self.lines_of(role) {
            value(line.text(&mut plain));
        }
    }

    /// The value of the first field with a role, as text.
    pub fn first(&self, role: Role) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        Some(self.lines_of(role).next()?.text(&mut plain).to_vec())
    }

    /// The value of the first field with a name, as text.
    pub fn first_of(&self, name: &[u8]) -> Option<Vec<u8>> {
        let line = self.lines().find(|line| line.name().plain() == name)?;
        Some(line.text(&mut Vec::new()).to_vec())
    }

    /// Whether the first field with a role passes a test of its value as text.
    pub fn first_is(&self, role: Role, test: impl FnOnce(&[u8]) -> bool) -> bool {
        let line = self.lines_of(role).next();
        line.is_some_and(|line| test(line.text(&mut Vec::new())))
    }

    /// Leaves out all but the first field with a role.
    pub fn keep_first(&mut self, role: Role) {
        let of_role = |item: &Item| item.role() == role;
        if self.items.iter().filter(|item| of_role(item)).count() > 1 {
            let mut seen = false;
            self.retain(|item| !of_role(item) || !std::mem::replace(&mut seen, true));
        }
    }

    /// Leaves out the fields with a role.
    pub fn remove(&mut self, role: Role) {
        self.retain(|item| item.role() != role);
    }

    /// Leaves out the fields with a name.
    pub fn remove_named(&mut self, name: &[u8]) {
        self.retain(|item| item.name().plain() != name);
    }

    fn retain(&mut self, mut keep: impl FnMut(&Item) -> bool) {
        let size = &mut self.size;
        self.items.retain(|item| {
            let kept = keep(item);
            if !kept {
                *size -= item.size();
            }
            kept
        });
    }

    /// Gives the first field with a role another value, where there is one.
    pub fn replace(&mut self, role: Role, value: &[u8]) {
        let Some(at) = self.items.iter().position(|item| item.role() == role) else { return };
        let name = Rc::clone(self.items[at].name());
        self.size -= self.items[at].size();
        self.push_text(&name, value);
        let moved = self.items.len() - 1;
        self.items.swap(at, moved);
        self.items.truncate(moved);
    }

    /// The value of a name, as text, where exactly one field has it.
    pub fn only(&self, name: &[u8]) -> Option<Vec<u8>> {
        let mut lines = self.lines().filter(|line| line.name().plain() == name);
        let line = lines.next()?;
        lines.next().is_none().then(|| line.text(&mut Vec::new()).to_vec())
    }

    /// Whether a field with that role is there.
    pub fn has(&self, role: Role) -> bool {
        self.items.iter().any(|item| item.role() == role)
    }
}

impl Line<'_> {
    /// Its name.
    pub fn name(&self) -> &Rc<Name> {
        match self {
            Self::Known(field) => field.name(),
            Self::Moving(moving) => moving.name,
        }
    }

    /// Its value as text, for which `plain` may be needed.
    pub fn text<'a>(&'a self, plain: &'a mut Vec<u8>) -> &'a [u8] {
        match self {
            Self::Known(field) => field.value(),
            Self::Moving(moving) => {
                plain.clear();
                moving.value.decode(plain).expect("it was inspected before");
                plain
            }
        }
    }

    fn is(&self, value: &[u8]) -> bool {
        self.length() == value.len() && *self.text(&mut Vec::new()) == *value
    }

    fn length(&self) -> usize {
        match self {
            Self::Known(field) => field.value().len(),
            Self::Moving(moving) => moving.length,
        }
    }

    fn is_lawful(&self) -> bool {
        match self {
            Self::Known(field) => field.is_lawful(),
            Self::Moving(moving) => moving.lawful,
        }
    }
}

/// Room for values that is kept unused, in bytes.
const SPARE: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::field::Fields;

    fn block(list: &[(&str, &str)]) -> Block {
        let (mut fields, mut block) = (Fields::new(), Block::new());
        for (name, value) in list {
            block.push_known(&fields.own(name, value));
        }
        block
    }

    const POST: [(&str, &str); 3] = [(":method", "POST"), (":scheme", "http"), (":path", "/a/B")];

    #[test]
    fn requests_are_checked() {
        let more = |list: &[(&'static str, &'static str)]| block(&[&POST, list].concat());
        assert_eq!(more(&[]).check_request(), Ok(Facts::default()));
        let length =
            more(&[("te", "trailers"), ("content-length", "12"), ("content-length", "12")]);
        assert_eq!(length.check_request().unwrap().content_length, Some(12));
        for list in [
            [("te", "gzip")],
            [("connection", "close")],
            [("upgrade", "h2c")],
            [(":path", "/c/D")],
            [(":status", "200")],
            [(":protocol", "websocket")],
            [("content-length", "-1")],
            [("content-length", "")],
            [("X-A", "b")],
            [("x-a", "b\n")],
        ] {
            assert_eq!(more(&list).check_request(), Err(Malformed), "{list:?}");
        }
        for list in [
            &[("x-a", "b"), POST[0], POST[1], POST[2]] as &[_],
            &[POST[0], POST[1]],
            &[POST[0], POST[1], (":path", "")],
            &[(":method", "CONNECT"), (":scheme", "http"), (":authority", "a")],
        ] {
            assert_eq!(block(list).check_request(), Err(Malformed), "{list:?}");
        }
        assert!(block(&[(":method", "CONNECT"), (":authority", "a")]).check_request().is_ok());
        let lengths = more(&[("content-length", "1"), ("content-length", "2")]);
        assert_eq!(lengths.check_request(), Err(Malformed));
    }

    #[test]
    fn all_fields_of_a_name_are_left_out_with_their_size() {
        let mut block = block(&[("x-a", "1"), ("x-b", "2"), ("x-a", "3")]);
        let name = Rc::clone(block.items[0].name());
        block.push_text(&name, b"45");
        block.remove_named(b"x-a");
        assert_eq!((block.len(), block.size()), (1, 4 + OVERHEAD));
        block.push_text(&name, b"45");
        block.keep_first(name.role());
        assert_eq!((block.len(), block.size()), (1, 4 + OVERHEAD));
        assert_eq!(block.only(b"x-b").as_deref(), Some(&b"2"[..]));
    }

    #[test]
    fn room_of_large_values_is_given_back() {
        let mut block = block(&[("x-a", "1")]);
        let name = Rc::clone(block.items[0].name());
        for _ in 0..3 {
            block.push_text(&name, &[b'v'; 4000]);
        }
        block.fit();
        assert!(block.literals.capacity() <= block.size() + SPARE);
        block.clear();
        block.fit();
        assert!(block.literals.capacity() <= SPARE);
    }

    #[test]
    fn responses_and_trailers_are_checked() {
        assert_eq!(block(&[(":status", "415")]).check_response().unwrap().status, 415);
        for list in [&[] as &[_], &[(":status", "20")], &[(":status", "2xx")], &[POST[0]]] {
            assert_eq!(block(list).check_response(), Err(Malformed), "{list:?}");
        }
        assert_eq!(block(&[("grpc-status", "0")]).check_trailers(), Ok(()));
        assert_eq!(block(&[(":status", "200")]).check_trailers(), Err(Malformed));
    }
}
