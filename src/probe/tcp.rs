//! A TCP connect, alone or as the beginning of another check.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::Failure;
use crate::net;

/// Connects; the caller bounds the time.
pub(super) async fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    let explain = |error: io::Error| {
        if net::is_ours(&error) {
            return Failure::Local(format!("cannot make a socket: {error}"));
        }
        let words = format!("cannot connect to {address}: {}", error.kind());
        match error.kind() {
            ErrorKind::ConnectionRefused => Failure::Refused(words),
            _ => Failure::Connect(words),
        }
    };
    let stream = TcpStream::connect(address).await.map_err(explain)?;
    // Fails only for a socket that the peer has closed already, which the next read sees.
    _ = stream.set_nodelay(true);
    // A Watch sends nothing, so that only the kernel's own probes tell that its peer has vanished;
    // HTTP/2 pings would, but grpc-go ends connections for them.
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
    _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    Ok(stream)
}

const KEEPALIVE: Duration = Duration::from_secs(15);
