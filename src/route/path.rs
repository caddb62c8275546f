//! Paths, and what they may be made of.

/// What a path is, whatever the request around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// `grpc.health.v1.Health/Check`.
    Check,
    /// `grpc.health.v1.Health/Watch`.
    Watch,
    /// `grpc.health.v1.Health/List`.
    List,
    /// `/AWS.ALB/healthcheck`.
    Alb,
    /// `grpc.reflection.v1.ServerReflection/ServerReflectionInfo`, where it is answered here.
    Reflection,
    /// `/livez`.
    Live,
    /// `/`, or one of the configured paths.
    Health,
    /// One of the configured paths and a service's name, such as `/healthz/NAME`. `method` where it
    /// has the form of a gRPC method too, which it is to a call.
    Named {
        /// Of that form.
        method: bool,
    },
    /// Of a gRPC method.
    Method,
    /// None of these.
    Other,
}

/// Whether bytes are a host, or host and port: letters, digits and what RFC 3986, 3.2.2 allows
/// beside them, but no user information, which RFC 9113, 8.3.1 forbids.
pub fn is_authority(bytes: &[u8]) -> bool {
    let lawful = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte);
    !bytes.is_empty() && bytes.iter().all(lawful)
}

/// The service and method that a path names: `/SERVICE/METHOD`, at most 256 bytes of letters,
/// digits, `_`, and in the service `.`. What no code generator makes is no method.
pub fn method(path: &[u8]) -> Option<(&str, &str)> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let path = str::from_utf8(path).ok()?;
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let lawful = path.len() <= 256
        && !service.is_empty()
        && !method.is_empty()
        && service.bytes().all(|byte| word(byte) || byte == b'.')
        && method.bytes().all(word);
    lawful.then_some((service, method))
}

pub(super) const CHECK: &[u8] = b"/grpc.health.v1.Health/Check";
pub(super) const WATCH: &[u8] = b"/grpc.health.v1.Health/Watch";
pub(super) const LIST: &[u8] = b"/grpc.health.v1.Health/List";
pub(super) const ALB: &[u8] = b"/AWS.ALB/healthcheck";
pub(super) const REFLECTION: &[u8] = b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
pub(super) const REFLECTION_ALPHA: &[u8] =
    b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
