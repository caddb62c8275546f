//! Status codes, and how a status is written into headers.

use std::{borrow::Cow, fmt, time::Duration};

use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};

use super::details;

/// A gRPC status code (grpc/doc/statuscodes.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// 0
    Ok = 0,
    /// 1
    Cancelled,
    /// 2
    Unknown,
    /// 3
    InvalidArgument,
    /// 4
    DeadlineExceeded,
    /// 5
    NotFound,
    /// 6
    AlreadyExists,
    /// 7
    PermissionDenied,
    /// 8
    ResourceExhausted,
    /// 9
    FailedPrecondition,
    /// 10
    Aborted,
    /// 11
    OutOfRange,
    /// 12
    Unimplemented,
    /// 13
    Internal,
    /// 14
    Unavailable,
    /// 15
    DataLoss,
    /// 16
    Unauthenticated,
}

impl Code {
    /// Every code, by its number.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The code of a `grpc-status` field, where there is one. A number that no code has is
    /// [`Code::Unknown`], as the protocol says.
    pub fn of(fields: &HeaderMap) -> Option<Self> {
        let value = fields.get(GRPC_STATUS)?.to_str().ok();
        let number = value.and_then(|value| value.parse::<usize>().ok());
        Some(number.and_then(|n| Self::ALL.get(n).copied()).unwrap_or(Self::Unknown))
    }

    /// The name as the specification writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A code and the words that go with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What class of outcome.
    pub code: Code,
    /// For people; may be empty.
    pub message: Cow<'static, str>,
    /// When a client should come back, where it should.
    pub retry_delay: Option<Duration>,
}

impl Status {
    /// The status of a call that went well.
    pub const OK: Self = Self { code: Code::Ok, message: Cow::Borrowed(""), retry_delay: None };

    /// A status with its words.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), retry_delay: None }
    }

    /// UNAVAILABLE for now: the client should come back, and is told when, each at another time, so
    /// that those who were turned away at once do not return at once
    /// (OpenTelemetry specification, OTLP/gRPC Throttling).
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        let delay = FIRST_RETRY + (LAST_RETRY - FIRST_RETRY).mul_f64(fastrand::f64());
        Self { retry_delay: Some(delay), ..Self::new(Code::Unavailable, message) }
    }

    /// The status in `fields`, its message decoded, where there is one. Its details are not read.
    pub fn of(fields: &HeaderMap) -> Option<Self> {
        let code = Code::of(fields)?;
        let message = fields.get(GRPC_MESSAGE).map(|value| percent_decode(value.as_bytes()));
        Some(Self::new(code, message.unwrap_or_default()))
    }

    /// Its message as `grpc-message` has it.
    pub fn encoded_message(&self) -> String {
        percent_encode(&self.message)
    }

    /// What `grpc-status-details-bin` has of it: a RetryInfo, where a client should come back.
    pub fn encoded_details(&self) -> Option<String> {
        self.retry_delay.map(|delay| details::retry(self.code as i32, &self.message, delay))
    }

    /// The trailers that carry it: `grpc-status`, `grpc-message` where there are words, and
    /// `grpc-status-details-bin` where a client should come back.
    pub fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(3);
        trailers.insert(GRPC_STATUS, HeaderValue::from(self.code as u16));
        if !self.message.is_empty() {
            let message = HeaderValue::from_str(&self.encoded_message());
            let message = message.expect("percent-encoding leaves printable ASCII only");
            trailers.insert(GRPC_MESSAGE, message);
        }
        if let Some(details) = self.encoded_details() {
            let details = HeaderValue::try_from(details).expect("base64 is printable ASCII");
            trailers.insert(GRPC_STATUS_DETAILS, details);
        }
        trailers
    }

    /// The head of a trailers-only response: `:status` 200, the content type, and the status.
    pub fn trailers_only(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.headers_mut() = self.trailers();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.code as u8, self.code)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, " {:?}", self.message) }
    }
}

/// Percent-encoding of `grpc-message`: everything but printable ASCII, and `%` itself
/// (grpc/doc/PROTOCOL-HTTP2.md, Responses).
fn percent_encode(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
            _ => encoded.push(char::from(byte)),
        }
    }
    encoded
}

/// Undoes percent-encoding; a `%` that no two hexadecimal digits follow is left as it is.
pub fn percent_decode(encoded: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let [byte, tail @ ..] = rest {
        let pair = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(value) if *byte == b'%' => {
                decoded.push(value);
                rest = &tail[2..];
            }
            _ => {
                decoded.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";
const GRPC_STATUS_DETAILS: &str = "grpc-status-details-bin";
/// A new connection, or the next probe of an endpoint that is back, takes about so long.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Some exporters give a batch up a minute after its first attempt: many more must fit.
const LAST_RETRY: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn codes_are_their_numbers() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, number);
        }
    }

    #[test]
    fn a_number_that_no_code_has_is_unknown() {
        for text in ["17", "-1", "x", ""] {
            let mut fields = HeaderMap::new();
            fields.insert("grpc-status", HeaderValue::from_str(text).unwrap());
            assert_eq!(Code::of(&fields), Some(Code::Unknown), "{text:?}");
        }
        assert_eq!(Code::of(&HeaderMap::new()), None);
    }

    #[test]
    fn message_is_percent_encoded() {
        let trailers = Status::new(Code::Unavailable, "50% of\nfür").trailers();
        assert_eq!(trailers["grpc-message"], "50%25 of%0Af%C3%BCr");
    }

    proptest! {
        #[test]
        fn any_message_comes_back(message in ".*") {
            let status = Status::new(Code::Internal, message);
            prop_assert_eq!(Status::of(&status.trailers()), Some(status));
        }
    }
}
