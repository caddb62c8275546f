//! Sockets: listening, accepting through every error that a kernel has, and telling HTTP/2 from
//! HTTP/1.1 by a connection's first bytes.

mod addresses;
pub mod handover;
pub mod proxy_protocol;

use std::{
    fs::File,
    io,
    net::{IpAddr, Shutdown, SocketAddr, TcpListener as StdListener},
    os::fd::AsRawFd,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol as SocketProtocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use self::addresses::{Addresses, Place, client};

/// Binds and listens, non-blocking. A socket left in TIME_WAIT by an earlier process is no hindrance.
///
/// # Errors
/// What the kernel says, such as an address in use.
pub fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM, Some(SocketProtocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What comes in on a listening socket.
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
    /// A descriptor that can be done without when there is no other.
    reserve: Option<File>,
    warned: Option<Instant>,
}

impl<'a> Incoming<'a> {
    /// Of this socket.
    pub fn of(listener: &'a TcpListener) -> Self {
        Self { listener, reserve: File::open("/dev/null").ok(), warned: None }
    }

    /// The next connection, and where it comes from; none after `stop`, when those that wait in the
    /// kernel are taken too, since their clients count them as accepted. No error of one connection
    /// ends it, such as a reset while it waited.
    ///
    /// # Errors
    /// The process is out of descriptors or memory; see [`Incoming::pause`].
    pub async fn next(
        &mut self,
        stop: &CancellationToken,
    ) -> io::Result<Option<(TcpStream, IpAddr)>> {
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => return Ok(None),
            };
            match accepted {
                Ok((stream, client)) => {
                    // Fails only for a socket that the peer has closed already, which its reader
                    // sees.
                    _ = stream.set_nodelay(true);
                    return Ok(Some((stream, client.ip())));
                }
                Err(error) if is_exhaustion(&error) => return Err(error),
                // The connection's own fault (accept(2), Errors).
                Err(_) => {}
            }
        }
    }

    /// Gives the system a while. Where nobody `left`, a connection that waits is dropped, by a
    /// descriptor kept in reserve for that: else it would wait for ever.
    pub async fn pause(&mut self, error: &io::Error, left: bool) {
        if self.warned.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
            self.warned = Some(Instant::now());
            let then = match left {
                true => "idle connections are closed",
                false => "a waiting connection is dropped",
            };
            warn!(%error, then, "out of resources");
        }
        if left {
            return;
        }
        drop(self.reserve.take());
        // Only what waits already: an accept that would wait is given up at once.
        tokio::select! {
            biased;
            accepted = self.listener.accept() => drop(accepted),
            () = std::future::ready(()) => {}
        }
        self.reserve = File::open("/dev/null").ok();
        sleep(PAUSE).await;
    }
}

/// Says that files run out, where this newest one is among the last: a quarter of them, 64 at most, is
/// for probes, calls and the admin server. Descriptors are given from the lowest on (open(2)).
pub fn scarcity(newest: &impl AsRawFd) -> Option<io::Error> {
    let most = getrlimit(Resource::Nofile).current?;
    let kept = (most / 4).min(64);
    let number = u64::try_from(newest.as_raw_fd()).ok()?;
    (number >= most - kept).then(|| io::Error::from_raw_os_error(EMFILE))
}

/// Lets the process open as many files as the system grants it: the soft limit (getrlimit(2)) is
/// for programs that still use select(2). How many these are; none where there is no bound.
pub fn raise_descriptors() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

/// Has the kernel end a connection whose peer has vanished: it asks after `idle` without traffic,
/// and waits `timeout` for a sign of life. What was sent and is not acknowledged has as long as
/// both, and `send` at least (TCP_USER_TIMEOUT, tcp(7)).
pub fn keep_alive(socket: &TcpStream, idle: Duration, timeout: Duration, send: Duration) {
    let second = Duration::from_secs(1);
    let (idle, interval) = (idle.max(second), (timeout / 2).max(second));
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval);
    let socket = SockRef::from(socket);
    // They fail only for a socket that is gone, or for times beyond what the kernel counts, which
    // then keeps its own.
    _ = socket.set_tcp_keepalive(&keepalive);
    _ = socket.set_tcp_user_timeout(Some(send.max(idle + timeout)));
}

/// Ends a connection to which all was written: tells the peer, and waits a little for it to close.
/// A socket that is closed at once answers what still comes, such as a WINDOW_UPDATE, by a reset,
/// and what the peer has not read of the last response is lost with it.
pub async fn close(socket: &TcpStream) {
    let mut rest = [0; 1024];
    let over = async {
        while socket.readable().await.is_ok() {
            match socket.try_read(&mut rest) {
                Ok(0) => break,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
                _ => {}
            }
        }
    };
    if SockRef::from(socket).shutdown(Shutdown::Write).is_ok() {
        // After that the peer had its time.
        _ = timeout(LAST_WORDS, over).await;
    }
}

/// EMFILE, ENFILE, ENOBUFS, ENOMEM: true for the next accept or connect too.
pub fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | 23 | 105 | 12))
}

/// Whether a connect failed for want of something on this host: files, memory or local ports.
pub fn is_ours(error: &io::Error) -> bool {
    is_exhaustion(error) || error.kind() == io::ErrorKind::AddrNotAvailable
}

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 with prior knowledge (RFC 9113, 3.3).
    Http2,
    /// Anything else.
    Http1,
}

/// Reads until the first bytes tell what `stream` speaks, and gives them back with it. The
/// HTTP/2 preface begins with `PRI `, a method that HTTP/1.1 does not have; HTTP/1.1 begins with a
/// line that names its version. Anything else gets no answer, since none would be understood.
///
/// # Errors
/// The peer closed before it had said what it speaks, speaks neither, or reading failed.
pub async fn sniff<S: AsyncRead + Unpin>(stream: S) -> io::Result<(Protocol, Rewound<S>)> {
    sniff_after(Vec::new(), stream).await
}

/// The same of a stream of which the bytes in `first` were read already, too few to tell.
///
/// # Errors
/// As [`sniff`]'s.
pub async fn sniff_after<S: AsyncRead + Unpin>(
    mut first: Vec<u8>,
    mut stream: S,
) -> io::Result<(Protocol, Rewound<S>)> {
    let protocol = loop {
        // Of HTTP/2 no more than tells it, as its reader has a buffer of its own.
        let wanted = if b"PRI ".starts_with(&first) { 4 - first.len() } else { LINE };
        let mut limited = (&mut stream).take(wanted as u64);
        if limited.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first == b"PRI " {
            break Protocol::Http2;
        }
        let line = first.iter().position(|byte| *byte == b'\n').map(|end| &first[..end]);
        match line {
            _ if b"PRI ".starts_with(&first) => {}
            // An empty line may come first (RFC 9112, 2.2).
            Some([] | [b'\r']) => break Protocol::Http1,
            Some(line) if line.windows(8).any(|part| part == b" HTTP/1.") => break Protocol::Http1,
            None if first[0].is_ascii_alphabetic() || first[0] == b'\r' => {
                // So long a line is refused in HTTP/1.1's words.
                if first.len() >= LINE {
                    break Protocol::Http1;
                }
            }
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "neither HTTP/2 nor HTTP/1",
                ));
            }
        }
    };
    Ok((protocol, Rewound { first, read: 0, stream }))
}

/// A stream whose first bytes were read, and are read again.
#[derive(Debug)]
pub struct Rewound<S> {
    first: Vec<u8>,
    read: usize,
    stream: S,
}

impl<S> Rewound<S> {
    /// The stream, which goes on behind those bytes.
    pub fn inner(&self) -> &S {
        &self.stream
    }

    /// The stream, and the bytes that were read of it.
    pub fn into_parts(mut self) -> (S, Vec<u8>) {
        (self.stream, self.first.split_off(self.read))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read < self.first.len() {
            let end = self.first.len().min(self.read + buf.remaining());
            buf.put_slice(&self.first[self.read..end]);
            self.read = end;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

const BACKLOG: i32 = 4096;
/// Up to where the first line is looked for, in bytes.
const LINE: usize = 8 << 10;
const PAUSE: Duration = Duration::from_millis(100);
const EMFILE: i32 = 24;
/// How long a peer may take to read what it was sent last.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpSocket};

    use super::*;

    #[tokio::test]
    async fn a_slow_peer_reads_what_was_written_before_the_close() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpSocket::new_v4().unwrap();
        peer.set_recv_buffer_size(4096).unwrap();
        let mut peer = peer.connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        socket.writable().await.unwrap();
        let written = socket.try_write(&vec![7; 100_000]).unwrap();
        let closing = async {
            close(&socket).await;
            drop(socket);
        };
        let reading = async {
            let mut read = 0;
            let mut chunk = [0; 1000];
            loop {
                match peer.read(&mut chunk).await.unwrap() {
                    0 => break,
                    some => read += some,
                }
                peer.write_all(b"a WINDOW_UPDATE").await.unwrap();
            }
            drop(peer);
            read
        };
        assert_eq!(tokio::join!(closing, reading).1, written);
    }

    async fn sniffed(chunks: &[&[u8]]) -> (Protocol, Vec<u8>) {
        let (mut near, far) = tokio::io::duplex(64);
        let send = async {
            for chunk in chunks {
                near.write_all(chunk).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(near);
        };
        let receive = async {
            let (protocol, mut rewound) = sniff(far).await.unwrap();
            let mut all = Vec::new();
            rewound.read_to_end(&mut all).await.unwrap();
            (protocol, all)
        };
        tokio::join!(send, receive).1
    }

    #[tokio::test]
    async fn protocols_are_told_apart_however_the_bytes_arrive() {
        for (chunks, protocol) in [
            (&[b"PRI * HTTP/2.0".as_slice()] as &[&[u8]], Protocol::Http2),
            (&[b"P", b"R", b"I", b" *"], Protocol::Http2),
            (&[b"POST / HTTP/1.1\r\n"], Protocol::Http1),
            (&[b"PR", b"OPFIND / HT", b"TP/1.0\r", b"\nhost: a\r\n"], Protocol::Http1),
            (&[b"\r\n", b"GET / HTTP/1.1\r\n"], Protocol::Http1),
        ] {
            let (seen, bytes) = sniffed(chunks).await;
            assert_eq!((seen, bytes), (protocol, chunks.concat()));
        }
    }

    #[tokio::test]
    async fn what_speaks_neither_gets_no_answer() {
        for bytes in
            [b"".as_slice(), b"PR", b"G", b"\x16\x03\x01\x02\0\x01", b"GET /\r\n", b"A B C\r\n"]
        {
            let (mut near, far) = tokio::io::duplex(64);
            near.write_all(bytes).await.unwrap();
            let sniffing = sniff(far);
            if bytes.len() > 4 {
                assert!(sniffing.await.is_err(), "{bytes:?}, at once");
            } else {
                drop(near);
                assert!(sniffing.await.is_err(), "{bytes:?}, at its end");
            }
        }
    }
}
