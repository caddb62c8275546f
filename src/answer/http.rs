//! Health for those who ask by GET or HEAD.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    grpc::{ServingStatus, percent_decode},
    health::{Service, Snapshot},
};

/// A health check by GET or HEAD.
#[derive(Debug, Clone, Copy)]
pub struct HttpCheck<'a> {
    /// Path and query. `?service=NAME` asks for a service, and `?verbose` for the reasons.
    pub target: &'a str,
    /// Whether the last part of the path is the service's name.
    pub named: bool,
    /// The `accept` field; `application/json` in it makes the answer JSON.
    pub accept: Option<&'a [u8]>,
}

impl HttpCheck<'_> {
    fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// The service asked for.
    fn service(&self) -> String {
        let asked = self.pairs().find(|(key, _)| *key == "service").map(|(_, name)| name);
        let named = self.path().rsplit('/').next().filter(|_| self.named);
        percent_decode(asked.or(named).unwrap_or_default().as_bytes())
    }

    fn is_verbose(&self) -> bool {
        self.pairs().any(|(key, value)| key == "verbose" && !matches!(value, "0" | "false"))
    }

    fn wants_json(&self) -> bool {
        let json = b"application/json";
        let accept = self.accept.unwrap_or_default();
        accept.windows(json.len()).any(|part| part.eq_ignore_ascii_case(json))
    }
}

/// 200 `SERVING`, 503 `NOT_SERVING`, or 404 for a service that does not exist. With `details`, JSON
/// and what is asked verbosely have the reason too, and a verbose overall answer has all services.
pub(super) fn answer(snapshot: &Snapshot, asked: &HttpCheck<'_>, details: bool) -> Response<Bytes> {
    let name = asked.service();
    let service = snapshot.service(&name);
    let (status, word) = match service.map(|service| service.status) {
        Some(ServingStatus::Serving) => (StatusCode::OK, "SERVING"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "NOT_SERVING"),
        None => (StatusCode::NOT_FOUND, "SERVICE_UNKNOWN"),
    };
    let verbose = asked.is_verbose() && details;
    let others =
        snapshot.services().filter(|(other, _)| verbose && name.is_empty() && *other != name);
    if asked.wants_json() {
        let mut body = match service {
            Some(service) => entry(&name, service, details),
            None => json!({ "service": name, "status": word }),
        };
        if verbose && name.is_empty() {
            body["services"] = others.map(|(name, service)| entry(name, service, true)).collect();
        }
        return response(status, JSON, body.to_string().into());
    }
    let Some(service) = service.filter(|_| verbose) else { return text(status, word) };
    let mut body = format!("{word}\n{}", line(&name, service));
    for (name, service) in others {
        body.push_str(&line(name, service));
    }
    response(status, TEXT, body.into())
}

/// A service as JSON.
fn entry(name: &str, service: &Service, details: bool) -> Value {
    let mut entry = json!({ "service": name, "status": service.status.to_string() });
    if details {
        entry["since"] = since(service).into();
        entry["reason"] = (*service.reason).into();
    }
    entry
}

/// A service as text: `[+]` where it serves, `[-]` where it does not.
fn line(name: &str, service: &Service) -> String {
    let sign = if service.status == ServingStatus::Serving { '+' } else { '-' };
    let name = if name.is_empty() { "overall" } else { name };
    let colon = if service.reason.is_empty() { "" } else { ": " };
    let (status, since) = (service.status, since(service));
    // A backend's words may be in it.
    let reason = service.reason.replace(char::is_control, " ");
    format!("[{sign}]{name} {status} since {since}{colon}{reason}\n")
}

fn since(service: &Service) -> String {
    humantime::format_rfc3339_seconds(service.since).to_string()
}

/// A short text that no cache keeps.
pub(super) fn text(status: StatusCode, text: &'static str) -> Response<Bytes> {
    response(status, TEXT, Bytes::from_static(text.as_bytes()))
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Bytes> {
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_LENGTH, length);
    response
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
