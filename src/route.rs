//! What a request is: a health check in one of its dialects, a call to forward, or neither.

mod path;
mod table;

use std::{borrow::Cow, collections::HashSet};

use http::{StatusCode, header, request::Parts};

use self::path::{ALB, CHECK, LIST, REFLECTION, REFLECTION_ALPHA, WATCH};
pub use self::{
    path::{Path, is_authority, method},
    table::{Candidates, Table},
};
use crate::grpc::{Code, Status, is_grpc};

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Answer it from the board.
    Health(Dialect),
    /// Answer that the process runs.
    Live,
    /// Answer what it asks of the services here.
    Reflection,
    /// Send it to the listener's upstream.
    Forward,
    /// Turn it away.
    Refuse(Refusal),
}

/// In which words a health check was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `grpc.health.v1.Health/Check`.
    Check,
    /// `grpc.health.v1.Health/Watch`.
    Watch,
    /// `grpc.health.v1.Health/List`.
    List,
    /// AWS ALB's default path, which no server implements: 12 is what it takes for health.
    Alb,
    /// GET or HEAD.
    Http,
}

impl Dialect {
    /// The word for it in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Watch => "watch",
            Self::List => "list",
            Self::Alb => "alb",
            Self::Http => "http",
        }
    }
}

/// How a request is turned away: in gRPC's words where its content type is gRPC's, and only then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Trailers-only.
    Grpc(Status),
    /// A bare status; 405 tells which methods are allowed.
    Http(StatusCode),
}

/// A request's method, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// GET or HEAD.
    Read,
    /// POST.
    Post,
    /// Any other.
    Other,
}

impl Verb {
    /// Of a method's name.
    pub fn of(method: &[u8]) -> Self {
        match method {
            b"GET" | b"HEAD" => Self::Read,
            b"POST" => Self::Post,
            _ => Self::Other,
        }
    }
}

/// What makes a call one that must not be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A field that must be there once at most.
    Repeated(&'static str),
    /// Neither `:authority` nor `host`.
    NoAuthority,
    /// `host` is another than `:authority`.
    OtherHost,
    /// No host, or host and port, as RFC 3986, 3.2.2 has them.
    BadAuthority,
    /// Neither http nor https.
    BadScheme,
    /// A grpc-timeout of another form than the protocol's.
    BadTimeout,
}

impl Fault {
    fn status(self) -> Status {
        let words = match self {
            Self::Repeated(name) => format!("more than one {name}").into(),
            Self::NoAuthority => Cow::Borrowed("no :authority"),
            Self::OtherHost => Cow::Borrowed("host is not :authority"),
            Self::BadAuthority => Cow::Borrowed(":authority is no host and port"),
            Self::BadScheme => Cow::Borrowed(":scheme is neither http nor https"),
            Self::BadTimeout => Cow::Borrowed("grpc-timeout is not up to eight digits and a unit"),
        };
        Status::new(Code::InvalidArgument, words)
    }
}

/// What a request's head comes to.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Its method.
    pub verb: Verb,
    /// Its path.
    pub path: Path,
    /// Whether its content type is gRPC's.
    pub grpc: bool,
    /// What is wrong with its metadata, for a call.
    pub fault: Option<Fault>,
}

/// The routes of one listener.
#[derive(Debug, Clone)]
pub struct Router {
    health_paths: HashSet<Vec<u8>>,
    forwards: bool,
    reflects: bool,
}

impl Router {
    /// Routes for a listener that answers health on `paths` too. Where it has no upstream,
    /// `forwards` is false.
    pub fn new(paths: &[String], forwards: bool) -> Self {
        let paths = paths.iter().map(|path| path.clone().into_bytes());
        let health_paths = paths.chain([b"/".to_vec()]).collect();
        Self { health_paths, forwards, reflects: false }
    }

    /// The same, but with reflection answered here, or not: then it is a method like any other.
    pub fn with_reflection(self, reflects: bool) -> Self {
        Self { reflects, ..self }
    }

    /// What a `:path`, its query included, is here.
    pub fn path(&self, target: &[u8]) -> Path {
        let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
        match &target[..end] {
            CHECK => Path::Check,
            WATCH => Path::Watch,
            LIST => Path::List,
            ALB => Path::Alb,
            REFLECTION | REFLECTION_ALPHA if self.reflects => Path::Reflection,
            b"/livez" => Path::Live,
            path if self.health_paths.contains(path) => Path::Health,
            path => {
                let method = end == target.len() && method(path).is_some();
                match (self.is_named(path), method) {
                    (true, method) => Path::Named { method },
                    (false, true) => Path::Method,
                    (false, false) => Path::Other,
                }
            }
        }
    }

    /// Whether a path is one of the configured ones with a name behind it.
    fn is_named(&self, path: &[u8]) -> bool {
        let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or_default();
        slash > 0 && self.health_paths.contains(&path[..slash])
    }

    /// The route of a request over HTTP/1.1.
    pub fn http1(&self, head: &Parts) -> Route {
        let target = head.uri.path_and_query().map_or("", |target| target.as_str());
        self.route(&Request {
            verb: Verb::of(head.method.as_str().as_bytes()),
            path: self.path(target.as_bytes()),
            grpc: head
                .headers
                .get(header::CONTENT_TYPE)
                .is_some_and(|value| is_grpc(value.as_bytes())),
            fault: None,
        })
    }

    /// The route of a request.
    pub fn route(&self, request: &Request) -> Route {
        if request.grpc {
            return self
                .call(request)
                .unwrap_or_else(|status| Route::Refuse(Refusal::Grpc(status)));
        }
        let refuse = |status| Route::Refuse(Refusal::Http(status));
        match (request.path, request.verb) {
            (Path::Alb, Verb::Post) => Route::Health(Dialect::Alb),
            (Path::Live, Verb::Read) => Route::Live,
            (Path::Health | Path::Named { .. } | Path::Check, Verb::Read) => {
                Route::Health(Dialect::Http)
            }
            (Path::Health | Path::Check | Path::Live | Path::Watch | Path::List, _)
            | (Path::Named { method: false }, _) => refuse(StatusCode::METHOD_NOT_ALLOWED),
            // As gRPC over HTTP/2 says of other content types.
            (_, Verb::Post) => refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE),
            _ => refuse(StatusCode::NOT_FOUND),
        }
    }

    /// The route of a request whose content type is gRPC's.
    fn call(&self, request: &Request) -> Result<Route, Status> {
        if request.verb != Verb::Post {
            return Err(Status::new(Code::Unimplemented, "gRPC calls are POST"));
        }
        match (request.path, request.fault) {
            (Path::Check, _) => Ok(Route::Health(Dialect::Check)),
            (Path::Watch, _) => Ok(Route::Health(Dialect::Watch)),
            (Path::List, _) => Ok(Route::Health(Dialect::List)),
            (Path::Alb, _) => Ok(Route::Health(Dialect::Alb)),
            (Path::Reflection, _) => Ok(Route::Reflection),
            (Path::Method | Path::Named { method: true }, Some(fault)) => Err(fault.status()),
            (Path::Method | Path::Named { method: true }, None) if self.forwards => {
                Ok(Route::Forward)
            }
            (Path::Method | Path::Named { method: true }, None) => {
                Err(Status::new(Code::Unimplemented, "this listener answers health checks only"))
            }
            (Path::Live | Path::Health | Path::Named { method: false } | Path::Other, _) => {
                Err(Status::new(Code::Unimplemented, "malformed method name"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(verb: &str, path: &[u8], grpc: bool) -> Route {
        let router = Router::new(&["/healthz".to_owned()], true);
        let (verb, path) = (Verb::of(verb.as_bytes()), router.path(path));
        router.route(&Request { verb, path, grpc, fault: None })
    }

    const EXPORT: &[u8] = b"/opentelemetry.proto.collector.trace.v1.TraceService/Export";

    fn refused(route: Route) -> Option<u16> {
        match route {
            Route::Refuse(Refusal::Grpc(status)) => Some(status.code as u16),
            Route::Refuse(Refusal::Http(status)) => Some(status.as_u16()),
            _ => None,
        }
    }

    #[test]
    fn reflection_is_a_method_like_any_other_unless_it_is_answered_here() {
        for path in [REFLECTION, REFLECTION_ALPHA] {
            assert_eq!(route("POST", path, true), Route::Forward);
            let router = Router::new(&[], false).with_reflection(true);
            let request =
                Request { verb: Verb::Post, path: router.path(path), grpc: true, fault: None };
            assert_eq!(router.route(&request), Route::Reflection);
            let plain = router.route(&Request { grpc: false, ..request });
            assert_eq!(refused(plain), Some(415));
        }
    }

    #[test]
    fn every_dialect_has_its_route() {
        for (verb, path, grpc, dialect) in [
            ("POST", CHECK, true, Dialect::Check),
            ("POST", WATCH, true, Dialect::Watch),
            ("POST", LIST, true, Dialect::List),
            ("POST", ALB, true, Dialect::Alb),
            ("POST", ALB, false, Dialect::Alb),
            ("GET", CHECK, false, Dialect::Http),
            ("HEAD", b"/", false, Dialect::Http),
            ("GET", b"/healthz?service=a", false, Dialect::Http),
        ] {
            assert_eq!(route(verb, path, grpc), Route::Health(dialect), "{verb} {path:?}");
        }
        assert_eq!(route("GET", b"/livez", false), Route::Live);
    }

    #[test]
    fn calls_are_forwarded_and_so_are_unknown_methods_of_the_health_service() {
        assert_eq!(route("POST", EXPORT, true), Route::Forward);
        assert_eq!(route("POST", b"/grpc.health.v1.Health/Other", true), Route::Forward);
    }

    #[test]
    fn what_is_no_grpc_is_refused_by_http_status() {
        for (verb, path, status) in [
            ("POST", CHECK, 405),
            ("PUT", b"/", 405),
            ("GET", WATCH, 405),
            ("POST", b"/livez", 405),
            ("POST", EXPORT, 415),
            ("GET", EXPORT, 404),
            ("GET", b"/nothing", 404),
        ] {
            assert_eq!(refused(route(verb, path, false)), Some(status), "{verb} {path:?}");
        }
    }

    #[test]
    fn what_is_broken_grpc_is_refused_by_grpc_status() {
        for (verb, path) in [
            ("GET", CHECK),
            ("GET", b"/"),
            ("POST", b"/"),
            ("POST", b"/a.B"),
            ("POST", b"/a.B//C"),
            ("POST", b"/a.B/C?d=e"),
            ("POST", b"/a.B/C#d"),
            ("POST", b"/a.B/%43"),
            ("POST", b"/a.B/../C"),
            ("POST", b"/a.B/\xff"),
        ] {
            assert_eq!(refused(route(verb, path, true)), Some(12), "{verb} {path:?}");
        }
        let router = Router::new(&[], true);
        for fault in [
            Fault::Repeated("te"),
            Fault::NoAuthority,
            Fault::OtherHost,
            Fault::BadAuthority,
            Fault::BadScheme,
            Fault::BadTimeout,
        ] {
            let call =
                Request { verb: Verb::Post, path: Path::Method, grpc: true, fault: Some(fault) };
            assert_eq!(refused(router.route(&call)), Some(3), "{fault:?}");
        }
    }

    #[test]
    fn authorities_are_hosts_and_ports() {
        for text in ["tempo", "tempo.example:4317", "10.0.0.1:1", "[::1]:4317", "a_b~c"] {
            assert!(is_authority(text.as_bytes()), "{text}");
        }
        for text in ["", "a b", "u@h", "h/x", "h?q", "h#f", "h\\x"] {
            assert!(!is_authority(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_listener_without_upstream_forwards_nothing() {
        let (router, verb) = (Router::new(&[], false), Verb::Post);
        let call = Request { verb, path: Path::Method, grpc: true, fault: None };
        assert_eq!(refused(router.route(&call)), Some(12));
    }

    #[test]
    fn a_path_too_long_names_no_method() {
        let path = |length| format!("/{}/M", "s".repeat(length)).into_bytes();
        assert_eq!(method(&path(253)).map(|(service, _)| service.len()), Some(253));
        assert_eq!(method(&path(254)), None);
    }
}
