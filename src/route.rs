//! What a request is: a health check in one of its dialects, a call to forward, or neither.

use std::collections::HashSet;

use http::{Method, StatusCode, header, request::Parts};

use crate::grpc::{Code, Status, is_grpc};

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Answer it from the board.
    Health(Dialect),
    /// Answer that the process runs.
    Live,
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

/// The routes of one listener.
#[derive(Debug, Clone)]
pub struct Router {
    health_paths: HashSet<String>,
    forwards: bool,
}

impl Router {
    /// Routes for a listener that answers health on `paths` too. Where it has no upstream,
    /// `forwards` is false.
    pub fn new(paths: &[String], forwards: bool) -> Self {
        let own = ["/", CHECK].map(str::to_owned);
        Self { health_paths: paths.iter().cloned().chain(own).collect(), forwards }
    }

    /// The route of a request with this head.
    pub fn route(&self, head: &Parts) -> Route {
        let path = head.uri.path();
        let read = matches!(head.method, Method::GET | Method::HEAD);
        if is_grpc(head.headers.get(header::CONTENT_TYPE)) {
            return match self.grpc(head) {
                Ok(route) => route,
                Err(status) => Route::Refuse(Refusal::Grpc(status)),
            };
        }
        let refuse = |status| Route::Refuse(Refusal::Http(status));
        match path {
            ALB if head.method == Method::POST => Route::Health(Dialect::Alb),
            "/livez" if read => Route::Live,
            _ if self.health_paths.contains(path) && read => Route::Health(Dialect::Http),
            "/livez" | WATCH | LIST => refuse(StatusCode::METHOD_NOT_ALLOWED),
            _ if self.health_paths.contains(path) => refuse(StatusCode::METHOD_NOT_ALLOWED),
            // As gRPC over HTTP/2 says of other content types.
            _ if head.method == Method::POST => refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE),
            _ => refuse(StatusCode::NOT_FOUND),
        }
    }

    /// The route of a request whose content type is gRPC's.
    fn grpc(&self, head: &Parts) -> Result<Route, Status> {
        if head.method != Method::POST {
            return Err(Status::new(Code::Unimplemented, "gRPC calls are POST"));
        }
        let path = head.uri.path();
        match path {
            CHECK => return Ok(Route::Health(Dialect::Check)),
            WATCH => return Ok(Route::Health(Dialect::Watch)),
            LIST => return Ok(Route::Health(Dialect::List)),
            ALB => return Ok(Route::Health(Dialect::Alb)),
            _ => {}
        }
        if method(path).is_none() || head.uri.query().is_some() {
            return Err(Status::new(Code::Unimplemented, "malformed method name"));
        }
        for name in [header::TE.as_str(), header::CONTENT_TYPE.as_str(), "grpc-timeout"] {
            if head.headers.get_all(name).iter().count() > 1 {
                return Err(Status::new(Code::InvalidArgument, format!("more than one {name}")));
            }
        }
        let authority = head.uri.authority().map(|authority| authority.as_str());
        let mut hosts = head.headers.get_all(header::HOST).iter();
        match (authority, hosts.next()) {
            (None, None) => Err(Status::new(Code::InvalidArgument, "no :authority")),
            (Some(authority), Some(host)) if authority.as_bytes() != host.as_bytes() => {
                Err(Status::new(Code::InvalidArgument, "host is not :authority"))
            }
            _ if hosts.next().is_some() => {
                Err(Status::new(Code::InvalidArgument, "more than one host"))
            }
            _ if self.forwards => Ok(Route::Forward),
            _ => Err(Status::new(Code::Unimplemented, "this listener answers health checks only")),
        }
    }
}

/// The service and method that a path names: `/SERVICE/METHOD`, at most 256 bytes of letters,
/// digits, `_`, and in the service `.`. What no code generator makes is no method.
pub fn method(path: &str) -> Option<(&str, &str)> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let lawful = path.len() <= 256
        && !service.is_empty()
        && !method.is_empty()
        && service.bytes().all(|byte| word(byte) || byte == b'.')
        && method.bytes().all(word);
    lawful.then_some((service, method))
}

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const LIST: &str = "/grpc.health.v1.Health/List";
const ALB: &str = "/AWS.ALB/healthcheck";

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn route(method: &str, path: &str, headers: &[(&str, &str)]) -> Route {
        let mut request = Request::builder().method(method).uri(format!("http://tempo{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let head = request.body(()).unwrap().into_parts().0;
        Router::new(&["/healthz".to_owned()], true).route(&head)
    }

    const GRPC: (&str, &str) = ("content-type", "application/grpc");
    const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

    fn refused(route: Route) -> Option<u16> {
        match route {
            Route::Refuse(Refusal::Grpc(status)) => Some(status.code as u16),
            Route::Refuse(Refusal::Http(status)) => Some(status.as_u16()),
            _ => None,
        }
    }

    #[test]
    fn every_dialect_has_its_route() {
        for (method, path, headers, dialect) in [
            ("POST", CHECK, &[GRPC] as &[_], Dialect::Check),
            ("POST", WATCH, &[GRPC], Dialect::Watch),
            ("POST", LIST, &[GRPC], Dialect::List),
            ("POST", ALB, &[GRPC], Dialect::Alb),
            ("POST", ALB, &[], Dialect::Alb),
            ("GET", CHECK, &[], Dialect::Http),
            ("HEAD", "/", &[], Dialect::Http),
            ("GET", "/healthz?service=a", &[], Dialect::Http),
        ] {
            assert_eq!(route(method, path, headers), Route::Health(dialect), "{method} {path}");
        }
        assert_eq!(route("GET", "/livez", &[]), Route::Live);
    }

    #[test]
    fn calls_are_forwarded_and_so_are_unknown_methods_of_the_health_service() {
        assert_eq!(route("POST", EXPORT, &[GRPC]), Route::Forward);
        assert_eq!(route("POST", "/grpc.health.v1.Health/Other", &[GRPC]), Route::Forward);
    }

    #[test]
    fn what_is_no_grpc_is_refused_by_http_status() {
        for (method, path, status) in [
            ("POST", CHECK, 405),
            ("PUT", "/", 405),
            ("GET", WATCH, 405),
            ("POST", "/livez", 405),
            ("POST", EXPORT, 415),
            ("GET", EXPORT, 404),
            ("GET", "/nothing", 404),
        ] {
            assert_eq!(refused(route(method, path, &[])), Some(status), "{method} {path}");
        }
    }

    #[test]
    fn what_is_broken_grpc_is_refused_by_grpc_status() {
        for (method, path, headers, code) in [
            ("GET", CHECK, &[GRPC] as &[_], 12),
            ("GET", "/", &[GRPC], 12),
            ("POST", "/", &[GRPC], 12),
            ("POST", "/a.B", &[GRPC], 12),
            ("POST", "/a.B//C", &[GRPC], 12),
            ("POST", "/a.B/C?d=e", &[GRPC], 12),
            ("POST", "/a.B/%43", &[GRPC], 12),
            ("POST", "/a.B/../C", &[GRPC], 12),
            ("POST", "/a.B/C", &[GRPC, ("te", "trailers"), ("te", "trailers")], 3),
            ("POST", "/a.B/C", &[GRPC, ("grpc-timeout", "1S"), ("grpc-timeout", "2S")], 3),
            ("POST", "/a.B/C", &[GRPC, GRPC], 3),
            ("POST", "/a.B/C", &[GRPC, ("host", "other")], 3),
        ] {
            assert_eq!(refused(route(method, path, headers)), Some(code), "{method} {path}");
        }
    }

    #[test]
    fn a_listener_without_upstream_forwards_nothing() {
        let head = Request::post(format!("http://tempo{EXPORT}"))
            .header("content-type", "application/grpc")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        assert_eq!(refused(Router::new(&[], false).route(&head)), Some(12));
    }

    #[test]
    fn a_path_too_long_names_no_method() {
        assert_eq!(method(&format!("/{}/M", "s".repeat(253))).map(|(s, _)| s.len()), Some(253));
        assert_eq!(method(&format!("/{}/M", "s".repeat(254))), None);
    }
}
