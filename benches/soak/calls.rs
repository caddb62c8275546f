//! The load: clients of several kinds, each with one call after the other.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::fixture::{
    caller::{Caller, read},
    certs::Client,
};

/// A call that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) id: String,
    pub(crate) kind: &'static str,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) why: String,
}

/// What all clients have counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) calls: AtomicU64,
    pub(crate) failures: Mutex<Vec<Failure>>,
    /// There is no more to learn, whatever the time.
    pub(crate) over: AtomicBool,
}

impl Tally {
    /// Whether to go on until `end`.
    pub(crate) fn goes_on(&self, end: Instant) -> bool {
        Instant::now() < end && !self.over.load(Relaxed)
    }
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Unary,
    Stream,
    Large,
    Tls,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Stream => "stream",
            Self::Large => "large",
            Self::Tls => "tls",
        }
    }
}

/// Calls until `end`, by clients of every kind.
pub(crate) async fn load(
    [plain, secure]: [SocketAddr; 2],
    tls: Client,
    tally: Arc<Tally>,
    end: Instant,
) {
    let mut clients = JoinSet::new();
    let tls = Arc::new(tls);
    for (kind, count) in [(Kind::Unary, 12), (Kind::Stream, 6), (Kind::Large, 2), (Kind::Tls, 4)] {
        for number in 0..count {
            let address = if kind == Kind::Tls { secure } else { plain };
            let client = One { kind, number, address, tls: Arc::clone(&tls), calls: 0 };
            clients.spawn(client.run(Arc::clone(&tally), end));
        }
    }
    clients.join_all().await;
}

struct One {
    kind: Kind,
    number: usize,
    address: SocketAddr,
    tls: Arc<Client>,
    calls: u64,
}

impl One {
    async fn run(mut self, tally: Arc<Tally>, end: Instant) {
        while tally.goes_on(end) {
            let mut caller = match self.connect().await {
                Ok(caller) => caller,
                Err(why) => {
                    tally.failures.lock().unwrap().push(self.failure(Instant::now(), why));
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // Connections are made anew, too.
            for _ in 0..200 {
                if !tally.goes_on(end) {
                    return;
                }
                self.calls += 1;
                tally.calls.fetch_add(1, Relaxed);
                let began = Instant::now();
                let called = timeout(HANGS, self.call(&mut caller)).await;
                let why = match called {
                    Ok(Ok(())) => None,
                    Ok(Err(why)) => Some(why),
                    Err(_) => Some("hangs".to_owned()),
                };
                let failed = why.is_some();
                if let Some(why) = why {
                    tally.failures.lock().unwrap().push(self.failure(began, why));
                }
                sleep(self.pause()).await;
                if failed {
                    break;
                }
            }
        }
    }

    fn failure(&self, began: Instant, why: String) -> Failure {
        let (id, kind, ended) = (self.id(), self.kind.name(), Instant::now());
        Failure { id, kind, began, ended, why }
    }

    fn id(&self) -> String {
        format!("{}-{}-{}", self.kind.name(), self.number, self.calls)
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(match self.kind {
            Kind::Unary | Kind::Tls => 30,
            Kind::Stream => 100,
            Kind::Large => 400,
        })
    }

    async fn connect(&self) -> Result<Caller, String> {
        if self.kind != Kind::Tls {
            let stream = TcpStream::connect(self.address).await.map_err(|it| it.to_string())?;
            return Ok(Caller::after(stream).await);
        }
        let stream = self.tls.connect(self.address).await.map_err(|it| format!("TLS: {it}"))?;
        Caller::over(stream, self.address).await.map_err(|it| it.to_string())
    }

    /// One call; why it failed.
    async fn call(&self, caller: &mut Caller) -> Result<(), String> {
        let tenant = format!("team-{}", (self.calls + self.number as u64) % 50);
        let request =
            Request::post(format!("http://{}/test.Echo/{}", self.address, self.kind.name()))
                .header(header::CONTENT_TYPE, "application/grpc")
                .header(header::TE, "trailers")
                .header("grpc-timeout", format!("{}S", DEADLINE.as_secs()))
                .header("x-scope-orgid", tenant)
                .header("x-call", self.id())
                .body(())
                .unwrap();
        let size = match self.kind {
            Kind::Large => 300_000,
            _ => 1000,
        };
        let message = [&[0], &(size as u32).to_be_bytes()[..], &vec![7; size]].concat();
        let message = Bytes::from(message);
        let messages = if self.kind == Kind::Stream { 20 } else { 1 };
        let call = async {
            let mut call = caller.send(request, false).await?;
            let mut sender = call.request;
            let sends = async {
                for number in 1..=messages {
                    // A call may be over before that.
                    _ = sender.send_data(message.clone(), number == messages);
                    if number < messages {
                        sleep(Duration::from_millis(100)).await;
                    }
                }
            };
            let reads = async { read((&mut call.response).await?).await };
            let ((), reply) = tokio::join!(sends, reads);
            reply
        };
        let reply = call.await.map_err(|it: h2::Error| it.to_string())?;
        let Some(status) = reply.status() else { return Err("no status".to_owned()) };
        if status.code as u8 != 0 {
            return Err(status.to_string());
        }
        let expected = messages * message.len();
        match reply.body.len() == expected {
            true => Ok(()),
            false => Err(format!("OK with {} bytes of {expected}", reply.body.len())),
        }
    }
}

const DEADLINE: Duration = Duration::from_secs(10);
/// Past every deadline.
const HANGS: Duration = Duration::from_secs(20);
