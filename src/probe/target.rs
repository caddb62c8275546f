//! Where checks go.

use std::{net::SocketAddr, sync::Arc};

use tokio::io::AsyncWriteExt;

use super::{Failure, tcp};
use crate::{
    config::ProxyVersion,
    net::proxy_protocol,
    tls::{Connector, Spoken, Stream},
};

/// An address, and the TLS that is spoken there.
#[derive(Debug, Clone)]
pub struct Target {
    pub(super) address: SocketAddr,
    tls: Option<Arc<Connector>>,
    /// What connections begin with before anything else; mostly empty.
    header: Arc<[u8]>,
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::new(address, None)
    }
}

impl Target {
    /// An endpoint that speaks TLS, or does not.
    pub fn new(address: SocketAddr, tls: Option<Arc<Connector>>) -> Self {
        Self { address, tls, header: [].into() }
    }

    /// The same, where connections begin with a PROXY header.
    pub(super) fn announced(self, version: Option<ProxyVersion>) -> Self {
        let header = version.map(|version| proxy_protocol::header(version, None));
        Self { header: header.unwrap_or_default().into(), ..self }
    }

    /// The same endpoint on another port, where there is one, and without TLS where `plain` is.
    /// Who listens at another port expects no PROXY header.
    pub(super) fn at(&self, port: Option<u16>, plain: bool) -> Self {
        let own = self.address.port();
        let port = port.unwrap_or(own);
        let tls = self.tls.clone().filter(|_| !plain);
        let header = if port == own { Arc::clone(&self.header) } else { [].into() };
        Self { address: SocketAddr::new(self.address.ip(), port), tls, header }
    }

    /// What connections are made by now: another number once certificates were renewed.
    pub(super) fn version(&self) -> u64 {
        self.tls.as_ref().map_or(0, |tls| tls.version())
    }

    /// Connects; the caller bounds the time.
    pub(super) async fn connect(&self, spoken: Spoken) -> Result<Stream, Failure> {
        let (address, mut stream) = (self.address, tcp::connect(self.address).await?);
        stream.write_all(&self.header).await.map_err(|error| {
            Failure::Connect(format!("cannot write to {address}: {}", error.kind()))
        })?;
        let Some(tls) = &self.tls else { return Ok(Stream::Plain(stream)) };
        let done = tls.connect(stream, address, spoken).await;
        done.map(|stream| Stream::Tls(Box::new(stream)))
            .map_err(|error| Failure::Connect(format!("TLS with {address} failed: {error}")))
    }
}
