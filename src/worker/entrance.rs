//! Who a connection's client is, before anything else is read of it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::net::TcpStream;

use crate::{
    config::ProxyProtocol,
    net::{
        Addresses, Place,
        proxy_protocol::{self, Told},
    },
    relay::Listener,
};

/// Where a connection comes from.
#[derive(Debug)]
pub enum Origin {
    /// From the client itself, which was let in.
    Client {
        /// Its address.
        client: IpAddr,
        /// Its place among those of its address, where these are bounded.
        place: Option<Place>,
    },
    /// From one that says by the PROXY protocol for whom it is.
    Balancer {
        /// Its own address.
        sender: IpAddr,
        /// The places of clients' addresses, where these are bounded.
        places: Option<Addresses>,
    },
}

/// A client that was let in.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) client: SocketAddr,
    /// Held while the connection is open.
    pub(super) place: Option<Place>,
    /// What was read of the stream, and stands before the rest.
    pub(super) first: Vec<u8>,
}

impl Origin {
    /// Whose address is known without a look at the connection.
    pub(super) fn sender(&self) -> IpAddr {
        match self {
            Self::Client { client, .. } => *client,
            Self::Balancer { sender, .. } => *sender,
        }
    }

    /// Hears who the client is, and whether it may come in.
    ///
    /// # Errors
    /// Why it may not, which is counted.
    pub(super) async fn enter(
        self,
        stream: &mut TcpStream,
        listener: &Listener,
    ) -> io::Result<Entered> {
        let (sender, places) = match self {
            Self::Client { client, place } => {
                let client = SocketAddr::new(client, stream.peer_addr()?.port());
                return Ok(Entered { client, place, first: Vec::new() });
            }
            Self::Balancer { sender, places } => (sender, places),
        };
        let refused = |client, reason, words: &str| {
            listener.refusals().refused(client, reason, words);
            io::Error::new(io::ErrorKind::PermissionDenied, words)
        };
        let required = listener.access().proxy_protocol == ProxyProtocol::Required;
        let own = SocketAddr::new(sender, stream.peer_addr()?.port());
        let (client, first) = match proxy_protocol::read(stream).await {
            Ok(Told::Header(client)) => (client.unwrap_or(own), Vec::new()),
            Ok(Told::Nothing(_)) if required => {
                return Err(refused(sender, "proxy_protocol", "no PROXY header"));
            }
            Ok(Told::Nothing(first)) => (own, first),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(refused(sender, "proxy_protocol", &error.to_string()));
            }
            Err(error) => return Err(error),
        };
        let ip = client.ip();
        if !listener.access().allows(ip) {
            return Err(refused(ip, "address", OUTSIDE));
        }
        let place = match places.map(|places| places.take(ip)) {
            Some(None) => return Err(refused(ip, "per_address", ENOUGH)),
            place => place.flatten(),
        };
        Ok(Entered { client, place, first })
    }
}

/// Why a connection is refused, in words.
pub const OUTSIDE: &str = "not an allowed address";
/// Why another one is.
pub const ENOUGH: &str = "its address has enough connections";
