//! The administrative HTTP server: `/metrics`, `/status`, `/simulate`, `/config`, `/livez`,
//! `/readyz`.
//!
//! `/config` is the configuration that runs, as its file says it: JSON, `${NAME}` replaced by the
//! process's environment, without defaults except those of what only a restart changes, and with
//! `***` in the place of secrets. `upbeat check --against-running` compares a file with it.
//!
//! All but `/livez` and `/readyz`, which an orchestrator asks for, is for those alone whom the
//! configuration lets in.

mod access;
mod simulation;
mod status;

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    access::Access,
    simulation::{Answered, Simulation},
    status::{EndpointStatus, Service, Status, Transition, UpstreamStatus},
};
use crate::{
    answer::Answers,
    auth::Denied,
    grpc::ServingStatus,
    health::{Reader, Views},
    log,
    metrics::Metrics,
    net::{self, Addresses},
    refusals::Refusals,
    tls::{self, Handshakes},
    upstream::Upstream,
};

/// What the server shows.
#[derive(Debug, Clone)]
pub struct Admin {
    /// What is published.
    pub board: Reader,
    /// What the configuration that runs has made.
    pub running: watch::Receiver<Running>,
    /// What is counted.
    pub metrics: Metrics,
}

/// What one configuration has made.
#[derive(Debug, Clone, Default)]
pub struct Running {
    /// What the board is folded by.
    pub views: Views,
    /// What it is folded from.
    pub upstreams: Arc<[Arc<Upstream>]>,
    /// What each listener answers, by its name.
    pub listeners: Arc<[(String, Answers)]>,
    /// The configuration, without its secrets.
    pub config: Arc<Value>,
    /// Who is answered.
    pub access: Arc<Access>,
}

impl Admin {
    /// Serves for as long as it is polled.
    pub async fn run(self, listener: TcpListener) {
        let tasks = TaskTracker::new();
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        let addresses = Addresses::new(CONNECTIONS_PER_ADDRESS);
        let handshakes = Arc::<Handshakes>::default();
        let refusals = Arc::new(Refusals::new(LISTENER.into(), &self.metrics));
        let (mut incoming, never) = (net::Incoming::of(&listener), CancellationToken::new());
        loop {
            let (stream, client) = match incoming.next(&never).await {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return,
                Err(error) => {
                    incoming.pause(&error, false).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let Some(place) = addresses.take(client) else {
                refusals.refused(client, "per_address", "its address has enough");
                continue;
            };
            let (admin, handshakes) = (self.clone(), Arc::clone(&handshakes));
            let refusals = Arc::clone(&refusals);
            tasks.spawn(async move {
                admin.serve(stream, client, &handshakes, &refusals).await;
                drop((place, permit));
            });
        }
    }

    async fn serve(
        self,
        stream: TcpStream,
        client: IpAddr,
        handshakes: &Handshakes,
        refusals: &Refusals,
    ) {
        let access = Arc::clone(&self.running.borrow().access);
        let opened = timeout(HANDSHAKE_TIMEOUT, access.open(stream, handshakes)).await;
        let (stream, certified) = match opened {
            Ok(Ok(Some(opened))) => opened,
            Ok(Ok(None)) => return,
            Ok(Err(error)) => {
                return refusals.refused(client, tls::reason(&error), &error.to_string());
            }
            Err(_) => return refusals.refused(client, "tls_timeout", "not done in time"),
        };
        let service = service_fn(|request: Request<Incoming>| {
            let response = match self.admit(&request, certified) {
                Ok(()) => self.respond(&request),
                Err(denied) => {
                    refusals.denied(Some(client), denied.label());
                    unauthorized()
                }
            };
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        // How it ended is the client's business alone. The bound is for those that do not read.
        _ = timeout(LIFE, connection).await;
    }

    /// Whether a request is answered; `certified` where its connection has shown a certificate.
    fn admit(&self, request: &Request<Incoming>, certified: bool) -> Result<(), Denied> {
        match OPEN.contains(&request.uri().path()) {
            true => Ok(()),
            false => self.running.borrow().access.admits(certified, request.headers()),
        }
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET and HEAD only\n");
            refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match request.uri().path() {
            "/metrics" => {
                self.running.borrow().upstreams.iter().for_each(|upstream| upstream.measure());
                self.board.snapshot().measure(&self.metrics);
                self.metrics.machine.log_lines_dropped.inner().store(log::dropped(), Relaxed);
                response(StatusCode::OK, METRICS, self.metrics.render())
            }
            "/status" => {
                let snapshot = self.board.snapshot();
                json(&Status::of(&snapshot, &self.running.borrow().upstreams))
            }
            "/simulate" => match self.simulate(request.uri().query().unwrap_or_default()) {
                Ok(simulation) => json(&simulation),
                Err(why) => response(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n")),
            },
            "/config" => json(&*self.running.borrow().config),
            "/livez" => response(StatusCode::OK, TEXT, "LIVE\n"),
            "/readyz" => match self.board.snapshot().status() {
                ServingStatus::Serving => response(StatusCode::OK, TEXT, "SERVING\n"),
                status => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{status}\n")),
            },
            _ => response(StatusCode::NOT_FOUND, TEXT, PATHS),
        }
    }
}

fn unauthorized() -> Response<Full<Bytes>> {
    let mut refusal = response(StatusCode::UNAUTHORIZED, TEXT, "");
    let scheme = HeaderValue::from_static("Bearer realm=\"upbeat admin\"");
    refusal.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    refusal
}

fn json(body: &impl Serialize) -> Response<Full<Bytes>> {
    let mut body = serde_json::to_string_pretty(body).expect("strings, numbers and lists are JSON");
    body.push('\n');
    response(StatusCode::OK, "application/json", body)
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

/// What the server is called beside the listeners, in metrics and logs.
pub const LISTENER: &str = "admin";
/// What needs no proof.
const OPEN: [&str; 2] = ["/livez", "/readyz"];
const PATHS: &str = "/metrics /status /simulate /config /livez /readyz\n";
const CONNECTIONS: usize = 256;
/// So that one client does not keep an orchestrator out.
const CONNECTIONS_PER_ADDRESS: u32 = 64;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Short, so that silent connections do not keep the places of those that ask.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection may live; a scraper makes another one.
const LIFE: Duration = Duration::from_secs(60);
const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
