//! Integers and string literals of header blocks (RFC 7541, 5), and what strings may be.

use super::huffman;

/// A string literal on the wire (RFC 7541, 5.2).
#[derive(Debug, Clone, Copy)]
pub struct Literal<'a> {
    /// All of it: flag, length and string.
    pub wire: &'a [u8],
    string: &'a [u8],
}

impl<'a> Literal<'a> {
    /// Takes one from the front of `input`; what follows it. None where it is cut or its length
    /// is beyond all reason.
    pub fn parse(input: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (length, rest) = integer(input, 7)?;
        let (string, rest) = rest.split_at_checked(length)?;
        Some((Self { wire: &input[..input.len() - rest.len()], string }, rest))
    }

    fn is_huffman(&self) -> bool {
        self.wire[0] & 0x80 != 0
    }

    /// Appends its text.
    ///
    /// # Errors
    /// It is broken Huffman.
    pub fn decode(&self, plain: &mut Vec<u8>) -> Result<(), huffman::Invalid> {
        if self.is_huffman() {
            return huffman::decode(self.string, plain);
        }
        plain.extend_from_slice(self.string);
        Ok(())
    }

    /// Its length as text, and whether it is a lawful value, of a pseudo-header field or another.
    ///
    /// # Errors
    /// It is broken Huffman.
    pub fn inspect(&self, pseudo: bool) -> Result<(usize, bool), huffman::Invalid> {
        if !self.is_huffman() {
            return Ok((self.string.len(), is_lawful_value(self.string, pseudo)));
        }
        let (mut length, mut lawful) = (0, true);
        let (mut first, mut last) = (b'a', b'a');
        huffman::walk(self.string, |byte| {
            if length == 0 {
                first = byte;
            }
            last = byte;
            length += 1;
            lawful &= is_value_byte(byte);
        })?;
        let bare = !pseudo || ![first, last].iter().any(|byte| is_blank(*byte));
        Ok((length, lawful && bare))
    }
}

/// An integer with a prefix of `bits` bits (RFC 7541, 5.1), and what follows it. None where it is
/// cut, or larger than any block that is taken here.
pub fn integer(input: &[u8], bits: u8) -> Option<(usize, &[u8])> {
    let (first, mut rest) = input.split_first()?;
    let mask = (1_usize << bits) - 1;
    let mut value = *first as usize & mask;
    if value < mask {
        return Some((value, rest));
    }
    for shift in [0, 7, 14, 21] {
        let (byte, tail) = rest.split_first()?;
        rest = tail;
        value += (*byte as usize & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, rest));
        }
    }
    None
}

/// Appends an integer with a prefix of `bits` bits, below `first`'s flags.
#[inline]
pub fn put_integer(first: u8, bits: u8, value: usize, out: &mut Vec<u8>) {
    let mask = (1_usize << bits) - 1;
    if value < mask {
        out.push(first | value as u8);
    } else {
        put_long(first, mask, value, out);
    }
}

#[cold]
fn put_long(first: u8, mask: usize, value: usize, out: &mut Vec<u8>) {
    out.push(first | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The shorter of a string's two forms.
pub(super) fn shortest(plain: &[u8]) -> Box<[u8]> {
    let coded = huffman::encoded_len(plain);
    let mut out = Vec::with_capacity(plain.len() + 4);
    if coded < plain.len() {
        put_integer(0x80, 7, coded, &mut out);
        huffman::encode(plain, &mut out);
    } else {
        put_integer(0, 7, plain.len(), &mut out);
        out.extend_from_slice(plain);
    }
    out.into()
}

/// RFC 9110, 5.6.2, without upper case.
pub(super) fn is_token(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.'
        | b'^'..=b'`' | b'|' | b'~')
}

/// RFC 9110, 5.5: visible characters, space, tab, and bytes above ASCII.
fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Whether a field may have this value. Blanks at its ends, which RFC 9113, 8.2.1 forbids, are let
/// through but in pseudo-header fields: gRPC's peers send them (in `grpc-message` most of all) and
/// take them.
pub(super) fn is_lawful_value(value: &[u8], pseudo: bool) -> bool {
    let edges = [value.first(), value.last()];
    let bare = !pseudo || !edges.into_iter().flatten().any(|byte| is_blank(*byte));
    bare && value.iter().all(|byte| is_value_byte(*byte))
}
