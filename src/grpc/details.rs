//! Details of a status (google/rpc/status.proto, google/rpc/error_details.proto): when to come
//! back.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use prost::Message;
use prost_types::Any;

use super::status::Status;

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

/// The value of `grpc-status-details-bin` that bids a client come back after `delay`, in base64
/// without padding, as senders of binary metadata should write it (grpc/doc/PROTOCOL-HTTP2.md).
pub(super) fn retry(status: &Status, delay: Duration) -> String {
    let retry_delay = prost_types::Duration::try_from(delay).ok();
    let info = RetryInfo { retry_delay }.encode_to_vec();
    let details = Details {
        code: status.code as i32,
        message: status.message.to_string(),
        details: vec![Any { type_url: RETRY_INFO.to_owned(), value: info }],
    };
    STANDARD_NO_PAD.encode(details.encode_to_vec())
}

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
