//! The administrative HTTP server: `/metrics`, `/status`, `/livez`, `/readyz`.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{grpc::ServingStatus, health::Reader, metrics::Metrics, net, upstream::Upstream};

/// What the server shows.
#[derive(Debug, Clone)]
pub struct Admin {
    board: Reader,
    upstreams: Arc<[Arc<Upstream>]>,
    metrics: Metrics,
}

/// The body of `/status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// Upbeat's version.
    pub version: String,
    /// Whether the process is about to stop.
    pub draining: bool,
    /// The board.
    pub services: Vec<Service>,
    /// What it is folded from.
    pub upstreams: Vec<UpstreamStatus>,
}

/// One service on the board.
#[derive(Debug, Serialize, Deserialize)]
pub struct Service {
    /// The name; "" is the overall state.
    pub service: String,
    /// `SERVING` or `NOT_SERVING`.
    pub status: String,
    /// Since when, RFC 3339 in UTC.
    pub since: String,
    /// Why it does not serve; empty where it does.
    pub reason: String,
}

/// One upstream.
#[derive(Debug, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// The name.
    pub upstream: String,
    /// Healthy endpoints.
    pub healthy: usize,
    /// How many must be healthy.
    pub needed: usize,
    /// All endpoints.
    pub endpoints: Vec<EndpointStatus>,
}

/// One endpoint.
#[derive(Debug, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// IP address and port.
    pub endpoint: String,
    /// `unknown`, `healthy`, `unhealthy`.
    pub health: String,
    /// Since when, RFC 3339 in UTC.
    pub since: String,
    /// Why it is not healthy; empty where it is.
    pub reason: String,
    /// What to know of its probes whatever its health; mostly empty.
    #[serde(default)]
    pub note: String,
    /// Calls in flight, over all workers.
    pub in_flight: usize,
}

impl Admin {
    /// Shows the board, the upstreams that it is folded from, and the metrics.
    pub fn new(board: Reader, upstreams: Arc<[Arc<Upstream>]>, metrics: Metrics) -> Self {
        Self { board, upstreams, metrics }
    }

    /// Serves for as long as it is polled.
    pub async fn run(self, listener: TcpListener) {
        let tasks = TaskTracker::new();
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        net::accept(&listener, &connections, &CancellationToken::new(), |stream, _, permit| {
            let admin = self.clone();
            tasks.spawn(async move {
                admin.serve(stream).await;
                drop(permit);
            });
        })
        .await;
    }

    async fn serve(self, stream: TcpStream) {
        let service = service_fn(|request: Request<Incoming>| {
            let response = self.respond(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        // How it ended is the client's business alone. The bound is for those that do not read.
        _ = timeout(LIFE, connection).await;
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET and HEAD only\n");
            refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match request.uri().path() {
            "/metrics" => response(StatusCode::OK, METRICS, self.metrics.render()),
            "/status" => {
                let mut body = serde_json::to_string_pretty(&self.status())
                    .expect("strings, numbers and lists are JSON");
                body.push('\n');
                response(StatusCode::OK, "application/json", body)
            }
            "/livez" => response(StatusCode::OK, TEXT, "LIVE\n"),
            "/readyz" => match self.board.borrow().status() {
                ServingStatus::Serving => response(StatusCode::OK, TEXT, "SERVING\n"),
                status => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{status}\n")),
            },
            _ => response(StatusCode::NOT_FOUND, TEXT, "/metrics /status /livez /readyz\n"),
        }
    }

    fn status(&self) -> Status {
        let snapshot = Arc::clone(&self.board.borrow());
        let services = snapshot.services().map(|(name, service)| Service {
            service: name.to_owned(),
            status: service.status.to_string(),
            since: timestamp(service.since),
            reason: service.reason.to_string(),
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            draining: snapshot.is_draining(),
            services: services.collect(),
            upstreams: self.upstreams.iter().map(|upstream| upstream_status(upstream)).collect(),
        }
    }
}

fn upstream_status(upstream: &Upstream) -> UpstreamStatus {
    let tally = upstream.tally();
    let endpoints = upstream.endpoints();
    let endpoints = endpoints.iter().map(|endpoint| {
        let state = endpoint.state();
        EndpointStatus {
            endpoint: endpoint.address().to_string(),
            health: state.health.to_string(),
            since: timestamp(state.since),
            reason: state.reason.to_string(),
            note: state.note.to_string(),
            in_flight: endpoint.in_flight(),
        }
    });
    UpstreamStatus {
        upstream: upstream.name().to_string(),
        healthy: tally.healthy,
        needed: tally.needed,
        endpoints: endpoints.collect(),
    }
}

fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const CONNECTIONS: usize = 256;
/// Short, so that silent connections do not keep the places of those that ask.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection may live; a scraper makes another one.
const LIFE: Duration = Duration::from_secs(60);
const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
