//! The hostile end of one connection: reads requests, and writes what it likes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use upbeat::http2::frame::{
    ACK, DATA, END_HEADERS, END_STREAM, HEADERS, Head, PING, PREFACE, SETTINGS, put_settings,
};

use super::way::Way;
use crate::fixture::{frames::put, wire::encode};

/// An endpoint that is hostile in one way on all its connections.
pub(super) struct Hostile {
    pub(super) address: SocketAddr,
    /// Connections that spoke.
    pub(super) connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Hostile {
    pub(super) async fn start(way: Way) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let connections = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&connections);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (socket, _) = socket.accept().await.unwrap();
                socket.set_nodelay(true).unwrap();
                let count = Arc::clone(&count);
                open.spawn(async move {
                    let mut peer = Peer { socket, input: Vec::new() };
                    // A probe by TCP says nothing.
                    if peer.fill(PREFACE.len()).await.is_some() {
                        peer.input.drain(..PREFACE.len());
                        count.fetch_add(1, SeqCst);
                        _ = way.play(peer).await;
                    }
                });
                while open.try_join_next().is_some() {}
            }
        });
        Self { address, connections, _tasks: tasks }
    }
}

/// One connection. Each method gives none once the other end has gone.
pub(super) struct Peer {
    pub(super) socket: TcpStream,
    input: Vec<u8>,
}

impl Peer {
    /// Says SETTINGS.
    pub(super) async fn settle(&mut self, settings: &[(u16, u32)]) -> Option<()> {
        let mut bytes = Vec::new();
        put_settings(settings, &mut bytes);
        self.write(&bytes).await
    }

    /// The next request's stream, whose body may still be on its way.
    pub(super) async fn request(&mut self) -> Option<u32> {
        loop {
            let (head, _) = self.frame().await?;
            if head.kind == HEADERS {
                return Some(head.stream);
            }
        }
    }

    /// The next frame, after SETTINGS and PING were answered.
    pub(super) async fn frame(&mut self) -> Option<(Head, Vec<u8>)> {
        self.fill(9).await?;
        let head = Head::parse(self.input.first_chunk().expect("filled"));
        self.fill(9 + head.length).await?;
        let payload: Vec<u8> = self.input.drain(..9 + head.length).skip(9).collect();
        if [SETTINGS, PING].contains(&head.kind) && head.flags & ACK == 0 {
            let payload = if head.kind == PING { &payload[..] } else { &[] };
            self.send(head.kind, ACK, 0, payload).await?;
        }
        Some((head, payload))
    }

    pub(super) async fn send(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> Option<()> {
        let mut bytes = Vec::new();
        put(kind, flags, stream, payload, &mut bytes);
        self.write(&bytes).await
    }

    /// The head of a response.
    pub(super) async fn head(&mut self, stream: u32, fields: &[(&str, &str)]) -> Option<()> {
        let all = [&[(":status", "200"), ("content-type", "application/grpc")], fields].concat();
        self.send(HEADERS, END_HEADERS, stream, &encode(&all, &[])).await
    }

    /// A message of a gRPC response.
    pub(super) async fn message(&mut self, stream: u32, bytes: &[u8]) -> Option<()> {
        let prefixed = [&[0], &(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
        self.send(DATA, 0, stream, &prefixed).await
    }

    /// Trailers that say OK.
    pub(super) async fn trailers(&mut self, stream: u32) -> Option<()> {
        let block = encode(&[("grpc-status", "0")], &[]);
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &block).await
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Option<()> {
        self.socket.write_all(bytes).await.ok()
    }

    /// Ends it by a TCP reset.
    pub(super) fn reset(self) {
        socket2::SockRef::from(&self.socket).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    /// Reads and answers nothing but what keeps the connection, until the other end goes.
    pub(super) async fn idle(&mut self) -> Option<()> {
        loop {
            self.frame().await?;
        }
    }

    async fn fill(&mut self, size: usize) -> Option<()> {
        while self.input.len() < size {
            self.socket.read_buf(&mut self.input).await.ok().filter(|read| *read > 0)?;
        }
        Some(())
    }
}
