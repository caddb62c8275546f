//! A stand-in for a Tempo distributor: an OTLP receiver without a health service, and beside it
//! Tempo's own gRPC with one. Both are real servers on real sockets.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, server::SendResponse};
use http::{HeaderValue, Request, Response, header};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{
    local,
    otlp::{self, ExportTraceServiceRequest, ExportTraceServiceResponse},
};
use crate::{
    grpc::{
        Code, HealthCheckResponse, HealthListResponse, ServingStatus, Status, decode_unary, encode,
    },
    net,
};

/// One distributor. While it fails, its ports refuse connections.
#[derive(Debug)]
pub(super) struct Distributor {
    number: u8,
    otlp: SocketAddr,
    tempo: SocketAddr,
    spans: Arc<AtomicU64>,
    /// Both servers with all their connections; none while it fails.
    running: Option<JoinSet<()>>,
}

/// Which of the two servers.
#[derive(Debug, Clone, Copy)]
enum Role {
    Otlp,
    Tempo,
}

impl Distributor {
    /// Starts on free ports.
    pub(super) fn start(number: u8) -> io::Result<Self> {
        let mut distributor =
            Self { number, otlp: local(0), tempo: local(0), spans: Arc::default(), running: None };
        distributor.recover()?;
        Ok(distributor)
    }

    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// Where it takes traces.
    pub(super) fn otlp(&self) -> SocketAddr {
        self.otlp
    }

    /// Where it speaks Tempo's own gRPC.
    pub(super) fn tempo(&self) -> SocketAddr {
        self.tempo
    }

    /// Spans received since its start.
    pub(super) fn spans(&self) -> u64 {
        self.spans.load(Relaxed)
    }

    /// Closes both ports and all connections.
    pub(super) fn fail(&mut self) {
        self.running = None;
    }

    /// Listens again, on the same ports.
    pub(super) fn recover(&mut self) -> io::Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let mut servers = JoinSet::new();
        for (role, address) in [(Role::Otlp, &mut self.otlp), (Role::Tempo, &mut self.tempo)] {
            let socket = TcpListener::from_std(net::listen(*address)?)?;
            *address = socket.local_addr()?;
            servers.spawn(listen(socket, role, Arc::clone(&self.spans)));
        }
        self.running = Some(servers);
        Ok(())
    }
}

async fn listen(socket: TcpListener, role: Role, spans: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = socket.accept() => {
                connections.spawn(serve(stream, role, Arc::clone(&spans)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, role: Role, spans: Arc<AtomicU64>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    streams.spawn(reply(request, respond, role, Arc::clone(&spans)));
                }
                _ => return,
            },
            Some(_) = streams.join_next() => {}
        }
    }
}

/// A caller that went away is no error, so outcomes are not looked at.
async fn reply(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    role: Role,
    spans: Arc<AtomicU64>,
) {
    let (head, mut body) = request.into_parts();
    let mut message = BytesMut::new();
    while let Some(Ok(chunk)) = body.data().await {
        _ = body.flow_control().release_capacity(chunk.len());
        message.extend_from_slice(&chunk);
        if message.len() > MAX_MESSAGE {
            let status = Status::new(Code::ResourceExhausted, "message too large");
            _ = respond.send_response(status.trailers_only(), true);
            return;
        }
    }
    let encoding = head.headers.get("grpc-encoding").map(HeaderValue::as_bytes);
    let answer = match (role, head.uri.path()) {
        (Role::Otlp, otlp::EXPORT) => export(&message, encoding, &spans),
        (Role::Tempo, "/grpc.health.v1.Health/Check") => Ok(encode(&HEALTHY)),
        (Role::Tempo, "/grpc.health.v1.Health/List") => {
            let statuses = [("server".to_owned(), HEALTHY)].into();
            Ok(encode(&HealthListResponse { statuses }))
        }
        _ => Err(Status::new(Code::Unimplemented, "unknown method")),
    };
    match answer {
        Err(status) => _ = respond.send_response(status.trailers_only(), true),
        Ok(message) => {
            let mut head = Response::new(());
            let grpc = HeaderValue::from_static("application/grpc");
            head.headers_mut().insert(header::CONTENT_TYPE, grpc);
            if let Ok(mut stream) = respond.send_response(head, false) {
                _ = stream.send_data(message, false);
                _ = stream.send_trailers(Status::OK.trailers());
            }
        }
    }
}

fn export(body: &[u8], encoding: Option<&[u8]>, spans: &AtomicU64) -> Result<Bytes, Status> {
    let request: ExportTraceServiceRequest = decode_unary(body, encoding, MAX_MESSAGE)?;
    spans.fetch_add(request.spans() as u64, Relaxed);
    Ok(encode(&ExportTraceServiceResponse::accepted()))
}

const HEALTHY: HealthCheckResponse = HealthCheckResponse { status: ServingStatus::Serving as i32 };
const MAX_MESSAGE: usize = 4 << 20;
