//! A check by HTTP/1.1 GET.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::{Failure, tcp};
use crate::config;

/// GETs one path of one address, keeping the connection between runs.
#[derive(Debug)]
pub(super) struct Get {
    address: SocketAddr,
    target: Uri,
    status: StatusCode,
    open: Option<Open>,
}

/// A connection and the task that drives it, which ends when this is dropped.
#[derive(Debug)]
struct Open {
    sender: SendRequest<Empty<Bytes>>,
    _driver: JoinSet<()>,
}

impl Get {
    pub(super) fn new(address: SocketAddr, config: &config::HttpCheck) -> Self {
        Self { address, target: config.path.clone().into(), status: config.status, open: None }
    }

    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        let (status, body) = self.reply().await?;
        if status == self.status {
            return Ok(());
        }
        let words: String = String::from_utf8_lossy(&body).trim().chars().take(EVIDENCE).collect();
        let said = if words.is_empty() { String::new() } else { format!(": {words:?}") };
        Err(Failure::NotServing(format!("GET {} answered {status}{said}", self.target)))
    }

    /// The reply, over the kept connection where it still lives, else over a new one.
    async fn reply(&mut self) -> Result<(StatusCode, Bytes), Failure> {
        if let Some(open) = self.open.take()
            && let Ok(reply) = self.exchange(open).await
        {
            return Ok(reply);
        }
        let stream = tcp::connect(self.address).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(explain)?;
        let mut driver = JoinSet::new();
        driver.spawn(async {
            // What ends it is seen by the request that it fails.
            _ = connection.await;
        });
        self.exchange(Open { sender, _driver: driver }).await
    }

    async fn exchange(&mut self, mut open: Open) -> Result<(StatusCode, Bytes), Failure> {
        open.sender.ready().await.map_err(explain)?;
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.target.clone();
        let host = HeaderValue::from_str(&self.address.to_string()).expect("an address is ASCII");
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let response = open.sender.send_request(request).await.map_err(explain)?;
        let status = response.status();
        // A body that is too long is not read to its end, so its connection is not kept.
        let body = match Limited::new(response.into_body(), MAX_BODY).collect().await {
            Ok(body) => {
                self.open = Some(open);
                body.to_bytes()
            }
            Err(_) => Bytes::new(),
        };
        Ok((status, body))
    }
}

fn explain(error: hyper::Error) -> Failure {
    Failure::Rpc(format!("no HTTP/1.1: {error}"))
}

const USER_AGENT: &str = concat!("upbeat/", env!("CARGO_PKG_VERSION"));
const MAX_BODY: usize = 64 << 10;
const EVIDENCE: usize = 120;
