//! The bound: a proxy that copies bytes and knows nothing of HTTP, one connection to the backend
//! for each from a client.

use std::{
    future::poll_fn,
    net::Ipv4Addr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::{JoinSet, LocalSet},
};

use crate::part;

/// Serves until standard input ends.
pub(crate) fn serve(listen: u16, backend: u16) -> anyhow::Result<()> {
    let runtime = part::runtime()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = part::listen(Ipv4Addr::LOCALHOST, listen).context("listen")?;
        part::end_with_parent();
        let mut tasks = JoinSet::new();
        loop {
            let (client, _) = tokio::select! {
                accepted = listener.accept() => accepted.context("accept")?,
                Some(_) = tasks.join_next() => continue,
            };
            tasks.spawn_local(async move {
                let Ok(server) = TcpStream::connect(("127.0.0.1", backend)).await else { return };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                relay(client, server).await;
            });
        }
    })
}

/// Copies both ways until either side ends.
async fn relay(mut client: TcpStream, mut server: TcpStream) {
    let [mut up, mut down] = [Vec::new(), Vec::new()];
    poll_fn(|cx| {
        let up = copy(&mut client, &mut server, &mut up, cx);
        let down = copy(&mut server, &mut client, &mut down, cx);
        if up.is_ready() || down.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Copies one way for as long as it goes; ready when it has ended. `rest` is what the receiver had
/// no room for.
fn copy(
    from: &mut TcpStream,
    to: &mut TcpStream,
    rest: &mut Vec<u8>,
    cx: &mut Context,
) -> Poll<()> {
    thread_local! {
        static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; 256 << 10]);
    }
    BUFFER.with_borrow_mut(|buffer| {
        loop {
            while !rest.is_empty() {
                match ready!(Pin::new(&mut *to).poll_write(cx, rest)) {
                    Ok(bytes) => rest.drain(..bytes),
                    Err(_) => return Poll::Ready(()),
                };
            }
            let mut read = ReadBuf::new(buffer);
            let bytes = match ready!(Pin::new(&mut *from).poll_read(cx, &mut read)) {
                Ok(()) if read.filled().is_empty() => return Poll::Ready(()),
                Ok(()) => read.filled(),
                Err(_) => return Poll::Ready(()),
            };
            let mut written = 0;
            while written < bytes.len() {
                match Pin::new(&mut *to).poll_write(cx, &bytes[written..]) {
                    Poll::Ready(Ok(more)) => written += more,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {
                        rest.extend_from_slice(&bytes[written..]);
                        return Poll::Pending;
                    }
                }
            }
        }
    })
}
