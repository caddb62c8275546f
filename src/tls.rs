//! TLS: what a listener shows its clients, what an upstream trusts, and a connection's records between its socket and the
//! bytes that HTTP is made of.

mod chains;
mod client;
mod der;
mod expiry;
mod failure;
mod files;
mod names;
mod server;
mod session;
mod stream;
mod uri;

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
pub use rustls::pki_types::CertificateDer;

pub use self::{
    client::{Connector, Spoken},
    failure::reason,
    names::{Name, names},
    server::{Accepted, Acceptor, Handshakes},
    session::Session,
    stream::Stream,
};

/// The algorithms of all connections.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// What is spoken under TLS, as ALPN names it; the first is preferred.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
