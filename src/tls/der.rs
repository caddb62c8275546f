//! Values in DER (ITU-T X.690), as little of it as certificates need here.

/// The content of the value that comes next, where it is of this kind.
pub(super) fn take<'a>(input: &mut &'a [u8], kind: u8) -> Option<&'a [u8]> {
    let (first, rest) = input.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    (*first == kind).then_some(content)
}

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const VERSION: u8 = 0xa0;
pub(super) const UTC: u8 = 0x17;
pub(super) const GENERALIZED: u8 = 0x18;
