//! What fields mean here.

/// What a field is to the relay, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `:method`
    Method,
    /// `:scheme`
    Scheme,
    /// `:authority`
    Authority,
    /// `:path`
    Path,
    /// `:status`
    Status,
    /// Another name that begins with a colon, `:protocol` among them.
    UnknownPseudo,
    /// Forbidden in HTTP/2 (RFC 9113, 8.2.2).
    HopByHop,
    /// `te`
    Te,
    /// `host`
    Host,
    /// `content-type`
    ContentType,
    /// `content-length`
    ContentLength,
    /// `grpc-status`
    GrpcStatus,
    /// `grpc-timeout`
    GrpcTimeout,
    /// `grpc-encoding`
    GrpcEncoding,
    /// `accept`
    Accept,
    /// Passed on without a look.
    Plain,
}

impl Role {
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            b":status" => Self::Status,
            [b':', ..] => Self::UnknownPseudo,
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding"
            | b"upgrade" => Self::HopByHop,
            b"te" => Self::Te,
            b"host" => Self::Host,
            b"content-type" => Self::ContentType,
            b"content-length" => Self::ContentLength,
            b"grpc-status" => Self::GrpcStatus,
            b"grpc-timeout" => Self::GrpcTimeout,
            b"grpc-encoding" => Self::GrpcEncoding,
            b"accept" => Self::Accept,
            _ => Self::Plain,
        }
    }

    /// Whether the name begins with a colon.
    pub fn is_pseudo(self) -> bool {
        matches!(
            self,
            Self::Method
                | Self::Scheme
                | Self::Authority
                | Self::Path
                | Self::Status
                | Self::UnknownPseudo
        )
    }
}
