//! Whether a block is a request's, a response's or trailers' (RFC 9113, 8).

use super::{
    super::{field::Role, hpack::Line},
    Block, Item,
};

/// What a request's or response's head says, beside the fields that pass unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// `:status`, of a response.
    pub status: u16,
    /// `content-length`.
    pub content_length: Option<u64>,
}

/// A message that RFC 9113, 8.1.1 calls malformed: an error of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Block {
    /// Checks a request's head (RFC 9113, 8.2 and 8.3.1).
    ///
    /// # Errors
    /// It is malformed.
    pub fn check_request(&self) -> Result<Facts, Malformed> {
        let (mut method, mut scheme, mut path, mut authority) = (0, 0, 0, 0);
        let mut connect = false;
        let facts = self.check(|line| {
            match line.name().role() {
                Role::Method => {
                    method += 1;
                    connect = line.is(b"CONNECT");
                }
                Role::Scheme => scheme += 1,
                Role::Path => {
                    path += 1;
                    if line.length() == 0 {
                        return Err(Malformed);
                    }
                }
                Role::Authority => authority += 1,
                _ => return Err(Malformed),
            }
            Ok(())
        })?;
        let lawful = match connect {
            true => (method, scheme, path, authority) == (1, 0, 0, 1),
            false => (method, scheme, path) == (1, 1, 1) && authority <= 1,
        };
        if lawful { Ok(facts) } else { Err(Malformed) }
    }

    /// Checks a response's head (RFC 9113, 8.2 and 8.3.2).
    ///
    /// # Errors
    /// It is malformed.
    pub fn check_response(&self) -> Result<Facts, Malformed> {
        let mut status = None;
        let facts = self.check(|line| {
            if line.name().role() != Role::Status || status.is_some() {
                return Err(Malformed);
            }
            let mut plain = Vec::new();
            status = match line.text(&mut plain) {
                [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
                    let digit = |byte: &u8| u16::from(byte - b'0');
                    Some(digit(a) * 100 + digit(b) * 10 + digit(c))
                }
                _ => return Err(Malformed),
            };
            Ok(())
        })?;
        Ok(Facts { status: status.ok_or(Malformed)?, ..facts })
    }

    /// Checks trailers (RFC 9113, 8.1): no pseudo-header field among them.
    ///
    /// # Errors
    /// They are malformed.
    pub fn check_trailers(&self) -> Result<(), Malformed> {
        self.check(|_| Err(Malformed)).map(drop)
    }

    fn check(
        &self,
        mut pseudo: impl FnMut(&Line<'_>) -> Result<(), Malformed>,
    ) -> Result<Facts, Malformed> {
        let mut facts = Facts::default();
        let mut regular = false;
        for item in &self.items {
            if let Item::Known(field) = item
                && field.passes()
            {
                regular = true;
                continue;
            }
            let line = self.line(item);
            let role = line.name().role();
            if !line.is_lawful() || (role.is_pseudo() && regular) {
                return Err(Malformed);
            }
            if role.is_pseudo() {
                pseudo(&line)?;
                continue;
            }
            regular = true;
            match role {
                Role::HopByHop => return Err(Malformed),
                Role::Te if !line.is(b"trailers") => return Err(Malformed),
                Role::ContentLength => {
                    let mut plain = Vec::new();
                    let length = number(line.text(&mut plain)).ok_or(Malformed)?;
                    if facts.content_length.replace(length).is_some_and(|other| other != length) {
                        return Err(Malformed);
                    }
                }
                _ => {}
            }
        }
        Ok(facts)
    }
}

/// Digits alone, at least one.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => Some(value * 10 + u64::from(digit - b'0')),
        _ => None,
    })
}
