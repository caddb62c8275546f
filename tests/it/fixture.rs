//! What the tests stand on: the proxy, endpoints behind it, and callers in front of it.

pub(crate) mod caller;
pub(crate) mod certs;
pub(crate) mod echo;
pub(crate) mod endpoint;
pub(crate) mod frames;
pub(crate) mod issuer;
pub(crate) mod kernel;
pub(crate) mod names;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod tunnel;
pub(crate) mod victim;
pub(crate) mod wire;

use std::{future::Future, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep},
};

/// Asks again and again until `condition` holds.
///
/// # Panics
/// It does not within twenty seconds, of which a busy machine may need some; says `what` was
/// awaited.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Bytes of this process in memory.
pub(crate) fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// A connection to `address` from another address of this machine's, such as 127.0.0.2.
pub(crate) async fn connect_from(client: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((client, 0).into()).unwrap();
    socket.connect(address).await.unwrap()
}

/// An address that refuses connections, for as long as the test binary runs: it is bound, so that
/// nobody else gets it, and nobody listens.
pub(crate) fn refusing() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}
