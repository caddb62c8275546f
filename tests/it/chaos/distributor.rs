//! A distributor in a process of its own: this test binary, started again.

use std::{
    env,
    fs::{File, OpenOptions},
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    process::{Child, Command},
    sync::oneshot,
    time::sleep,
};
use tonic::{Request, Response, Status, transport::Server};

use crate::fixture::eventually;

/// A running distributor. Dropped, it is killed.
pub(super) struct Distributor {
    address: SocketAddr,
    journal: Journal,
    child: Option<Child>,
    /// Keeps the port from others while the distributor is down.
    _place: TcpSocket,
}

/// The calls that a distributor has begun, in a file that outlives it.
#[derive(Clone)]
pub(super) struct Journal(Arc<PathBuf>);

impl Journal {
    pub(super) fn read(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&*self.0).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if Arc::strong_count(&self.0) == 1 {
            _ = std::fs::remove_file(&*self.0);
        }
    }
}

impl Distributor {
    pub(super) async fn new() -> Self {
        let place = TcpSocket::new_v4().unwrap();
        place.set_reuseaddr(true).unwrap();
        place.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = place.local_addr().unwrap();
        let name = format!("upbeat-chaos-{}-{}", std::process::id(), address.port());
        let journal = Journal(Arc::new(env::temp_dir().join(name)));
        File::create(&*journal.0).unwrap();
        let mut distributor = Self { address, journal, child: None, _place: place };
        distributor.start().await;
        distributor
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn journal(&self) -> Journal {
        self.journal.clone()
    }

    pub(super) async fn start(&mut self) {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "chaos::distributor::process", "--ignored", "--nocapture"])
            .env(ADDRESS, self.address.to_string())
            .env(JOURNAL, &*self.journal.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        self.child = Some(child.unwrap());
        eventually("it listens", async || TcpStream::connect(self.address).await.is_ok()).await;
    }

    pub(super) async fn kill(&mut self) {
        self.child.take().expect("it runs").kill().await.unwrap();
    }

    /// Ends it as a rollout does: calls that it has are answered.
    pub(super) async fn stop(&mut self) {
        self.say("stop").await;
        self.child.take().expect("it runs").wait().await.unwrap();
    }

    pub(super) async fn signal(&self, name: &str) {
        let process = self.child.as_ref().and_then(Child::id).expect("it runs");
        let kill = format!("kill -{name} {process}");
        assert!(Command::new("sh").args(["-c", &kill]).status().await.unwrap().success());
    }

    pub(super) async fn say(&mut self, word: &str) {
        let stdin = self.child.as_mut().and_then(|child| child.stdin.as_mut()).expect("it runs");
        stdin.write_all(format!("{word}\n").as_bytes()).await.unwrap();
    }
}

const ADDRESS: &str = "UPBEAT_CHAOS_ADDRESS";
const JOURNAL: &str = "UPBEAT_CHAOS_JOURNAL";

struct Receiver {
    journal: Mutex<File>,
    /// How long a call takes, in milliseconds.
    slow: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        // Probes have none.
        if let Some(call) = request.metadata().get("x-call") {
            let line = [call.as_bytes(), b"\n"].concat();
            self.journal.lock().unwrap().write_all(&line).unwrap();
        }
        match self.slow.load(SeqCst) {
            0 => {}
            millis => sleep(Duration::from_millis(millis)).await,
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test]
#[ignore = "the process of a distributor, which the chaos test starts"]
async fn process() {
    let (Ok(address), Ok(journal)) = (env::var(ADDRESS), env::var(JOURNAL)) else { return };
    let slow = Arc::new(AtomicU64::new(0));
    let (stop, stopped) = oneshot::channel();
    let delay = Arc::clone(&slow);
    thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            match line.strip_prefix("slow ") {
                Some(millis) => delay.store(millis.parse().unwrap(), SeqCst),
                None => break,
            }
        }
        // Told to stop, or the test is gone.
        _ = stop.send(());
    });
    let journal = Mutex::new(OpenOptions::new().append(true).open(journal).unwrap());
    let service = TraceServiceServer::new(Receiver { journal, slow });
    let stopped = async { _ = stopped.await };
    let server = Server::builder().add_service(service);
    server.serve_with_shutdown(address.parse().unwrap(), stopped).await.unwrap();
}
