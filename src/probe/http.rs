//! A check by HTTP/1.1 GET.

use std::{future::pending, mem::take};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::{Failure, Target};
use crate::{config, tls::Spoken};

/// GETs one path of one address, keeping the connection between runs.
#[derive(Debug)]
pub(super) struct Get {
    target: Target,
    path: Uri,
    status: StatusCode,
    open: Option<Open>,
    broke: bool,
}

/// A connection and the task that drives it, which ends when this is dropped.
#[derive(Debug)]
struct Open {
    sender: SendRequest<Empty<Bytes>>,
    /// What it was made by.
    version: u64,
    driver: JoinSet<()>,
}

impl Get {
    pub(super) fn new(target: Target, config: &config::HttpCheck) -> Self {
        let path = config.path.clone().into();
        Self { target, path, status: config.status, open: None, broke: false }
    }

    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        let (status, body) = self.reply().await?;
        if status == self.status {
            return Ok(());
        }
        let words: String = String::from_utf8_lossy(&body).trim().chars().take(EVIDENCE).collect();
        let said = if words.is_empty() { String::new() } else { format!(": {words:?}") };
        Err(Failure::Answered(format!("GET {} answered {status}{said}", self.path)))
    }

    /// The reply, over the kept connection where it still lives, else over a new one.
    async fn reply(&mut self) -> Result<(StatusCode, Bytes), Failure> {
        // One that was made by other certificates would pass where no new one can be made.
        let version = self.target.version();
        if let Some(open) = self.open.take().filter(|open| open.version == version) {
            match self.exchange(open).await {
                Ok(reply) => return Ok(reply),
                Err((mut open, _)) => {
                    self.broke |= open.driver.try_join_next().is_some() || open.driver.is_empty();
                }
            }
        }
        let stream = self.target.connect(Spoken::Http1).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(explain)?;
        let mut driver = JoinSet::new();
        driver.spawn(async {
            // What ends it is seen by the request that it fails.
            _ = connection.await;
        });
        self.exchange(Open { sender, version, driver }).await.map_err(|(_, failure)| failure)
    }

    /// Waits until the connection that is kept between runs ends; for ever, where none is kept.
    pub(super) async fn lost(&mut self) {
        if let Some(open) = &mut self.open {
            open.driver.join_next().await;
            self.open = None;
        } else {
            pending::<()>().await;
        }
    }

    /// Whether a run found the kept connection ended, since this was asked last.
    pub(super) fn broke(&mut self) -> bool {
        take(&mut self.broke)
    }

    /// One request. The connection is kept where it went well, and comes back where it did not.
    async fn exchange(&mut self, mut open: Open) -> Result<(StatusCode, Bytes), (Open, Failure)> {
        let response = match open.sender.send_request(self.request()).await {
            Ok(response) => response,
            Err(error) => return Err((open, explain(error))),
        };
        let status = response.status();
        let keeps = keeps_alive(&response);
        // A body that is too long is not read to its end, so its connection is not kept.
        let body = match Limited::new(response.into_body(), MAX_BODY).collect().await {
            Ok(body) => {
                self.open = keeps.then_some(open);
                body.to_bytes()
            }
            Err(_) => Bytes::new(),
        };
        Ok((status, body))
    }

    fn request(&self) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.path.clone();
        let host =
            HeaderValue::from_str(&self.target.address.to_string()).expect("an address is ASCII");
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        request
    }
}

/// Whether the server means to keep the connection: one that closes it after each answer, and
/// says so, would else look as if it died each time.
fn keeps_alive(response: &Response<Incoming>) -> bool {
    let closes = |value: &HeaderValue| {
        let mut words = value.as_bytes().split(|byte| *byte == b',');
        words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
    };
    response.version() == Version::HTTP_11
        && !response.headers().get_all(header::CONNECTION).iter().any(closes)
}

fn explain(error: hyper::Error) -> Failure {
    Failure::Rpc(format!("no HTTP/1.1: {error}"))
}

const USER_AGENT: &str = concat!("upbeat/", env!("CARGO_PKG_VERSION"));
const MAX_BODY: usize = 64 << 10;
const EVIDENCE: usize = 120;
