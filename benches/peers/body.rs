//! gRPC messages that are sent: real trace exports of a given size.

use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;

use crate::request::Request;

/// The body of one request: the message behind its prefix of five bytes.
pub(crate) fn body(request: Request) -> io::Result<Vec<u8>> {
    match request {
        Request::Export { bytes, gzip: false } => Ok(framed(0, &export(bytes))),
        Request::Export { bytes, gzip: true } => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&export(bytes))?;
            Ok(framed(1, &encoder.finish()?))
        }
        Request::Echo { bytes } => Ok(framed(0, &vec![b'e'; bytes])),
        Request::Check => Ok(framed(0, &[])),
        Request::Get => Ok(Vec::new()),
    }
}

fn framed(compressed: u8, message: &[u8]) -> Vec<u8> {
    let mut body = vec![compressed];
    body.extend_from_slice(&(message.len() as u32).to_be_bytes());
    body.extend_from_slice(message);
    body
}

/// An export of `bytes` bytes and a few: as many spans as have a place, and a statement
/// that fills the rest.
fn export(bytes: usize) -> Vec<u8> {
    let resource = Resource {
        attributes: vec![
            attribute("service.name", "checkout"),
            attribute("service.version", "2025.11.3"),
            attribute("host.name", "checkout-7d9f8c6b5-x2x4q"),
            attribute("telemetry.sdk.language", "go"),
        ],
        ..Resource::default()
    };
    let scope = ScopeSpans { spans: vec![span(0)], ..ScopeSpans::default() };
    let spans = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope],
        ..ResourceSpans::default()
    };
    let mut request = ExportTraceServiceRequest { resource_spans: vec![spans] };
    let each = span(1).encoded_len() + 3;
    let count = bytes.saturating_sub(request.encoded_len() + 64) / each;
    let spans = &mut request.resource_spans[0].scope_spans[0].spans;
    spans.extend((0..count as u64).map(|number| span(number + 1)));
    for _ in 0..3 {
        let missing = bytes.saturating_sub(request.encoded_len());
        let attributes = &mut request.resource_spans[0].scope_spans[0].spans[0].attributes;
        let filler = match attributes.last_mut().and_then(|last| last.value.as_mut()) {
            Some(AnyValue { value: Some(any_value::Value::StringValue(text)) }) => text,
            _ => break,
        };
        filler.push_str(&"x".repeat(missing));
    }
    request.encode_to_vec()
}

fn span(number: u64) -> Span {
    let mut random = fastrand::Rng::with_seed(number);
    let mut id = |length: usize| (0..length).map(|_| random.u8(..)).collect::<Vec<_>>();
    let start = 1_760_000_000_000_000_000 + number * 1_003_001;
    Span {
        trace_id: id(16),
        span_id: id(8),
        parent_span_id: id(8),
        name: "POST /cart/checkout".to_owned(),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: start + 40_000_000 + number,
        attributes: vec![
            attribute("http.request.method", "POST"),
            attribute("http.route", "/cart/checkout"),
            attribute("url.path", &format!("/cart/checkout/{number:08}")),
            attribute("server.address", "checkout.shop.svc.cluster.local"),
            attribute("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64)"),
            attribute("db.query.text", "SELECT 1 "),
        ],
        ..Span::default()
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = any_value::Value::StringValue(value.to_owned());
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}
