//! What gRPC adds to HTTP/2: status codes, message framing, the health protocol, reflection.

pub mod descriptor;
mod details;
mod health;
mod message;
mod reflection;
mod status;
pub mod timeout;

pub use self::details::retry_delay;
pub use self::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListResponse, ServingStatus,
};
pub use self::message::{MessageSizes, TooLarge, decode_unary, encode};
pub use self::reflection::{
    ErrorResponse, ExtensionNumberResponse, ExtensionRequest, FileDescriptorResponse,
    ListServiceResponse, Question, Reply, ServerReflectionRequest, ServerReflectionResponse,
    ServiceResponse,
};
pub use self::status::{Code, Status, percent_decode};

/// Whether a content type is gRPC's, as gRPC-over-HTTP/2 defines it: `application/grpc`, alone or
/// with a `+` subtype or parameters.
pub fn is_grpc(value: &[u8]) -> bool {
    let prefix = b"application/grpc";
    let Some((first, rest)) = value.split_first_chunk::<16>() else { return false };
    // As it is written mostly; to fold the case of each letter takes time.
    (first == prefix || first.eq_ignore_ascii_case(prefix))
        && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grpc_content_types_are_grpc() {
        for (text, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(text.as_bytes()), expected, "{text}");
        }
    }
}
