//! Calls at a steady rate, as exporters make them: each with a deadline, however the others fare.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, header};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;
use tokio::{
    net::TcpStream,
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::{Instant, interval, timeout},
};
use upbeat::grpc::Status;

use crate::fixture::{caller::read, wire::grpc_frame};

/// Of a call whose response has not come in time.
pub(super) const TOO_LATE: &str = "its deadline passed";

/// A call that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) id: String,
    pub(super) began: Instant,
    pub(super) ended: Instant,
    /// What was said of it, where it failed.
    pub(super) failure: Option<String>,
}

/// Makes so many calls a second until `end`, over a few connections; returns when all have ended.
pub(super) async fn load(address: SocketAddr, rate: u64, end: Instant) -> Vec<Ended> {
    let (sender, mut ended) = unbounded_channel();
    let mut connections = JoinSet::new();
    for number in 0..CONNECTIONS {
        connections.spawn(connection(address, number, rate, end, sender.clone()));
    }
    drop(sender);
    let mut calls = Vec::new();
    while let Some(call) = ended.recv().await {
        calls.push(call);
    }
    while let Some(connection) = connections.join_next().await {
        connection.unwrap();
    }
    calls
}

async fn connection(
    address: SocketAddr,
    number: u64,
    rate: u64,
    end: Instant,
    calls: UnboundedSender<Ended>,
) {
    let socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    // A test that is short of CPU time reads its responses late, and is not under attack.
    let mut builder = h2::client::Builder::new();
    let (sender, connection) = builder.data_frame_budget(64 << 20).handshake(socket).await.unwrap();
    let (mut tasks, mut driver) = (JoinSet::new(), JoinSet::new());
    driver.spawn(connection);
    let mut ticks = interval(Duration::from_secs(CONNECTIONS) / u32::try_from(rate).unwrap());
    let body = Bytes::from(request());
    for count in 0_u64.. {
        let began = ticks.tick().await;
        if began >= end {
            break;
        }
        let (id, sender, body) = (format!("{number}-{count}"), sender.clone(), body.clone());
        let calls = calls.clone();
        tasks.spawn(async move {
            let failure = match timeout(DEADLINE, call(sender, address, &id, body)).await {
                Ok(Ok(status)) if status.code as u8 == 0 => None,
                Ok(Ok(status)) => Some(status.to_string()),
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(TOO_LATE.to_owned()),
            };
            _ = calls.send(Ended { id, began, ended: Instant::now(), failure });
        });
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}

async fn call(
    sender: SendRequest<Bytes>,
    address: SocketAddr,
    id: &str,
    body: Bytes,
) -> Result<Status, h2::Error> {
    let path = "opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let request = Request::post(format!("http://{address}/{path}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header("grpc-timeout", format!("{}S", DEADLINE.as_secs()))
        .header("x-call", id)
        .body(())
        .unwrap();
    let (response, mut stream) = sender.ready().await?.send_request(request, false)?;
    stream.send_data(body, true)?;
    Ok(read(response.await?).await?.status().expect("a gRPC response has a status"))
}

/// An Export of one span, framed.
fn request() -> Vec<u8> {
    let span = Span {
        trace_id: vec![7; 16],
        span_id: vec![7; 8],
        name: "span".repeat(50),
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
    grpc_frame(&ExportTraceServiceRequest { resource_spans }.encode_to_vec())
}

const CONNECTIONS: u64 = 8;
const DEADLINE: Duration = Duration::from_secs(10);
