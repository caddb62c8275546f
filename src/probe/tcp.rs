//! A TCP connect, alone or as the beginning of another check.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::Failure;

/// Connects; the caller bounds the time.
pub(super) async fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    let refused = |error: std::io::Error| {
        Failure::Connect(format!("cannot connect to {address}: {}", error.kind()))
    };
    let stream = TcpStream::connect(address).await.map_err(refused)?;
    // Fails only for a socket that the peer has closed already, which the next read sees.
    _ = stream.set_nodelay(true);
    Ok(stream)
}
