//! The sockets go to another process that is to serve in this one's place.

use std::{
    future::pending,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch, time::timeout};
use tracing::{debug, info, warn};

use crate::net::handover::{Offer, Taken, Visitor};

/// Listening sockets and their names, as they are now.
pub(super) type Sockets = Arc<[(String, Arc<TcpListener>)]>;

/// Says to the process that this one has `taken` sockets from that it serves, offers its own, and
/// waits for a process that has taken them and serves.
pub(super) async fn offer(
    admin: StdListener,
    taken: Option<Taken>,
    sockets: watch::Receiver<Sockets>,
) -> Visitor {
    if let Some(taken) = taken {
        match taken.confirm().await {
            Ok(()) => info!("took over from the process that served"),
            Err(error) => warn!(%error, "the process that served does not leave"),
        }
    }
    let address = match admin.local_addr() {
        Ok(address) => address,
        Err(error) => return unable(error).await,
    };
    let offer = match Offer::bind(address).await {
        Ok(offer) => offer,
        Err(error) => return unable(error).await,
    };
    loop {
        let mut visitor = offer.visitor().await;
        let now = Arc::clone(&sockets.borrow());
        let listeners = now.iter().map(|(name, socket)| (name.as_str(), socket.as_fd()));
        let all = listeners.chain([("admin", admin.as_fd())]);
        info!("handing the sockets over");
        match timeout(PATIENCE, async {
            visitor.hand(all).await.is_ok() && visitor.is_ready().await
        })
        .await
        {
            // The name is free before the other one is told.
            Ok(true) => return visitor,
            _ => warn!("whoever took the sockets does not serve: this process goes on"),
        }
    }
}

/// Without an offer the process serves all the same.
async fn unable(error: io::Error) -> Visitor {
    debug!(%error, "cannot offer the sockets to another process");
    pending().await
}

/// Listening sockets from before this process, for the addresses that they are bound to.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<StdListener>,
    taken: Option<Taken>,
}

impl Inherited {
    /// Those that systemd passes on (sd_listen_fds(3)), if it does.
    ///
    /// # Errors
    /// What was passed on is no TCP socket.
    pub fn from_systemd() -> io::Result<Self> {
        let mut passed = listenfd::ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            if let Some(socket) = passed.take_tcp_listener(index)? {
                socket.set_nonblocking(true)?;
                sockets.push(socket);
            }
        }
        Ok(Self { sockets, taken: None })
    }

    /// Those of the process whose admin server is at `admin`, which goes on until this one serves.
    /// Where there is none, there are none.
    ///
    /// # Errors
    /// It belongs to another user, or it broke off.
    pub async fn from_process(admin: SocketAddr) -> io::Result<Self> {
        match Taken::from(admin).await {
            Ok(mut taken) => {
                let sockets = std::mem::take(&mut taken.sockets);
                let sockets = sockets.into_iter().map(|(_, socket)| socket).collect();
                Ok(Self { sockets, taken: Some(taken) })
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                info!(%admin, "no process to take over from");
                Ok(Self::default())
            }
            Err(error) => Err(error),
        }
    }

    /// The socket that is bound to an address. One that systemd bound to `[::]`, as it does by
    /// default, serves for `0.0.0.0` too.
    pub(super) fn take(&mut self, address: SocketAddr) -> Option<StdListener> {
        let is = |socket: &StdListener| {
            socket.local_addr().is_ok_and(|bound| {
                let anywhere = bound.ip().is_unspecified() && address.ip().is_unspecified();
                bound == address || anywhere && bound.port() == address.port()
            })
        };
        let at = self.sockets.iter().position(is)?;
        Some(self.sockets.remove(at))
    }

    /// The process that waits to be told that this one serves.
    pub(super) fn into_taken(self) -> Option<Taken> {
        for socket in &self.sockets {
            let address = socket.local_addr().map(|it| it.to_string()).unwrap_or_default();
            warn!(address, "a socket from before this process is nobody's, and closed");
        }
        self.taken
    }
}

/// From the sockets to the word that they are served: the first probes come between.
const PATIENCE: Duration = Duration::from_secs(60);
