//! Where checks go.

use std::{net::SocketAddr, sync::Arc};

use super::{Failure, tcp};
use crate::tls::{Connector, Spoken, Stream};

/// An address, and the TLS that is spoken there.
#[derive(Debug, Clone)]
pub struct Target {
    pub(super) address: SocketAddr,
    tls: Option<Arc<Connector>>,
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }
}

impl Target {
    /// An endpoint that speaks TLS, or does not.
    pub fn new(address: SocketAddr, tls: Option<Arc<Connector>>) -> Self {
        Self { address, tls }
    }

    /// The same endpoint on another port, where there is one, and without TLS where `plain` is.
    pub(super) fn at(&self, port: Option<u16>, plain: bool) -> Self {
        let port = port.unwrap_or_else(|| self.address.port());
        let tls = self.tls.clone().filter(|_| !plain);
        Self { address: SocketAddr::new(self.address.ip(), port), tls }
    }

    /// Connects; the caller bounds the time.
    pub(super) async fn connect(&self, spoken: Spoken) -> Result<Stream, Failure> {
        let (address, stream) = (self.address, tcp::connect(self.address).await?);
        let Some(tls) = &self.tls else { return Ok(Stream::Plain(stream)) };
        let done = tls.connect(stream, address, spoken).await;
        done.map(|stream| Stream::Tls(Box::new(stream)))
            .map_err(|error| Failure::Connect(format!("TLS with {address} failed: {error}")))
    }
}
