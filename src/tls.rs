//! TLS: what a listener shows its clients, and a connection's records between its socket and the
//! bytes that HTTP is made of.

mod files;
mod server;
mod session;

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use self::{
    server::{Accepted, Acceptor, Handshakes},
    session::Session,
};

/// The algorithms of all connections.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// What is spoken under TLS, as ALPN names it; the first is preferred.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
