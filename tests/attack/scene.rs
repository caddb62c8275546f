//! One row's run: the proxy, what is behind it, the victim, and the figures.

use std::{any::Any, fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use serde::Serialize;
use tokio::{
    net::TcpStream,
    runtime::{Handle, Runtime},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    endpoints::Server,
    fixture::echo::Echo,
    options::Options,
    subject::{self, Subject},
    victim::{Pace, Tally, UNARY, Victim},
};

/// What an attack runs in.
pub(crate) struct Scene<'a> {
    pub(crate) options: &'a Options,
    /// The runtime of what is behind the proxy.
    pub(crate) behind: &'a Runtime,
    /// The endpoint, unless the attack brings its own.
    pub(crate) endpoint: Arc<Echo>,
    echos: Vec<Arc<Echo>>,
    servers: Vec<Server>,
    kept: Vec<Box<dyn Any>>,
    subject: Option<Subject>,
    victim: Option<Victim>,
    /// A proxy that nobody attacks, with a client of its own: what the machine does to calls meanwhile.
    twin: Option<(Subject, Victim)>,
    calm: Tally,
    begun: Instant,
    memory: u64,
    figures: Vec<Figure>,
}

/// What an attack needs of the proxy.
#[derive(Default)]
pub(crate) struct Setup<'a> {
    /// Other endpoints than the scene's.
    pub(crate) endpoints: &'a [SocketAddr],
    /// Keys of the listener.
    pub(crate) listener: &'a str,
    /// Keys of the upstream.
    pub(crate) upstream: &'a str,
    /// How the process drains.
    pub(crate) drain: Option<&'a str>,
    /// Keys under `limits`.
    pub(crate) limits: &'a str,
    /// Whole sections; `listeners` may go on by lines of `  - { name: …`.
    pub(crate) more: &'a str,
    pub(crate) descriptors: Option<usize>,
}

/// One measured figure beside its bound.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) measured: String,
    pub(crate) bound: String,
    pub(crate) ok: bool,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, measured, bound, ok } = self;
        let mark = if *ok { "" } else { " OVER" };
        write!(f, "{name} {measured}")?;
        if !bound.is_empty() {
            write!(f, " ({bound}){mark}")?;
        }
        Ok(())
    }
}

impl<'a> Scene<'a> {
    pub(crate) async fn new(options: &'a Options, behind: &'a Runtime) -> anyhow::Result<Self> {
        let port = options.backend_port.unwrap_or_default();
        let endpoint = behind.spawn(Echo::start_at(([127, 0, 0, 1], port).into(), None)).await?;
        Ok(Self {
            options,
            behind,
            endpoint: Arc::new(endpoint),
            echos: Vec::new(),
            servers: Vec::new(),
            kept: Vec::new(),
            subject: None,
            victim: None,
            twin: None,
            calm: Tally::default(),
            begun: Instant::now(),
            memory: 0,
            figures: Vec::new(),
        })
    }

    /// Where what is behind the proxy runs.
    pub(crate) fn handle(&self) -> &Handle {
        self.behind.handle()
    }

    /// Starts the proxy and the victim, and measures the calm; returns where the proxy listens.
    pub(crate) async fn begin(&mut self, setup: Setup<'_>) -> anyhow::Result<SocketAddr> {
        let address = self.begin_alone(setup).await?;
        self.victim = Some(Victim::start(address, Pace::new(self.options.is_strict())));
        let endpoint = self.behind.spawn(Echo::start()).await?;
        let yaml = Setup::default().yaml(endpoint.address());
        let twin = Subject::start(&self.binary(), &yaml, None, self.handle()).await?;
        let client = Victim::start(twin.listener("otlp"), Pace::new(self.options.is_strict()));
        self.keep(endpoint);
        self.twin = Some((twin, client));
        if self.options.slow {
            subject::warm(address).await?;
        }
        sleep(SETTLING).await;
        self.victim().take();
        sleep(self.scaled(CALM)).await;
        self.calm = self.victim().take();
        if let Some((_, client)) = &self.twin {
            client.take();
        }
        self.begun = Instant::now();
        self.subject().forget_peak();
        self.memory = self.subject().resident();
        Ok(address)
    }

    /// The same without a victim.
    pub(crate) async fn begin_alone(&mut self, setup: Setup<'_>) -> anyhow::Result<SocketAddr> {
        let subject = match (self.options.target, self.options.pid) {
            (Some(address), Some(pid)) => Subject::running(address, pid),
            _ => {
                let yaml = setup.yaml(self.endpoint.address());
                Subject::start(&self.binary(), &yaml, setup.descriptors, self.handle()).await?
            }
        };
        subject.forget_peak();
        self.memory = subject.resident();
        let address = subject.listener("otlp");
        self.subject = Some(subject);
        Ok(address)
    }

    fn binary(&self) -> PathBuf {
        let binary = self.options.binary.clone();
        binary.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_upbeat")))
    }

    /// A further endpoint, which takes so many streams on a connection; it lives with the scene.
    pub(crate) async fn echo(&mut self, streams: Option<u32>) -> anyhow::Result<Arc<Echo>> {
        let start = Echo::start_at(([127, 0, 0, 1], 0).into(), streams);
        let echo = Arc::new(self.behind.spawn(start).await?);
        self.echos.push(Arc::clone(&echo));
        Ok(echo)
    }

    /// An endpoint that serves each connection so; it lives with the scene.
    pub(crate) async fn server<F>(
        &mut self,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> anyhow::Result<SocketAddr>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let server = Server::start(self.behind, serve).await?;
        let address = server.address;
        self.servers.push(server);
        Ok(address)
    }

    /// Has something live as long as the scene: what the victim's last calls need.
    pub(crate) fn keep(&mut self, it: impl Any) {
        self.kept.push(Box::new(it));
    }

    pub(crate) fn subject(&self) -> &Subject {
        self.subject.as_ref().expect("an attack begins first")
    }

    pub(crate) fn subject_mut(&mut self) -> &mut Subject {
        self.subject.as_mut().expect("an attack begins first")
    }

    pub(crate) fn victim(&self) -> &Victim {
        self.victim.as_ref().expect("an attack begins first")
    }

    /// A time that is an eighth as long where the whole is not asked for.
    pub(crate) fn scaled(&self, whole: Duration) -> Duration {
        if self.options.slow { whole } else { whole / 8 }
    }

    /// A bound on a time, ten times as long where times do not count.
    pub(crate) fn patient(&self, bound: f64) -> f64 {
        if self.options.is_strict() { bound } else { 10.0 * bound }
    }

    /// How many streams of a path the endpoint has seen.
    pub(crate) fn opened(&self, path: &str) -> usize {
        self.endpoint.seen().paths.lock().unwrap().get(path).copied().unwrap_or_default()
    }

    /// How many streams it has seen that are not the victim's.
    pub(crate) fn others(&self) -> usize {
        let paths = self.endpoint.seen().paths.lock().unwrap();
        paths.iter().filter(|(path, _)| *path != UNARY).map(|(_, count)| count).sum()
    }

    /// Notes a figure that may be this much at most.
    pub(crate) fn at_most(&mut self, name: &str, measured: f64, bound: f64, unit: &str) {
        self.figure(
            name,
            format!("{}{unit}", short(measured)),
            format!("≤ {}{unit}", short(bound)),
            measured <= bound,
        );
    }

    /// Notes a figure that must be this much at least.
    pub(crate) fn at_least(&mut self, name: &str, measured: f64, bound: f64, unit: &str) {
        self.figure(
            name,
            format!("{}{unit}", short(measured)),
            format!("≥ {}{unit}", short(bound)),
            measured >= bound,
        );
    }

    /// Notes what must be equal.
    pub(crate) fn equal<T: PartialEq + fmt::Debug>(&mut self, name: &str, measured: T, right: T) {
        let ok = measured == right;
        self.figure(name, format!("{measured:?}"), format!("{right:?}"), ok);
    }

    /// Notes a figure without a bound.
    pub(crate) fn note(&mut self, name: &str, measured: impl fmt::Display) {
        self.figure(name, measured.to_string(), String::new(), true);
    }

    fn figure(&mut self, name: &str, measured: String, bound: String, ok: bool) {
        self.figures.push(Figure { name: name.to_owned(), measured, bound, ok });
    }

    /// Notes what memory the proxy has taken at its height since the attack began, in MiB.
    pub(crate) fn memory(&mut self, bound: f64) {
        let grown = self.subject().peak().saturating_sub(self.memory) as f64 / 1024.0;
        self.at_most("memory +", grown, bound, " MiB");
    }

    /// Ends the victim's calls, and judges them.
    pub(crate) fn part_with_victim(&mut self) {
        if let Some(victim) = self.victim.take() {
            let tally = victim.stop();
            let twin = self.twin.take().map(|(_, client)| client.stop()).unwrap_or_default();
            self.judge(&tally, &twin);
        }
    }

    /// Ends the row: looks at the victim and at the process.
    pub(crate) async fn end(mut self) -> anyhow::Result<Vec<Figure>> {
        if self.victim.is_some() {
            // What is over at once is over too soon to tell what it did to others.
            sleep_until(self.begun + SHORTEST).await;
        }
        self.part_with_victim();
        if self.options.slow {
            self.settle().await;
        }
        let subject = self.subject.as_mut().context("the attack never began")?;
        if !subject.is_terminated() && !subject.lives() {
            let last = subject.log().last().map(ToString::to_string).unwrap_or_default();
            self.equal("the process lives", false, true);
            self.note("its last words", last);
        }
        Ok(self.figures)
    }

    /// The victim's rule: no error, and a 99th percentile of max(2 × calm, calm + 5 ms), where calm
    /// is what it was before, or at a proxy that nobody attacked meanwhile.
    fn judge(&mut self, tally: &Tally, twin: &Tally) {
        // A debug build on a machine that does other things is late by itself.
        let (times, more) = if self.options.is_strict() { (2.0, 5.0) } else { (10.0, 250.0) };
        let calm = self.calm.p99().max(twin.p99());
        // Where the twin's calls are lost too, it was no attack that did it.
        let lost = tally.lost().saturating_sub(twin.lost());
        self.at_most("victim lost", lost as f64, 0.0, &format!(" of {}", tally.calls()));
        if tally.lost() > 0 {
            self.note("by", format!("{:?}", tally.errors));
        }
        self.at_most(P99, tally.p99(), (times * calm).max(calm + more), " ms");
    }

    /// Notes what memory is kept a minute after, at most; within 10 % of what it was.
    async fn settle(&mut self) {
        let bound = (self.memory as f64 * 1.1).max(self.memory as f64 + 2048.0);
        let end = Instant::now() + Duration::from_secs(60);
        while self.subject().resident() as f64 > bound && Instant::now() < end {
            sleep(Duration::from_millis(500)).await;
        }
        let kept = self.subject().resident() as f64 / 1024.0;
        self.at_most("kept", kept, bound / 1024.0, " MiB");
    }
}

/// Keys of the listener and of the upstreams by which the victim's calls go to the scene's
/// endpoint, and all others to these.
pub(crate) struct Aside {
    pub(crate) listener: String,
    pub(crate) upstream: String,
}

impl Aside {
    /// With more lines of keys of the other upstream.
    pub(crate) fn to(endpoints: &[SocketAddr], keys: &str) -> Self {
        Self {
            listener: format!(
                "routes: [{{ match: {{ prefix: {UNARY} }}, upstream: otlp }}, {{ upstream: aside }}]"
            ),
            upstream: format!(
                r#"  aside:
    endpoints: [{}]
    probe: {{ interval: 1s, timeout: 900ms, checks: [{{ tcp: {{}} }}] }}
{keys}"#,
                list(endpoints)
            ),
        }
    }

    /// What begins so.
    pub(crate) fn setup(&self) -> Setup<'_> {
        Setup { listener: &self.listener, upstream: &self.upstream, ..Setup::default() }
    }
}

fn list(endpoints: &[SocketAddr]) -> String {
    let quoted: Vec<_> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
    quoted.join(", ")
}

impl Setup<'_> {
    fn yaml(&self, echo: SocketAddr) -> String {
        let Setup { listener, upstream, limits, more, .. } = self;
        let endpoints = if self.endpoints.is_empty() { &[echo] } else { self.endpoints };
        let (lines, sections) = match more.split_once("---\n") {
            Some((lines, sections)) => (lines, sections),
            None => ("", *more),
        };
        let to = if listener.contains("routes:") { "" } else { "upstream: otlp," };
        format!(
            r#"
listeners:
  - {{ name: otlp, address: "127.0.0.1:0", {to} {listener} }}
{lines}
upstreams:
  otlp:
    endpoints: [{}]
    probe: {{ interval: 1s, timeout: 900ms, checks: [{{ tcp: {{}} }}] }}
{upstream}
limits: {{ {limits} }}
admin: {{ address: "127.0.0.1:0" }}
drain: {{ {} }}
workers: 1
log: {{ format: json }}
{sections}
"#,
            list(endpoints),
            self.drain.unwrap_or("delay: 0s, timeout: 2s")
        )
    }
}

/// At most three digits that tell something.
fn short(number: f64) -> String {
    match number {
        n if n.fract() == 0.0 => format!("{n:.0}"),
        n if n.abs() >= 100.0 => format!("{n:.0}"),
        n if n.abs() >= 10.0 => format!("{n:.1}"),
        n => format!("{n:.2}"),
    }
}

/// The figure of the victim's 99th percentile.
pub(crate) const P99: &str = "p99";
/// How long the victim calls before anything is measured.
const SETTLING: Duration = Duration::from_millis(200);
/// How long the victim calls at least, once the attack has begun.
const SHORTEST: Duration = Duration::from_secs(1);
/// How long the calm is measured.
const CALM: Duration = Duration::from_secs(3);
