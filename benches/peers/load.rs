//! The load generator: one cell against one address, in a process of its own.

mod client;
mod driven;
mod pacer;
mod shared;
mod tally;

use std::{
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::{
    task::{JoinSet, LocalSet},
    time::{sleep, timeout},
};

use crate::{
    body::body,
    cell::{Cell, Mode, Span, Stage},
    clock::now,
    head::Head,
    outcome::{Latency, Outcome},
    part,
    pipe::{self, Scratch},
    tls::Dialer,
    usage::Tree,
};
use client::Client;
use driven::{Driven, Driver};
use pacer::Pacer;
use shared::{Phase, Shared};

/// What a load is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) cell: Cell,
    /// Where the subject listens, on 127.0.0.1.
    pub(crate) port: u16,
    /// The subject's process.
    pub(crate) pid: u32,
    /// What clients under TLS trust; see [`crate::tls::certify`].
    pub(crate) folder: PathBuf,
    pub(crate) span: Span,
    /// So many calls instead of a time.
    pub(crate) count: Option<Count>,
}

/// A number of calls.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) calls: u64,
    /// How long they may take.
    pub(crate) within: Duration,
}

impl Task {
    /// How long a load may take at most.
    pub(crate) fn limit(&self) -> Duration {
        let Span { warm, window } = self.span;
        let span = self.count.map_or(warm + window, |count| count.within);
        span + CONNECTED + DRAINED + Duration::from_secs(5)
    }
}

/// How long it may take until all connections are there.
const CONNECTED: Duration = Duration::from_secs(10);
/// How long what was started may take to end.
const DRAINED: Duration = Duration::from_secs(3);

/// Runs the load and prints its outcome.
pub(crate) fn run(task: &Task) -> anyhow::Result<()> {
    let load = Load::new(task)?;
    let runtime = part::runtime()?;
    let outcome = LocalSet::new().block_on(&runtime, load.run())?;
    part::report(&outcome)
}

struct Load<'a> {
    task: &'a Task,
    dialer: Dialer,
    shared: Rc<Shared>,
    body: Rc<[u8]>,
    scratch: Scratch,
    tree: Tree,
}

impl<'a> Load<'a> {
    fn new(task: &'a Task) -> anyhow::Result<Self> {
        let calls = match (task.count, task.cell.mode) {
            (Some(count), _) => count.calls,
            (None, Mode::Idle) => task.cell.connections as u64,
            (None, Mode::Memory(Stage::Fresh)) => 0,
            (None, _) => u64::MAX,
        };
        Ok(Self {
            task,
            dialer: Dialer::new(task.port, task.cell.tls.then_some(&*task.folder))?,
            shared: Rc::new(Shared::new(calls)),
            body: body(task.cell.request)?.into(),
            scratch: Scratch::default(),
            tree: Tree::of(task.pid),
        })
    }

    async fn run(self) -> anyhow::Result<Outcome> {
        let mut connections = JoinSet::new();
        let before = self.tree.resident();
        let pacer = timeout(CONNECTED, self.connect(&mut connections)).await;
        let pacer = pacer.context("connections take too long")??;
        let mut outcome = match self.task.count {
            Some(Count { within, .. }) => self.count(within).await,
            None => match self.task.cell.mode {
                Mode::Idle => self.idle(before).await,
                Mode::Memory(stage) => self.memory(stage, before, &mut connections).await,
                _ => self.measure().await,
            },
        };
        drop(pacer);
        self.shared.enter(Phase::Drain);
        self.until(DRAINED, Shared::is_quiet).await;
        self.shared.give_up();
        connections.shutdown().await;
        outcome.peak_kib = self.tree.peak();
        outcome.errors.clone_from(&self.shared.tally.borrow().errors);
        Ok(outcome)
    }

    /// Opens the connections; their calls begin.
    async fn connect(&self, connections: &mut JoinSet<()>) -> anyhow::Result<Option<Pacer>> {
        let Cell { mode, streams, connections: count, .. } = self.task.cell;
        if mode == Mode::Connect {
            (0..count).for_each(|number| {
                connections.spawn_local(self.reconnect(number));
            });
            return Ok(None);
        }
        let mut sockets = Vec::new();
        for _ in 0..count {
            sockets.push(self.dialer.connect().await.context("connect")?);
        }
        let (pacer, mut clocks) = match mode {
            Mode::Open { rate } => {
                let (pacer, clocks) = Pacer::start(self.shared.base, rate, count);
                (Some(pacer), clocks)
            }
            _ => (None, Vec::new()),
        };
        for (number, socket) in sockets.into_iter().enumerate() {
            let driver = match clocks.pop() {
                Some(clock) => Driver::Clock(clock),
                None => Driver::of(mode, streams, self.shared.now()),
            };
            let mut driven = Driven::new(self.client(number), driver, &self.shared);
            let scratch = self.scratch.clone();
            connections.spawn_local(async move {
                if let Err(why) = pipe::run(socket, &mut driven, &scratch).await {
                    driven.fail(why);
                }
            });
        }
        Ok(pacer)
    }

    /// One call after another, each on a connection of its own.
    fn reconnect(&self, number: usize) -> impl Future<Output = ()> + 'static {
        let (shared, scratch, body) =
            (self.shared.clone(), self.scratch.clone(), self.body.clone());
        let Cell { mode, request, heads, streams, .. } = self.task.cell;
        let dialer = self.dialer.clone();
        async move {
            for round in 0.. {
                if shared.phase() == Phase::Drain {
                    return;
                }
                let driver = Driver::of(mode, streams, shared.now());
                let Ok(socket) = dialer.connect().await else {
                    return shared.fail("the connection was refused", 0);
                };
                let head = Head::new(number, request, heads);
                let client = Client::new(number << 20 | round, request, head, body.clone());
                let mut driven = Driven::new(client, driver, &shared);
                if let Err(why) = pipe::run(socket, &mut driven, &scratch).await {
                    return driven.fail(why);
                }
            }
        }
    }

    fn client(&self, number: usize) -> Client {
        let Cell { request, heads, .. } = self.task.cell;
        Client::new(number, request, Head::new(number, request, heads), self.body.clone())
    }

    /// The window, after the warm-up.
    async fn measure(&self) -> Outcome {
        sleep(self.task.span.warm).await;
        let (cpu, start) = (self.tree.cpu(), now());
        self.shared.enter(Phase::Measure);
        sleep(self.task.span.window).await;
        self.shared.enter(Phase::Drain);
        self.outcome(start, self.tree.cpu().saturating_sub(cpu))
    }

    /// As many calls as were asked for.
    async fn count(&self, within: Duration) -> Outcome {
        let (cpu, start) = (self.tree.cpu(), now());
        self.shared.enter(Phase::Measure);
        self.until(within, Shared::is_spent).await;
        self.outcome(start, self.tree.cpu().saturating_sub(cpu))
    }

    /// The memory of connections that have had a call each.
    async fn idle(&self, before: u64) -> Outcome {
        self.until(CONNECTED, Shared::is_spent).await;
        sleep(self.task.span.warm.max(Duration::from_millis(200))).await;
        self.added(before)
    }

    /// The memory of connections at a stage of their life.
    async fn memory(&self, stage: Stage, before: u64, connections: &mut JoinSet<()>) -> Outcome {
        // Proxies give back when they get round to it.
        const LATER: Duration = Duration::from_secs(1);
        sleep(LATER.max(self.task.span.warm + self.task.span.window)).await;
        if matches!(stage, Stage::Emptied | Stage::Closed) {
            self.shared.enter(Phase::Drain);
            self.until(DRAINED, Shared::is_quiet).await;
            if stage == Stage::Closed {
                connections.shutdown().await;
            }
            sleep(LATER).await;
        }
        self.added(before)
    }

    /// Resident memory above what it was, for each connection.
    fn added(&self, before: u64) -> Outcome {
        let added = self.tree.resident().saturating_sub(before) as f64;
        let each = added / self.task.cell.connections as f64;
        Outcome { kib_per_connection: Some(each), ..Outcome::default() }
    }

    fn outcome(&self, start: Instant, cpu: Duration) -> Outcome {
        let tally = self.shared.tally.borrow();
        let requests = tally.answers;
        let some = requests > 0;
        Outcome {
            requests,
            per_second: requests as f64 / start.elapsed().as_secs_f64(),
            cpu_micros: some.then(|| cpu.as_secs_f64() * 1e6 / requests as f64),
            latency_ms: some.then(|| Latency {
                p50: tally.quantile(500),
                p99: tally.quantile(990),
                p999: tally.quantile(999),
            }),
            ..Outcome::default()
        }
    }

    /// Looks every few milliseconds, up to a limit.
    async fn until(&self, limit: Duration, done: fn(&Shared) -> bool) {
        let look = async {
            while !done(&self.shared) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        let _ = timeout(limit, look).await;
    }
}
