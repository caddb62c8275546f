//! Listening sockets go from one process to the next, so that an upgrade refuses no connection.
//!
//! A process offers its sockets under a name in Linux's abstract namespace, which belongs to the
//! network namespace as TCP ports do, and to processes of its own user or of root alone. The next
//! one takes them, says when it is ready, and is told when the first one has left the name.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener as StdListener},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::{
            SocketAddr as Name, UnixListener as StdUnixListener, UnixStream as StdUnixStream,
        },
    },
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};

/// Sockets for whoever comes next.
#[derive(Debug)]
pub struct Offer(UnixListener);

impl Offer {
    /// Offers them under a name that comes from `admin`. One that another process has is waited
    /// for a little, since that may be about to leave.
    ///
    /// # Errors
    /// The name is taken, or the system has no such names.
    pub async fn bind(admin: SocketAddr) -> io::Result<Self> {
        let name = name(admin)?;
        for _ in 0..TRIES {
            match StdUnixListener::bind_addr(&name) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => sleep(PAUSE).await,
                bound => return Self::of(bound?),
            }
        }
        Self::of(StdUnixListener::bind_addr(&name)?)
    }

    fn of(listener: StdUnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self(UnixListener::from_std(listener)?))
    }

    /// The next process of this user that comes for them.
    pub async fn visitor(&self) -> Visitor {
        loop {
            if let Ok((stream, _)) = self.0.accept().await
                && is_own(&stream)
            {
                return Visitor(stream);
            }
            // An error that stays must not be asked for without end.
            sleep(PAUSE).await;
        }
    }
}

/// A process that has come for the sockets.
#[derive(Debug)]
pub struct Visitor(UnixStream);

impl Visitor {
    /// Hands over the sockets, each with its name.
    ///
    /// # Errors
    /// The process has gone.
    pub async fn hand<'a>(
        &mut self,
        sockets: impl Iterator<Item = (&'a str, BorrowedFd<'a>)>,
    ) -> io::Result<()> {
        for (name, socket) in sockets {
            let sockets = [socket];
            let send = || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let fits = control.push(SendAncillaryMessage::ScmRights(&sockets));
                debug_assert!(fits, "there is room for one");
                let data = [IoSlice::new(name.as_bytes())];
                Ok(sendmsg(self.0.as_fd(), &data, &mut control, SendFlags::NOSIGNAL)?)
            };
            if self.0.async_io(Interest::WRITABLE, send).await? != name.len() {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.0.write_all(END).await
    }

    /// Waits until it serves; false where it has gone instead.
    pub async fn is_ready(&mut self) -> bool {
        let mut word = [0; READY.len()];
        self.0.read_exact(&mut word).await.is_ok() && word == *READY
    }

    /// Tells it that the name is free.
    pub async fn leave(mut self) {
        // It may go on without.
        _ = self.0.write_all(LEFT).await;
    }
}

/// Sockets that were taken over.
#[derive(Debug)]
pub struct Taken {
    /// Each with the name that it was handed over under.
    pub sockets: Vec<(String, StdListener)>,
    stream: UnixStream,
}

impl Taken {
    /// Takes the sockets of the process that offers them under the name that comes from `admin`.
    ///
    /// # Errors
    /// There is none, it belongs to another user, or it broke off.
    pub async fn from(admin: SocketAddr) -> io::Result<Self> {
        let stream = StdUnixStream::connect_addr(&name(admin)?)?;
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        if !is_own(&stream) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the process that offers its sockets belongs to another user",
            ));
        }
        let mut sockets = Vec::new();
        let all = async {
            while let Some((name, socket)) = receive(&stream).await? {
                let socket = StdListener::from(socket);
                socket.set_nonblocking(true)?;
                sockets.push((name, socket));
            }
            io::Result::Ok(())
        };
        timeout(PATIENCE, all).await??;
        Ok(Self { sockets, stream })
    }

    /// Says that this process serves, and waits until the other one has left the name.
    ///
    /// # Errors
    /// It has gone, or does not leave.
    pub async fn confirm(mut self) -> io::Result<()> {
        self.stream.write_all(READY).await?;
        timeout(PATIENCE, self.stream.read_exact(&mut [0; LEFT.len()])).await??;
        Ok(())
    }
}

/// The next socket and its name, or the end.
async fn receive(stream: &UnixStream) -> io::Result<Option<(String, OwnedFd)>> {
    let mut name = vec![0; LONGEST];
    let (length, socket) = stream
        .async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut data = [IoSliceMut::new(&mut name)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let got = recvmsg(stream.as_fd(), &mut data, &mut control, flags)?;
            let socket = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
                _ => None,
            });
            Ok((got.bytes, socket))
        })
        .await?;
    name.truncate(length);
    match socket {
        Some(socket) => Ok(Some((String::from_utf8_lossy(&name).into_owned(), socket))),
        None if name == END => Ok(None),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Whether the other end belongs to this process's user, or to root.
fn is_own(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

#[cfg(target_os = "linux")]
fn name(admin: SocketAddr) -> io::Result<Name> {
    use std::os::linux::net::SocketAddrExt;
    Name::from_abstract_name(format!("upbeat/{admin}"))
}

#[cfg(not(target_os = "linux"))]
fn name(_: SocketAddr) -> io::Result<Name> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux has names for this"))
}

const END: &[u8] = b"\nend";
const READY: &[u8; 5] = b"ready";
const LEFT: &[u8; 4] = b"left";
/// A socket's name, in bytes.
const LONGEST: usize = 64 << 10;
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::{super::listen, *};

    /// An address that no other process has, and that goes on being held.
    fn admin() -> (StdListener, SocketAddr) {
        let socket = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[tokio::test]
    async fn sockets_arrive_with_their_names_and_the_name_is_left() {
        let (socket, admin) = admin();
        let offer = Offer::bind(admin).await.unwrap();
        let old = async {
            let mut visitor = offer.visitor().await;
            let sockets = [("admin", socket.as_fd()), ("listener otlp", socket.as_fd())];
            visitor.hand(sockets.into_iter()).await.unwrap();
            assert!(visitor.is_ready().await);
            drop(offer);
            visitor.leave().await;
        };
        let new = async {
            let taken = Taken::from(admin).await.unwrap();
            let names: Vec<_> = taken.sockets.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["admin", "listener otlp"]);
            for (_, socket) in &taken.sockets {
                assert_eq!(socket.local_addr().unwrap(), admin);
            }
            taken.confirm().await.unwrap();
            Offer::bind(admin).await.unwrap();
        };
        tokio::join!(old, new);
    }

    #[tokio::test]
    async fn one_that_goes_without_being_ready_changes_nothing() {
        let (socket, admin) = admin();
        let offer = Offer::bind(admin).await.unwrap();
        for _ in 0..2 {
            let old = async {
                let mut visitor = offer.visitor().await;
                visitor.hand([("admin", socket.as_fd())].into_iter()).await.unwrap();
                assert!(!visitor.is_ready().await);
            };
            let new = async { drop(Taken::from(admin).await.unwrap()) };
            tokio::join!(old, new);
        }
    }

    #[tokio::test]
    async fn without_an_offer_there_is_nothing_to_take() {
        let (_socket, admin) = admin();
        let error = Taken::from(admin).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
