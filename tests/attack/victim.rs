//! A well-behaved client: 200 unary calls of 1 KiB a second on a connection of its own, and a
//! thread of its own; fewer where times do not count.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    runtime::Builder,
    task::JoinSet,
    time::{Instant, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::fixture::caller::{Call, Caller, read};

/// The path of its calls.
pub(crate) const UNARY: &str = "/test.Echo/Unary";
/// How often it calls, and how long it waits for a call before it counts it as lost.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    every: Duration,
    patience: Duration,
}

impl Pace {
    /// 200 calls a second, or what a debug build on a machine that does other things keeps up with.
    pub(crate) fn new(strict: bool) -> Self {
        let [every, patience] = if strict { [5, 5000] } else { [20, 20_000] };
        Self { every: Duration::from_millis(every), patience: Duration::from_millis(patience) }
    }
}

const MESSAGE: usize = 1024;

/// The running client.
pub(crate) struct Victim {
    tally: Arc<Mutex<Tally>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// What became of the calls of a time.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    latencies: Vec<Duration>,
    pub(crate) errors: BTreeMap<String, usize>,
}

impl Tally {
    /// The 99th percentile of the calls that were answered, in milliseconds.
    pub(crate) fn p99(&self) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort();
        let at = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
        sorted.get(at).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }

    pub(crate) fn lost(&self) -> usize {
        self.errors.values().sum()
    }

    pub(crate) fn calls(&self) -> usize {
        self.latencies.len() + self.lost()
    }

    fn add(&mut self, outcome: Result<Duration, String>) {
        match outcome {
            Ok(latency) => self.latencies.push(latency),
            Err(why) => *self.errors.entry(why).or_default() += 1,
        }
    }
}

impl Victim {
    /// Starts to call `address`.
    pub(crate) fn start(address: SocketAddr, pace: Pace) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let stop = CancellationToken::new();
        let (inside, stopped) = (Arc::clone(&tally), stop.clone());
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(call(address, pace, inside, stopped));
        });
        Self { tally, stop, thread: Some(thread) }
    }

    /// The calls that have ended since this was asked the last time.
    pub(crate) fn take(&self) -> Tally {
        std::mem::take(&mut self.tally.lock().unwrap())
    }

    /// Lets the calls that are under way end; returns all since [`Self::take`].
    pub(crate) fn stop(mut self) -> Tally {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        self.take()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn call(
    address: SocketAddr,
    Pace { every, patience }: Pace,
    tally: Arc<Mutex<Tally>>,
    stop: CancellationToken,
) {
    let connection = Arc::new(Connection { address, caller: Default::default() });
    let mut calls = JoinSet::new();
    let mut ticks = interval(every);
    while !stop.is_cancelled() {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => break,
        }
        while calls.try_join_next().is_some() {}
        let (connection, tally) = (Arc::clone(&connection), Arc::clone(&tally));
        calls.spawn(async move {
            let outcome = timeout(patience, connection.unary()).await;
            let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer in {patience:?}")));
            tally.lock().unwrap().add(outcome);
        });
    }
    while calls.join_next().await.is_some() {}
}

/// The connection of all calls, made anew after it has ended.
struct Connection {
    address: SocketAddr,
    caller: tokio::sync::Mutex<Option<Caller>>,
}

impl Connection {
    async fn unary(&self) -> Result<Duration, String> {
        let started = Instant::now();
        let mut call = self.open().await?;
        let mut message = vec![0; 5 + MESSAGE];
        message[1..5].copy_from_slice(&(MESSAGE as u32).to_be_bytes());
        // The call may be answered, and its stream reset, before that.
        _ = call.request.send_data(message.into(), true);
        let reply = async { read(call.response.await?).await };
        let reply = reply.await.map_err(|error| told(&error))?;
        match reply.status() {
            Some(status) if status.code as u8 == 0 => Ok(started.elapsed()),
            Some(status) => Err(format!("{} {}", status.code as u8, status.message)),
            None => Err(format!("HTTP {}", reply.head.status())),
        }
    }

    /// Opens a call. On a connection that was told to go there is none to open: that call goes to
    /// the next connection, as with every gRPC client.
    async fn open(&self) -> Result<Call, String> {
        let mut slot = self.caller.lock().await;
        if let Some(caller) = &mut *slot
            && let Ok(call) = caller.open(UNARY).await
        {
            return Ok(call);
        }
        let stream = TcpStream::connect(self.address).await;
        let stream = stream.map_err(|error| format!("connection: {}", error.kind()))?;
        _ = stream.set_nodelay(true);
        let caller = Caller::over(stream, self.address).await.map_err(|error| told(&error))?;
        slot.insert(caller).open(UNARY).await.map_err(|error| told(&error))
    }
}

fn told(error: &h2::Error) -> String {
    if error.is_reset() {
        return format!("reset: {}", error.reason().unwrap_or(h2::Reason::NO_ERROR));
    }
    format!("connection: {error}")
}
