//! An endpoint: a process of its own that writes down each call before it answers it.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{HeaderValue, Request, Response, header};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream},
    process::{Child, Command},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use upbeat::grpc::Status;

/// The process, as the soak has it. Dropped, it is killed.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) journal: PathBuf,
    child: Option<Child>,
    /// Keeps the port from others while the process is down.
    _place: TcpSocket,
}

impl Endpoint {
    pub(crate) async fn start(folder: &Path) -> Self {
        let place = TcpSocket::new_v4().unwrap();
        place.set_reuseaddr(true).unwrap();
        place.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = place.local_addr().unwrap();
        let journal = folder.join(format!("journal-{}", address.port()));
        File::create(&journal).unwrap();
        let mut endpoint = Self { address, journal, child: None, _place: place };
        endpoint.begin().await;
        endpoint
    }

    pub(crate) async fn begin(&mut self) {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["endpoint", &self.address.to_string()])
            .arg(&self.journal)
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        self.child = Some(child.unwrap());
        let begun = Instant::now();
        while TcpStream::connect(self.address).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "an endpoint does not listen");
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn kill(&mut self) {
        self.child.take().expect("it runs").kill().await.unwrap();
    }

    /// Ends it as a rollout does: calls that it has are answered.
    pub(crate) async fn stop(&mut self) {
        self.say("stop").await;
        let mut child = self.child.take().expect("it runs");
        timeout(Duration::from_secs(30), child.wait()).await.expect("it stops").unwrap();
    }

    pub(crate) async fn signal(&self, name: &str) {
        let process = self.child.as_ref().and_then(Child::id).expect("it runs");
        let kill = ["-s", name, &process.to_string()].map(str::to_owned);
        assert!(Command::new("kill").args(kill).status().await.unwrap().success());
    }

    pub(crate) async fn say(&mut self, word: &str) {
        let stdin = self.child.as_mut().and_then(|child| child.stdin.as_mut()).expect("it runs");
        stdin.write_all(format!("{word}\n").as_bytes()).await.unwrap();
    }

    /// The calls that it has begun, by their id.
    pub(crate) fn begun(&self) -> Vec<String> {
        fs::read_to_string(&self.journal).unwrap().lines().map(str::to_owned).collect()
    }
}

struct Inside {
    journal: Mutex<File>,
    /// How long a call takes, in milliseconds.
    slow: AtomicU64,
}

/// Serves until it is told to stop, or nobody is left to tell it.
pub(crate) async fn serve(address: SocketAddr, journal: &Path) {
    let journal = Mutex::new(OpenOptions::new().append(true).open(journal).unwrap());
    let inside = Arc::new(Inside { journal, slow: AtomicU64::new(0) });
    let (stop, stopped) = watch::channel(false);
    let orders = Arc::clone(&inside);
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match line.strip_prefix("slow ") {
                Some(millis) => orders.slow.store(millis.parse().unwrap(), SeqCst),
                None => break,
            }
        }
        stop.send_replace(true);
    });
    let socket = TcpListener::from_std(upbeat::net::listen(address).unwrap()).unwrap();
    let mut connections = JoinSet::new();
    let mut told = stopped.clone();
    loop {
        tokio::select! {
            accepted = socket.accept() => {
                let (stream, _) = accepted.unwrap();
                connections.spawn(connection(stream, Arc::clone(&inside), stopped.clone()));
            }
            Some(_) = connections.join_next() => {}
            _ = told.wait_for(|stop| *stop) => break,
        }
    }
    drop(socket);
    _ = timeout(Duration::from_secs(20), async {
        while connections.join_next().await.is_some() {}
    })
    .await;
}

async fn connection(stream: TcpStream, inside: Arc<Inside>, mut stopped: watch::Receiver<bool>) {
    _ = stream.set_nodelay(true);
    let mut builder = h2::server::Builder::new();
    builder.initial_connection_window_size(4 << 20);
    let Ok(mut connection) = builder.handshake(stream).await else { return };
    let (mut streams, mut told) = (JoinSet::new(), false);
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    streams.spawn(answer(request, respond, Arc::clone(&inside)));
                }
                _ => return,
            },
            _ = stopped.wait_for(|stop| *stop), if !told => {
                told = true;
                connection.graceful_shutdown();
            }
            Some(_) = streams.join_next() => {}
        }
    }
}

/// Sends back what comes, as it comes.
async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    inside: Arc<Inside>,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    // Probes have none.
    if let Some(id) = head.headers.get("x-call") {
        let line = [id.as_bytes(), b"\n"].concat();
        inside.journal.lock().unwrap().write_all(&line).unwrap();
    }
    sleep(Duration::from_millis(inside.slow.load(SeqCst))).await;
    let mut reply = Response::new(());
    let grpc = HeaderValue::from_static("application/grpc");
    reply.headers_mut().insert(header::CONTENT_TYPE, grpc);
    let mut back = respond.send_response(reply, false)?;
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        send(&mut back, chunk).await?;
    }
    back.send_trailers(Status::OK.trailers())
}

/// Sends a chunk as the window admits it.
async fn send(stream: &mut SendStream<Bytes>, mut chunk: Bytes) -> Result<(), h2::Error> {
    while !chunk.is_empty() {
        stream.reserve_capacity(chunk.len());
        let Some(free) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return Err(h2::Reason::CANCEL.into());
        };
        let part = chunk.split_to(free?.min(chunk.len()));
        stream.send_data(part, false)?;
    }
    Ok(())
}
