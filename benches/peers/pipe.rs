//! A socket with a protocol behind it: what arrives is fed to it, what it has to say is written.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::frame::Fault;

/// One end of a connection, without its socket.
pub(crate) trait Endpoint {
    /// Takes what the socket delivered.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Fault>;

    /// What it does by itself, before each write.
    fn turn(&mut self, _: &mut Context) -> Result<Turn, Fault> {
        Ok(Turn::Continue)
    }

    /// What is to be written; emptied by the one who writes.
    fn out(&mut self) -> &mut Vec<u8>;
}

/// Whether a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Continue,
    Finished,
}

/// The buffer that all connections of a thread read into, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Scratch(Rc<RefCell<Vec<u8>>>);

impl Default for Scratch {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(vec![0; 256 << 10])))
    }
}

/// Runs a connection until it is finished or the peer ends it, which is a fault.
pub(crate) async fn run(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    endpoint: &mut impl Endpoint,
    scratch: &Scratch,
) -> Result<(), Fault> {
    poll_fn(|cx| {
        loop {
            if write(&mut socket, endpoint, cx)? == Turn::Finished {
                return Poll::Ready(Ok(()));
            }
            let mut scratch = scratch.0.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            // tokio's read knows that a buffer it could not fill has emptied the socket: no second
            // system call.
            match ready!(Pin::new(&mut socket).poll_read(cx, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => {
                    return Poll::Ready(Err("the connection was closed"));
                }
                Ok(()) => endpoint.feed(buffer.filled())?,
                Err(_) => return Poll::Ready(Err("the connection was reset")),
            }
        }
    })
    .await
}

/// Gives the endpoint its turns and writes until there is nothing more, or no room. Reading goes
/// on without room: the windows bound what may gather.
fn write(
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    endpoint: &mut impl Endpoint,
    cx: &mut Context,
) -> Result<Turn, Fault> {
    loop {
        if endpoint.turn(cx)? == Turn::Finished {
            return Ok(Turn::Finished);
        }
        let out = endpoint.out();
        if out.is_empty() {
            return Ok(Turn::Continue);
        }
        let mut written = 0;
        while written < out.len() {
            match Pin::new(&mut *socket).poll_write(cx, &out[written..]) {
                Poll::Ready(Ok(bytes)) => written += bytes,
                Poll::Ready(Err(_)) => return Err("the connection was reset"),
                Poll::Pending => {
                    out.drain(..written);
                    return Ok(Turn::Continue);
                }
            }
        }
        out.clear();
        // Records that the socket did not take yet.
        match Pin::new(&mut *socket).poll_flush(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Err("the connection was reset"),
            Poll::Pending => return Ok(Turn::Continue),
        }
    }
}
