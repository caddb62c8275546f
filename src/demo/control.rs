//! The demo's own HTTP server, by which distributors are made to fail.

use std::{convert::Infallible, fmt::Write, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinSet,
    time::{Instant, interval},
};
use tracing::{error, info};

use super::distributor::Distributor;
use crate::net;

/// Makes distributors fail when asked, and lets them come back when their time is over.
#[derive(Debug)]
pub(super) struct Control {
    socket: TcpListener,
    state: State,
}

type State = Arc<Mutex<[(Distributor, Option<Instant>); 2]>>;

impl Control {
    pub(super) fn bind(address: SocketAddr, distributors: [Distributor; 2]) -> io::Result<Self> {
        let socket = TcpListener::from_std(net::listen(address)?)?;
        let state = distributors.map(|distributor| (distributor, None));
        Ok(Self { socket, state: Arc::new(Mutex::new(state)) })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(super) async fn run(self) {
        let mut connections = JoinSet::new();
        let mut ticks = interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                Ok((stream, _)) = self.socket.accept() => {
                    connections.spawn(serve(stream, Arc::clone(&self.state)));
                }
                Some(_) = connections.join_next() => {}
                _ = ticks.tick() => recover(&self.state).await,
            }
        }
    }
}

async fn recover(state: &State) {
    for (distributor, until) in state.lock().await.iter_mut() {
        if !until.is_some_and(|until| until <= Instant::now()) {
            continue;
        }
        *until = None;
        match distributor.recover() {
            Ok(()) => info!(distributor = distributor.number(), "listening again"),
            Err(error) => error!(distributor = distributor.number(), %error, "cannot come back"),
        }
    }
}

async fn serve(stream: TcpStream, state: State) {
    let service = service_fn(|request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(respond(&request, &state).await) }
    });
    // How it ended is the client's business alone.
    _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(request: &Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    let mut distributors = state.lock().await;
    let mut text = String::new();
    let mut status = StatusCode::OK;
    match (request.method(), request.uri().path().strip_prefix("/fail/")) {
        (&Method::POST, Some(which @ ("1" | "2" | "all"))) => {
            for (distributor, until) in distributors.iter_mut() {
                if which == "all" || which == distributor.number().to_string() {
                    info!(distributor = distributor.number(), "ports closed");
                    distributor.fail();
                    *until = Some(Instant::now() + FAILING);
                }
            }
        }
        (&Method::GET, None) => {}
        _ => {
            text.push_str("POST /fail/1, /fail/2 or /fail/all; GET / for the state\n");
            status = StatusCode::NOT_FOUND;
        }
    }
    for (distributor, until) in distributors.iter() {
        let state = match until {
            Some(until) => {
                format!("failing, back in {} s", (*until - Instant::now()).as_secs() + 1)
            }
            None => "up".to_owned(),
        };
        let (number, spans) = (distributor.number(), distributor.spans());
        writeln!(text, "distributor {number}: {state}, {spans} spans received")
            .expect("writing to a string does not fail");
    }
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

/// How long a distributor fails.
const FAILING: Duration = Duration::from_secs(20);
