//! Details of a status (google/rpc/status.proto, google/rpc/error_details.proto): when to come
//! back.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use prost::Message;
use prost_types::Any;

/// `google.rpc.Status`: the code and the words once more, as the protocol has it, and the details.
#[derive(Clone, PartialEq, Message)]
struct Details {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.RetryInfo`
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

/// The value of `grpc-status-details-bin` that bids a client come back after `delay`, beside a
/// status's code and words, in base64 without padding, as senders of binary metadata should write it
/// (grpc/doc/PROTOCOL-HTTP2.md).
pub(super) fn retry(code: i32, message: &str, delay: Duration) -> String {
    let retry_delay = prost_types::Duration::try_from(delay).ok();
    let info = RetryInfo { retry_delay }.encode_to_vec();
    let details = Details {
        code,
        message: message.to_owned(),
        details: vec![Any { type_url: RETRY_INFO.to_owned(), value: info }],
    };
    STANDARD_NO_PAD.encode(details.encode_to_vec())
}

/// When a `grpc-status-details-bin` bids a client come back, where it does. Receivers take it with
/// and without padding.
pub fn retry_delay(value: &[u8]) -> Option<Duration> {
    let unpadded = value.split(|byte| *byte == b'=').next()?;
    let details = Details::decode(STANDARD_NO_PAD.decode(unpadded).ok()?.as_slice()).ok()?;
    let info = details.details.iter().find(|detail| detail.type_url.ends_with(RETRY_INFO_NAME))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay.unwrap_or_default();
    // Less than nothing is now.
    Some(Duration::try_from(delay).unwrap_or_default())
}

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
const RETRY_INFO_NAME: &str = "/google.rpc.RetryInfo";

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let delay = Duration::from_millis(1500);
        let text = retry(14, "full", delay);
        assert_eq!(retry_delay(text.as_bytes()), Some(delay));
        let padded = STANDARD.encode(STANDARD_NO_PAD.decode(&text).unwrap());
        assert_eq!(retry_delay(padded.as_bytes()), Some(delay));
    }

    #[test]
    fn what_is_none_is_none() {
        let bare = Details { code: 14, message: String::new(), details: Vec::new() };
        let bare = STANDARD_NO_PAD.encode(bare.encode_to_vec());
        for text in ["", "!", "AAAA", &bare] {
            assert_eq!(retry_delay(text.as_bytes()), None, "{text:?}");
        }
    }
}
