//! How the admin server of a running proxy is asked.

use std::{env, fs, net::SocketAddr, path::PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use super::tls::Tls;
use crate::tls::{Spoken, Stream};

/// Arguments of commands that ask a running proxy.
#[derive(Debug, clap::Args)]
pub(super) struct Admin {
    /// The proxy's admin address; by default that of the configuration that is checked, else
    /// 127.0.0.1:9901
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// A file with the token that the admin server wants; by default the environment variable
    /// UPBEAT_ADMIN_TOKEN has it, if it wants one
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: Tls,
}

impl Admin {
    /// What the admin server answers on `path`. Where nobody says where it is, it is at `known`.
    pub(super) async fn fetch<T: DeserializeOwned>(
        &self,
        path: &str,
        known: Option<SocketAddr>,
    ) -> anyhow::Result<T> {
        let known = known.map_or_else(|| DEFAULT.to_owned(), |known| known.to_string());
        let address = self.admin.as_ref().unwrap_or(&known);
        let Ok(body) = timeout(TIMEOUT, self.get(address, path)).await else {
            bail!("{address}: no answer within {TIMEOUT:?}");
        };
        serde_json::from_slice(&body?)
            .with_context(|| format!("{address}: not an admin server of Upbeat"))
    }

    async fn get(&self, address: &str, path: &str) -> anyhow::Result<Bytes> {
        let mut request =
            Request::get(path).header(header::HOST, address).body(Empty::<Bytes>::new())?;
        if let Some(token) = self.token()? {
            request.headers_mut().insert(header::AUTHORIZATION, token);
        }
        let stream = TokioIo::new(self.connect(address).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let response = sender.send_request(request).await.with_context(|| match self.tls.tls {
            true => format!("{address} does not answer; does it want a certificate (--cert)?"),
            false => format!("{address} does not answer; does it speak TLS (--tls)?"),
        })?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let words = String::from_utf8_lossy(&body);
        ensure!(status != StatusCode::BAD_REQUEST, "{address}: {}", words.trim());
        let wanted = format!("--token-file FILE, or the token in {VARIABLE}");
        ensure!(status != StatusCode::UNAUTHORIZED, "{address} answered {status}: {wanted}");
        ensure!(status == StatusCode::OK, "{address} answered {status}");
        Ok(body)
    }

    async fn connect(&self, address: &str) -> anyhow::Result<Stream> {
        let tls = self.tls.connector(address).map_err(|words| anyhow!(words))?;
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}; is the proxy running?"))?;
        let Some(tls) = tls else { return Ok(Stream::Plain(stream)) };
        let peer = stream.peer_addr()?;
        let stream = tls.connect(stream, peer, Spoken::Http1).await;
        stream
            .map(|it| Stream::Tls(Box::new(it)))
            .with_context(|| format!("{address}: no TLS connection"))
    }

    /// What is sent as `authorization`.
    fn token(&self) -> anyhow::Result<Option<HeaderValue>> {
        let token = match &self.token_file {
            Some(file) => fs::read_to_string(file)
                .with_context(|| format!("{} cannot be read", file.display()))?,
            None => env::var(VARIABLE).unwrap_or_default(),
        };
        let token = token.trim();
        if token.is_empty() {
            ensure!(self.token_file.is_none(), "the file of the token is empty");
            return Ok(None);
        }
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let mut value = value.map_err(|_| anyhow!("a token is one line of visible ASCII"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

const DEFAULT: &str = "127.0.0.1:9901";
const VARIABLE: &str = "UPBEAT_ADMIN_TOKEN";
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
