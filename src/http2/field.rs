//! Header fields by identity.
//!
//! What is asked of a field (is it lawful, what is it to the relay) is answered when it is made,
//! once. A worker's [`Fields`] gives equal fields that repeat one identity, whichever connection
//! they came on, so that an encoder knows them again by a number.

use std::{cell::Cell, collections::HashMap, rc::Rc};

use super::literal::{Literal, is_lawful_value, is_token, shortest};
pub use super::role::Role;

/// A field's name.
#[derive(Debug)]
pub struct Name {
    plain: Box<[u8]>,
    literal: Box<[u8]>,
    static_index: u8,
    role: Role,
    lawful: bool,
}

impl Name {
    fn new(plain: &[u8]) -> Self {
        let position = STATIC.iter().position(|(name, _)| name.as_bytes() == plain);
        let token = plain.strip_prefix(b":").unwrap_or(plain);
        Self {
            plain: plain.into(),
            literal: shortest(plain),
            static_index: position.map_or(0, |index| index as u8 + 1),
            role: Role::of(plain),
            lawful: !token.is_empty() && token.iter().all(|byte| is_token(*byte)),
        }
    }

    /// As text.
    pub fn plain(&self) -> &[u8] {
        &self.plain
    }

    /// As a string literal (RFC 7541, 5.2), in the shorter of its two forms.
    pub fn literal(&self) -> &[u8] {
        &self.literal
    }

    /// Its first place in the static table; 0 where it has none.
    pub fn static_index(&self) -> u8 {
        self.static_index
    }

    /// What fields of this name are.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether it is a token in lower case (RFC 9113, 8.2.1).
    pub fn is_lawful(&self) -> bool {
        self.lawful
    }
}

/// A field that repeats.
#[derive(Debug)]
pub struct Field {
    id: u32,
    name: Rc<Name>,
    value: Box<[u8]>,
    literal: Box<[u8]>,
    size: usize,
    lawful: bool,
    passes: bool,
    note: Cell<u32>,
}

impl Field {
    fn new(id: u32, name: Rc<Name>, value: &[u8]) -> Self {
        let lawful = name.is_lawful() && is_lawful_value(value, name.role.is_pseudo());
        let size = name.plain.len() + value.len() + OVERHEAD;
        let passes = match name.role {
            Role::Te => value == b"trailers",
            Role::HopByHop | Role::ContentLength => false,
            role => !role.is_pseudo(),
        };
        let (value, literal) = (value.into(), shortest(value));
        let passes = passes && lawful;
        Self { id, name, value, literal, size, lawful, passes, note: Cell::new(0) }
    }

    /// Unique in its [`Fields`] for ever; up to 61 it is the field's place in the static table.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The name.
    pub fn name(&self) -> &Rc<Name> {
        &self.name
    }

    /// The value as text.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// The value as a string literal (RFC 7541, 5.2), in the shorter of its two forms.
    pub fn literal(&self) -> &[u8] {
        &self.literal
    }

    /// Its size in a table or a header list (RFC 7541, 4.1), in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether it may stand in any message, behind the pseudo-header fields, without a further look.
    pub fn passes(&self) -> bool {
        self.passes
    }

    /// Whether name and value are what RFC 9113, 8.2.1 allows.
    pub fn is_lawful(&self) -> bool {
        self.lawful
    }

    /// What the field's user wrote down about it, at first 0.
    pub fn note(&self) -> u32 {
        self.note.get()
    }

    /// Writes something down, to be read wherever the field comes again.
    pub fn set_note(&self, note: u32) {
        self.note.set(note);
    }
}

/// A name and a value.
type Pair = (Box<[u8]>, Box<[u8]>);

/// A worker's names and repeated fields, each once. Bounded: beyond that, names are made anew each
/// time and fields are not known again.
#[derive(Debug)]
pub struct Fields {
    statics: Vec<Rc<Field>>,
    /// By their string literals as they came.
    names: HashMap<Box<[u8]>, Rc<Name>>,
    known: HashMap<Pair, Rc<Field>>,
    next: u32,
    /// What the known ones take, in bytes.
    bytes: usize,
    /// Fields that were asked for and not known, since room was last made among them.
    missed: usize,
    /// Names likewise.
    unnamed: usize,
}

impl Fields {
    /// Those of the static table.
    pub fn new() -> Self {
        let mut fields = Self {
            statics: Vec::new(),
            names: HashMap::new(),
            known: HashMap::new(),
            next: 1,
            bytes: 0,
            missed: 0,
            unnamed: 0,
        };
        let mut last: Option<Rc<Name>> = None;
        for (name, value) in STATIC {
            let name = match last.take().filter(|last| *last.plain == *name.as_bytes()) {
                Some(same) => same,
                None => Rc::new(Name::new(name.as_bytes())),
            };
            last = Some(Rc::clone(&name));
            fields.names.insert(name.literal.clone(), Rc::clone(&name));
            let field = Rc::new(Field::new(fields.next, Rc::clone(&name), value.as_bytes()));
            fields.known.insert((name.plain.clone(), field.value.clone()), Rc::clone(&field));
            fields.statics.push(field);
            fields.next += 1;
        }
        fields
    }

    /// The field at `index` of the static table, 1 to 61.
    pub fn at(&self, index: usize) -> Option<&Rc<Field>> {
        self.statics.get(index.checked_sub(1)?)
    }

    /// The name that a string literal stands for; none where it is broken Huffman.
    pub fn name(&mut self, literal: &Literal<'_>) -> Option<Rc<Name>> {
        if let Some(name) = self.names.get(literal.wire) {
            return Some(Rc::clone(name));
        }
        let mut plain = Vec::new();
        literal.decode(&mut plain).ok()?;
        let name = Rc::new(Name::new(&plain));
        if plain.len() <= SHORT {
            self.unnamed += 1;
            if self.names.len() >= NAMES && self.unnamed >= PAUSE {
                self.unnamed = 0;
                // Those that no field has make room, or the first thousand would stay for ever.
                self.names.retain(|_, name| Rc::strong_count(name) > 1);
            }
            if self.names.len() < NAMES {
                self.names.insert(literal.wire.into(), Rc::clone(&name));
            }
        }
        Some(name)
    }

    /// The one field with this name and value. None where the bound is reached, or where it is so
    /// long that it is none that repeats.
    pub fn known(&mut self, name: &Rc<Name>, value: &[u8]) -> Option<Rc<Field>> {
        if name.plain.len() > SHORT || value.len() > LONG {
            return None;
        }
        let key = (name.plain.clone(), Box::from(value));
        if let Some(field) = self.known.get(&key) {
            return Some(Rc::clone(field));
        }
        self.missed += 1;
        // Where all of it is held, looking for room again and again would cost a peer nothing.
        let bytes = cost(name, value);
        let full = |fields: &Self| fields.known.len() >= KNOWN || fields.bytes + bytes > ROOM;
        if full(self) && self.missed >= PAUSE {
            self.missed = 0;
            // Those that no table holds any more make room.
            self.known.retain(|_, field| {
                field.id as usize <= STATIC.len() || Rc::strong_count(field) > 1
            });
            self.bytes = self.known.values().map(|field| cost(&field.name, &field.value)).sum();
        }
        if full(self) {
            return None;
        }
        self.bytes += bytes;
        let field = Rc::new(Field::new(self.next, Rc::clone(name), value));
        self.next = self.next.checked_add(1)?;
        self.known.insert(key, Rc::clone(&field));
        Some(field)
    }

    /// The one field with this name and value, for those that the program itself sends.
    ///
    /// # Panics
    /// The bound is reached; made at the start, it is not.
    pub fn own(&mut self, name: &str, value: &str) -> Rc<Field> {
        let wire = shortest(name.as_bytes());
        let literal = Literal::parse(&wire).expect("made from a short name").0;
        let name = self.name(&literal).expect("made by the encoder");
        self.known(&name, value.as_bytes()).expect("the table is nearly empty")
    }
}

impl Default for Fields {
    fn default() -> Self {
        Self::new()
    }
}

/// What a known field takes at most, in bytes: its name and its value as text, as literals, and
/// once more to be found by.
fn cost(name: &Name, value: &[u8]) -> usize {
    3 * (name.plain.len() + value.len()) + ENTRY
}

/// What each entry of a table counts beside its strings, in bytes (RFC 7541, 4.1).
pub const OVERHEAD: usize = 32;
/// Names known by their literals.
const NAMES: usize = 1024;
/// Fields that have an identity.
const KNOWN: usize = 4096;
/// What they may take, in bytes: with the names less than 2 MiB for a worker, whatever its peers send.
const ROOM: usize = 3 << 19;
/// What a known field takes beside its strings, in bytes.
const ENTRY: usize = 240;
/// Fields that are not known, between two looks for room: a few entries are looked at for each.
const PAUSE: usize = 512;
/// The longest name that is remembered.
const SHORT: usize = 128;
/// The longest value that is remembered.
const LONG: usize = 2048;

/// RFC 7541, Appendix A.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_is_not_searched_for_room_each_time() {
        let mut fields = Fields::new();
        let name = Rc::clone(fields.own("x-a", "").name());
        let ask =
            |fields: &mut Fields, value: usize| fields.known(&name, value.to_string().as_bytes());
        let held: Vec<_> = (0..KNOWN).map_while(|value| ask(&mut fields, value)).collect();
        assert!(held.len() > KNOWN - 100, "the first search finds `x-a` alone");
        assert!(ask(&mut fields, KNOWN).is_none());
        drop(held);
        let until = (0..KNOWN).find(|_| ask(&mut fields, KNOWN).is_some());
        assert!((400..600).contains(&until.unwrap()), "{until:?}");
        assert!(ask(&mut fields, KNOWN + 1).is_some(), "all of its room is there");
    }

    #[test]
    fn whatever_comes_the_table_takes_little_room() {
        let mut fields = Fields::new();
        let mut ask = |name: &str, value: &[u8]| {
            let wire = shortest(name.as_bytes());
            let name = fields.name(&Literal::parse(&wire).unwrap().0).unwrap();
            let known = fields.known(&name, value).is_some();
            assert!(fields.bytes <= ROOM && fields.names.len() <= NAMES);
            (known, fields.known.len())
        };
        for number in 0..5000 {
            // As a peer sends it to have it kept: long, new each time, and referred to once.
            assert!(!ask(&format!("x-{number}-{}", "n".repeat(4000)), b"v").0);
            ask(&format!("x-{number}"), &[b'v'; LONG]);
        }
        // None of it is held by a connection, so what repeats has its place.
        let known = (0..2 * PAUSE).any(|number| ask("x-again", number.to_string().as_bytes()).0);
        assert!(known);
    }

    #[test]
    fn names_that_nothing_uses_make_room_for_others() {
        let mut fields = Fields::new();
        let ask = |fields: &mut Fields, name: String| {
            let wire = shortest(name.as_bytes());
            fields.name(&Literal::parse(&wire).unwrap().0).unwrap();
            fields.names.contains_key(&wire)
        };
        (0..NAMES).for_each(|number| _ = ask(&mut fields, format!("x-{number}")));
        assert!((0..2 * PAUSE).any(|number| ask(&mut fields, format!("y-{number}"))));
    }
}
