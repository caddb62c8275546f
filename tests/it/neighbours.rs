//! One client's trouble stays its own: no neighbour on the same worker feels a client that does not
//! read, does not finish, breaks off, waits or is failed.

mod blamed;
mod resets;
mod stuck;
mod unfinished;
mod unread;
mod waiting;

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tonic_types::StatusExt;

use crate::fixture::{
    caller::{Call, Caller},
    eventually,
    proxy::{Proxy, yaml},
    wire::{End, Frame, INITIAL_WINDOW_SIZE, Message, SETTINGS, Wire},
};

const ANSWER: &str = "/test.Echo/Answer";
const HANG: &str = "/test.Echo/Hang";
const SLOW: &str = "/test.Echo/Slow";
const UNARY: &str = "/test.Echo/Unary";

const RESOURCE_EXHAUSTED: u8 = 8;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Puts one worker in front of `endpoints`, so that all clients are neighbours.
fn one_worker(endpoints: &[SocketAddr], more: &str) -> String {
    yaml(endpoints, "{ tcp: {} }", more).replace("workers: 2", "workers: 1")
}

/// Starts such a proxy, and waits until all its endpoints are healthy.
async fn proxy(endpoints: &[SocketAddr], more: &str) -> Proxy {
    healthy(&one_worker(endpoints, more), endpoints.len()).await
}

async fn healthy(config: &str, endpoints: usize) -> Proxy {
    let proxy = Proxy::start(config).await;
    eventually("all are healthy", async || proxy.status().await.upstreams[0].healthy == endpoints)
        .await;
    proxy
}

/// Returns the head of a call.
fn call(path: &str) -> Vec<(&str, &str)> {
    vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "upbeat"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
}

/// Returns the head of a call whose answer is a message of so many bytes.
fn asks_for(bytes: &str) -> Vec<(&str, &str)> {
    [call(ANSWER), vec![("x-bytes", bytes)]].concat()
}

/// Sends a whole request.
async fn begin(caller: &mut Caller, path: &str) -> Call {
    let mut call = caller.open(path).await.unwrap();
    call.request.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    call
}

/// Connects a client whose streams each take `window` bytes, and then no more until it says so.
async fn takes(address: SocketAddr, window: u32) -> Wire {
    let mut wire = Wire::connect(address).await;
    wire.credits = false;
    let setting = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &window.to_be_bytes()].concat();
    wire.send(Frame::new(SETTINGS, 0, 0, setting)).await;
    wire
}

/// Returns the status of a response.
fn code(message: &Message) -> Option<u8> {
    std::str::from_utf8(message.value("grpc-status")?).ok()?.parse().ok()
}

/// Tells a status with RetryInfo, which bids its client to come back.
fn bids_come_back(message: &Message) -> bool {
    let mut fields = HeaderMap::new();
    for (name, value) in message.fields().filter(|(name, _)| !name.starts_with(b":")) {
        let name = HeaderName::from_bytes(name).unwrap();
        fields.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    let status = tonic::Status::from_header_map(&fields);
    status.is_some_and(|status| status.get_details_retry_info().is_some())
}

/// Tells a response that ended by a status, not by a reset.
fn is_whole(message: &Message) -> bool {
    matches!(message.ended_by, End::Head | End::Trailers)
}

/// Names the counter of streams that were cut for this reason.
fn ended(reason: &str) -> String {
    format!(r#"upbeat_streams_cut_total{{listener="otlp",reason="{reason}"}}"#)
}

async fn in_flight(proxy: &Proxy) -> f64 {
    proxy.metric(r#"upbeat_streams{listener="otlp",upstream="otlp"}"#).await
}
