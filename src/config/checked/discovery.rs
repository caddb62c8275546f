//! Where the endpoints of an upstream are found, checked.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Where the endpoints of an upstream are found, where the configuration does not list them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// In the DNS.
    Dns(Dns),
    /// In a file.
    File(File),
}

/// A name whose addresses are the endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// The name; ASCII, well formed.
    pub name: String,
    /// What is asked for.
    pub lookup: Lookup,
    /// The longest time between two look-ups.
    pub refresh_interval: Duration,
    /// The shortest one; not longer than `refresh_interval`.
    pub min_refresh: Duration,
    /// The servers that are asked; none are those of the system.
    pub resolvers: Vec<SocketAddr>,
}

/// Which records of a name tell the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// Addresses, all with one port.
    Address {
        /// The port of every endpoint.
        port: u16,
        /// Of which kind.
        family: Family,
    },
    /// SRV, which have the port.
    Srv,
}

/// Which addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A and AAAA.
    Any,
    /// A.
    V4,
    /// AAAA.
    V6,
}

/// A file that lists the endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
}
