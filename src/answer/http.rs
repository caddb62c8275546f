//! Health for those who ask by GET or HEAD.

use http::{HeaderValue, Response, StatusCode, header};

use crate::{
    grpc::{ServingStatus, percent_decode},
    health::Snapshot,
};

/// 200 `SERVING`, 503 `NOT_SERVING`, or 404 for a `?service=` that does not exist.
pub(super) fn answer(snapshot: &Snapshot, query: Option<&str>) -> Response<&'static str> {
    let pairs = query.unwrap_or_default().split('&');
    let service = pairs.filter_map(|pair| pair.strip_prefix("service=")).next().unwrap_or_default();
    match snapshot.service(&percent_decode(service.as_bytes())) {
        Some(service) if service.status == ServingStatus::Serving => {
            response(StatusCode::OK, "SERVING")
        }
        Some(_) => response(StatusCode::SERVICE_UNAVAILABLE, "NOT_SERVING"),
        None => response(StatusCode::NOT_FOUND, "SERVICE_UNKNOWN"),
    }
}

/// A short text that no cache keeps.
pub(super) fn response(status: StatusCode, text: &'static str) -> Response<&'static str> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    response
}
