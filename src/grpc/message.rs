//! Length-prefixed messages: one byte that says whether it is compressed, four of length, then the
//! message (grpc/doc/PROTOCOL-HTTP2.md, Length-Prefixed-Message).

use std::io::Read;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::status::{Code, Status};

/// The length of the prefix, in bytes.
const PREFIX: usize = 5;

/// `message` with its prefix, uncompressed.
pub fn encode(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).expect("messages built here are small"));
    message.encode(&mut framed).expect("the buffer grows");
    framed.freeze()
}

/// The message of a unary body. No byte at all counts as an empty message: load balancers send
/// health checks so.
///
/// # Errors
/// `INTERNAL` for a body that is not one whole message, or that is compressed and broken;
/// `UNIMPLEMENTED` for another compression than gzip; `RESOURCE_EXHAUSTED` for more than `limit`
/// bytes within it.
pub fn decode_unary<M: prost::Message + Default>(
    body: &[u8],
    encoding: Option<&[u8]>,
    limit: usize,
) -> Result<M, Status> {
    let broken = |why: &str| Status::new(Code::Internal, format!("broken message: {why}"));
    if body.is_empty() {
        return Ok(M::default());
    }
    let Some((prefix, message)) = body.split_at_checked(PREFIX) else {
        return Err(broken("shorter than its prefix"));
    };
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if message.len() != length as usize {
        return Err(broken("its length is not what its prefix says"));
    }
    let inflated;
    let message = match prefix[0] {
        0 => message,
        1 => {
            inflated = inflate(message, encoding, limit)?;
            &inflated
        }
        _ => return Err(broken("unknown flag in its prefix")),
    };
    M::decode(message).map_err(|_| broken("no protobuf of the expected type"))
}

/// Decompresses a message of at most `limit` bytes.
///
/// # Errors
/// `UNIMPLEMENTED` for another encoding than gzip, `INTERNAL` for broken gzip or none announced,
/// `RESOURCE_EXHAUSTED` for more than `limit` bytes.
fn inflate(message: &[u8], encoding: Option<&[u8]>, limit: usize) -> Result<Vec<u8>, Status> {
    match encoding {
        Some(b"gzip") => {}
        None | Some(b"identity") => {
            return Err(Status::new(Code::Internal, "compressed message without grpc-encoding"));
        }
        Some(other) => {
            let name = String::from_utf8_lossy(other).into_owned();
            return Err(Status::new(Code::Unimplemented, format!("grpc-encoding {name}")));
        }
    }
    let mut inflated = Vec::new();
    flate2::read::GzDecoder::new(message)
        .take(limit as u64 + 1)
        .read_to_end(&mut inflated)
        .map_err(|_| Status::new(Code::Internal, "broken gzip"))?;
    if inflated.len() > limit {
        return Err(Status::new(Code::ResourceExhausted, "message too large"));
    }
    Ok(inflated)
}

/// Reads the lengths of the messages that pass, chunk by chunk, without keeping or changing them.
#[derive(Debug, Clone, Copy)]
pub struct MessageSizes {
    limit: u64,
    prefix: [u8; PREFIX],
    filled: u8,
    remaining: u32,
}

/// A message's prefix announces more than is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("message of {size} bytes is larger than the {limit} allowed")]
pub struct TooLarge {
    /// What the prefix says, in bytes.
    pub size: u64,
    /// What is allowed, in bytes.
    pub limit: u64,
}

impl MessageSizes {
    /// For messages of at most `limit` bytes each.
    pub fn new(limit: u64) -> Self {
        Self { limit, prefix: [0; PREFIX], filled: 0, remaining: 0 }
    }

    /// The same bound, before the first message.
    pub fn fresh(&self) -> Self {
        Self::new(self.limit)
    }

    /// What is still to come of the message whose prefix was read last, in bytes.
    pub fn remaining(&self) -> usize {
        self.remaining as usize
    }

    /// How much has come of the message that is not whole, its prefix included, in bytes: 0 between
    /// two messages.
    pub fn unfinished(&self) -> usize {
        match self.remaining {
            0 => self.filled.into(),
            remaining => PREFIX + (self.length() - remaining) as usize,
        }
    }

    fn length(&self) -> u32 {
        let [_, length @ ..] = self.prefix;
        u32::from_be_bytes(length)
    }

    /// Takes the next chunk of the body.
    ///
    /// # Errors
    /// As soon as a prefix is complete that announces too much.
    pub fn scan(&mut self, mut chunk: &[u8]) -> Result<(), TooLarge> {
        while !chunk.is_empty() {
            if self.remaining > 0 {
                let skipped = chunk.len().min(self.remaining as usize);
                self.remaining -= skipped as u32;
                chunk = &chunk[skipped..];
                continue;
            }
            let filled = usize::from(self.filled);
            let taken = chunk.len().min(PREFIX - filled);
            self.prefix[filled..filled + taken].copy_from_slice(&chunk[..taken]);
            self.filled += taken as u8;
            chunk = &chunk[taken..];
            if usize::from(self.filled) == PREFIX {
                let size = self.length();
                if u64::from(size) > self.limit {
                    return Err(TooLarge { size: size.into(), limit: self.limit });
                }
                self.remaining = size;
                self.filled = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;
    use crate::grpc::HealthCheckRequest;

    #[test]
    fn what_has_come_of_a_message_is_known_until_it_is_whole() {
        let mut sizes = MessageSizes::new(100);
        let came = |sizes: &mut MessageSizes, bytes: &[u8]| {
            sizes.scan(bytes).unwrap();
            sizes.unfinished()
        };
        assert_eq!(came(&mut sizes, &[0, 0, 0]), 3);
        assert_eq!(came(&mut sizes, &[0, 4]), 5);
        assert_eq!(came(&mut sizes, &[7; 3]), 8);
        assert_eq!(came(&mut sizes, &[7, 0, 0, 0, 0, 0]), 0);
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let mut framed = vec![flag];
        framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        framed.extend(message);
        framed
    }

    fn decode(body: &[u8], encoding: Option<&[u8]>) -> Result<HealthCheckRequest, Status> {
        decode_unary(body, encoding, 1024)
    }

    #[test]
    fn empty_framed_and_gzipped_requests_are_alike() {
        let request = HealthCheckRequest { service: "a.B".to_owned() };
        let plain = prost::Message::encode_to_vec(&request);
        assert_eq!(decode(b"", None), Ok(HealthCheckRequest::default()));
        assert_eq!(decode(&framed(0, b""), None), Ok(HealthCheckRequest::default()));
        assert_eq!(decode(&framed(0, &plain), None), Ok(request.clone()));
        assert_eq!(decode(&framed(1, &gzip(&plain)), Some(b"gzip")), Ok(request));
    }

    #[test]
    fn broken_requests_say_what_is_wrong() {
        for (body, encoding, code) in [
            (framed(0, b"abc")[..7].to_vec(), None, Code::Internal),
            (vec![0, 0], None, Code::Internal),
            (framed(2, b""), None, Code::Internal),
            (framed(1, b"x"), Some(b"gzip".as_slice()), Code::Internal),
            (framed(1, b"x"), Some(b"zstd"), Code::Unimplemented),
            (framed(1, b"x"), None, Code::Internal),
            (framed(1, &gzip(&[0; 2000])), Some(b"gzip"), Code::ResourceExhausted),
        ] {
            assert_eq!(decode(&body, encoding).map_err(|status| status.code), Err(code));
        }
    }

    proptest! {
        #[test]
        fn sizes_are_seen_however_the_body_is_cut(
            sizes in prop::collection::vec(0_usize..300, 1..8),
            cuts in prop::collection::vec(1_usize..40, 1..400),
        ) {
            let body: Vec<u8> = sizes.iter().flat_map(|size| framed(0, &vec![7; *size])).collect();
            let largest = *sizes.iter().max().unwrap() as u64;
            for (limit, fits) in [(largest, true), (largest.saturating_sub(1), largest == 0)] {
                let mut scanner = MessageSizes::new(limit);
                let mut rest = body.as_slice();
                let mut cuts = cuts.iter().cycle();
                let mut outcome = Ok(());
                while !rest.is_empty() && outcome.is_ok() {
                    let (chunk, tail) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                    outcome = scanner.scan(chunk);
                    rest = tail;
                }
                prop_assert_eq!(outcome.is_ok(), fits);
            }
        }
    }
}
