//! What runs: all that one configuration makes, and how another one takes its place.

use std::{collections::BTreeMap, future::pending, mem::take, sync::Arc, time::Duration};

use anyhow::Context;
use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{error, info};

use super::{
    certificates::Certificates,
    handover::Sockets,
    keys::Issuers,
    listening::{self, Listening},
    probed::{Probed, all, known, named},
    reload::Reloader,
};
use crate::{
    admin::{self, Access},
    answer::Answers,
    config::{self, Config, Difference, Problems},
    health::{Board, Reader, Views},
    metrics::{Metrics, ReloadLabels},
    relay::{Listener, Settings, Watches, worker_buffer},
    shutdown::Shutdown,
    upstream::{Changes, Upstream},
    watchdog::{self, Watchdog},
    worker::Worker,
};

/// All that a configuration makes, and the tasks of it.
#[derive(Debug)]
pub(super) struct Running {
    config: Config,
    certificates: Certificates,
    changes: Changes,
    issuers: Issuers,
    upstreams: Vec<Probed>,
    board: JoinSet<()>,
    watchdog: Watchdog,
    reader: Reader,
    views: watch::Sender<Views>,
    workers: Arc<Vec<Worker>>,
    watches: Watches,
    listening: Vec<Listening>,
    accepting: JoinSet<bool>,
    shown: watch::Sender<admin::Running>,
    sockets: watch::Sender<Sockets>,
    metrics: Metrics,
    shutdown: Shutdown,
    /// When to forget the labels of what ended after it was configured no more and to log what was
    /// turned away unlogged, and how long after that again.
    sweep: (Instant, Duration),
    /// When it was told last when certificates end.
    told: Instant,
}

impl Running {
    /// Starts workers and probes, and accepts on `sockets`, one for each listener. Where somebody
    /// else serves on them until then, `later`, the endpoints are probed first.
    ///
    /// # Errors
    /// The system grants no thread, or no use of a socket.
    pub(super) async fn start(
        (config, certificates): (Config, Certificates),
        sockets: Vec<Arc<TcpListener>>,
        metrics: &Metrics,
        shutdown: &Shutdown,
        later: bool,
    ) -> anyhow::Result<Self> {
        let changes = Changes::default();
        let upstreams: Vec<_> = (config.upstreams.iter())
            .map(|it| Probed::start(it.clone(), &certificates, &changes, metrics))
            .collect();
        let mut issuers = Issuers::new(metrics);
        issuers.succeed(&config, &certificates);
        if later {
            known(upstreams.iter(), &changes).await;
            issuers.tried().await;
        }
        let board = Board::new(&config.health, &all(&upstreams), metrics);
        let workers = (0..config.workers.count())
            .map(|number| Worker::start(number, &config.limits, metrics, shutdown, board.vitals()))
            .collect::<Result<Vec<_>, _>>()
            .context("cannot start a worker")?;
        info!(workers = workers.len(), buffer = %worker_buffer(&config.limits), "workers run");
        let heartbeats = workers.iter().map(|worker| Arc::clone(worker.heartbeat()));
        let watchdog = Watchdog::start(board.vitals(), heartbeats, metrics, watchdog::exit)
            .context("cannot start the watchdog")?;
        let (reader, views) = (board.subscribe(), board.views());
        let mut tasks = JoinSet::new();
        tasks.spawn(board.run(changes.clone(), shutdown.drain.clone()));
        let mut running = Self {
            config: config.clone(),
            certificates: certificates.clone(),
            changes,
            issuers,
            upstreams,
            board: tasks,
            watchdog,
            reader,
            views,
            workers: Arc::new(workers),
            watches: Watches::default(),
            listening: Vec::new(),
            accepting: JoinSet::new(),
            shown: watch::Sender::default(),
            sockets: watch::Sender::new(Arc::new([])),
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
            sweep: (Instant::now() + SWEEP, SWEEP),
            told: Instant::now(),
        };
        running.apply(config, certificates, sockets)?;
        Ok(running)
    }

    /// What the board publishes.
    pub(super) fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// What the admin server shows.
    pub(super) fn shown(&self) -> watch::Receiver<admin::Running> {
        self.shown.subscribe()
    }

    /// What is listened on.
    pub(super) fn sockets(&self) -> watch::Receiver<Sockets> {
        self.sockets.subscribe()
    }

    /// Takes over what `reloader` reads, for as long as all tasks go on; which one did not.
    pub(super) async fn run(&mut self, mut reloader: Option<Reloader>) -> anyhow::Error {
        loop {
            let config = self.config.reload.clone();
            let (sweep, pause) = self.sweep;
            let next = async {
                match &mut reloader {
                    Some(reloader) => reloader.next(&config).await,
                    None => pending().await,
                }
            };
            let read = tokio::select! {
                ended = self.ended() => return ended,
                read = next => read,
                () = sleep_until(sweep) => {
                    let pause = LONGEST_SWEEP.min(pause * 2);
                    self.sweep = (Instant::now() + pause, pause);
                    self.metrics.keep(&named(&self.config, &self.upstreams));
                    self.listening.iter().for_each(|it| it.listener().refusals().tell());
                    if self.told.elapsed() >= DAY {
                        self.told = Instant::now();
                        self.certificates.tell(&self.config, &self.metrics);
                    }
                    continue;
                }
            };
            self.take(read).await;
        }
    }

    /// Waits for a task that should go on for ever.
    async fn ended(&mut self) -> anyhow::Error {
        let mut probes: FuturesUnordered<_> =
            self.upstreams.iter_mut().map(Probed::ended).collect();
        loop {
            return tokio::select! {
                ended = self.accepting.join_next() => match ended {
                    // It is configured no more.
                    Some(Ok(true)) => continue,
                    ended => anyhow::anyhow!("a listener ended: {ended:?}"),
                },
                ended = self.board.join_next() => anyhow::anyhow!("a task ended: {ended:?}"),
                Some(ended) = self.issuers.ended() => anyhow::anyhow!("a task ended: {ended:?}"),
                ended = probes.next() => anyhow::anyhow!("a task ended: {ended:?}"),
            };
        }
    }

    /// Makes what was read what runs, or says why not.
    async fn take(&mut self, read: Result<(Config, Certificates), Problems>) {
        let outcome = match read {
            Ok((config, certificates))
                if self.config.differences(&config).is_empty()
                    && certificates == self.certificates =>
            {
                Ok(None)
            }
            Ok((config, certificates)) => self.reload(config, certificates).await.map(Some),
            Err(problems) => Err(problems.0.iter().map(ToString::to_string).collect()),
        };
        let result = match outcome {
            Ok(None) => {
                info!("the configuration is the one that runs");
                "unchanged"
            }
            Ok(Some(differences)) => {
                for it in &differences {
                    let (from, to) = (it.from.as_deref(), it.to.as_deref());
                    info!(key = it.path, from, to, "configuration changed");
                }
                let hash = self.config.written.hash();
                info!(changes = differences.len(), hash, "configuration applied");
                "applied"
            }
            Err(problems) => {
                for problem in &problems {
                    error!(problem, "configuration refused: the one that runs stays");
                }
                "refused"
            }
        };
        self.metrics.config_last_reload_successful.set((result != "refused").into());
        self.metrics.config_reloads.get_or_create(&ReloadLabels { result }).inc();
    }

    /// Takes `config` over; the differences. Nothing changes before everything is known to be
    /// possible, and every new endpoint was probed: a service that serves must not stop to.
    ///
    /// # Errors
    /// Why it cannot run; all is as before then.
    async fn reload(
        &mut self,
        config: Config,
        mut certificates: Certificates,
    ) -> Result<Vec<Difference>, Vec<String>> {
        let differences = self.config.differences(&config);
        let stays = differences.iter().filter(|it| it.needs_restart()).map(|it| {
            let said = |words: &Option<String>| words.as_deref().unwrap_or("nothing").to_owned();
            let (path, from, to) = (&it.path, said(&it.from), said(&it.to));
            format!("{path}: {from} cannot become {to} while the process runs: restart it, or take {path} back")
        });
        let stays: Vec<_> = stays.collect();
        if !stays.is_empty() {
            return Err(stays);
        }
        let sockets = listening::sockets(&config.listeners, &self.listening)?;
        self.issuers.succeed(&config, &certificates);
        let successors = self.successors(&config, &certificates).await;
        self.issuers.tried().await;
        if certificates != self.certificates {
            info!("certificates changed");
        }
        certificates.keep(&config, (&self.config, &self.certificates));
        let gone = self.succeed(successors, &config).await;
        self.apply(config, certificates, sockets).map_err(|error| vec![format!("{error:#}")])?;
        gone.iter().for_each(|upstream| upstream.retire());
        Ok(differences)
    }

    /// The upstreams that change, with only their new endpoints, probed once; by their names.
    async fn successors(
        &self,
        config: &Config,
        certificates: &Certificates,
    ) -> BTreeMap<String, Probed> {
        let successors = config.upstreams.iter().filter_map(|it| {
            let before = self.upstreams.iter().find(|other| other.config().name == it.name);
            let new = Probed::successor(before, it, certificates, &self.changes, &self.metrics)?;
            Some((it.name.clone(), new))
        });
        let successors: BTreeMap<_, _> = successors.collect();
        known(successors.values(), &self.changes).await;
        successors
    }

    /// Puts upstreams in the place of those that were, whose endpoints keep their state.
    /// Upstreams that are no more are returned: they are for calls of workers that do not know yet.
    async fn succeed(
        &mut self,
        mut successors: BTreeMap<String, Probed>,
        config: &Config,
    ) -> Vec<Arc<Upstream>> {
        let mut gone = Vec::new();
        let mut before = take(&mut self.upstreams);
        for it in &config.upstreams {
            let at = before.iter().position(|other| other.config().name == it.name);
            let old = at.map(|at| before.remove(at));
            self.upstreams.extend(match (old, successors.remove(&it.name)) {
                (Some(old), Some(new)) => {
                    let (new, old) = old.succeeded_by(new, it, &self.metrics).await;
                    gone.extend(old);
                    Some(new)
                }
                (old, new) => old.or(new),
            });
        }
        for old in before {
            gone.push(old.end().await);
        }
        gone
    }

    /// Makes the board, the listeners and the workers go by `config`, for which the upstreams
    /// stand already.
    fn apply(
        &mut self,
        config: Config,
        certificates: Certificates,
        sockets: Vec<Arc<TcpListener>>,
    ) -> anyhow::Result<()> {
        let upstreams = all(&self.upstreams);
        for upstream in upstreams.iter() {
            let new = certificates.upstreams.get(&**upstream.name());
            if let Some((own, new)) = upstream.tls().zip(new) {
                own.renew(new);
            }
        }
        let views = Views::new(&config.health, &upstreams);
        self.views.send_replace(views.clone());
        let mut before = take(&mut self.listening);
        let (mut listeners, mut answering) = (Vec::new(), Vec::new());
        let all = config.listeners.iter().zip(&certificates.listeners);
        for ((it, tls), socket) in all.zip(sockets) {
            let at = before.iter().position(|other| other.is(it, &socket));
            let old = at.map(|at| before.remove(at));
            let stop = old.as_ref().map(|old| old.stop().clone());
            let stop = stop.unwrap_or_else(|| self.shutdown.stop.child_token());
            let answers = answers(&self.reader, it, &config.health);
            answering.push((it.name.clone(), answers.clone()));
            let listener = Listener::new(it, &config.health, &upstreams, answers, &self.metrics);
            let before = old.as_ref().map(Listening::listener);
            let listener = listener.following(before.as_deref()).with_tls(tls.clone());
            let listener = listener.with_watches(self.watches.clone());
            let listener = listener.with_keys(self.issuers.keys(&it.name));
            let listener = Arc::new(listener.until(stop));
            listeners.push(Arc::clone(&listener));
            self.listening.push(match old {
                Some(old) => {
                    old.replace(listener);
                    old
                }
                None => Listening::start(it, socket, listener, &self.workers, &mut self.accepting)?,
            });
        }
        let settings = Arc::new(Settings { listeners, limits: config.limits });
        for worker in self.workers.iter() {
            worker.reload(&settings);
        }
        before.into_iter().for_each(Listening::end);
        self.sockets.send_replace(self.listening.iter().map(Listening::socket).collect());
        let (listeners, written) = (answering.into(), config.written.json().into());
        let access = Access::new(&config.admin, certificates.admin.as_ref()).into();
        let shown = admin::Running { views, upstreams, listeners, config: written, access };
        self.shown.send_replace(shown);
        (self.config, self.certificates) = (config, certificates);
        self.metrics.keep(&named(&self.config, &self.upstreams));
        self.certificates.tell(&self.config, &self.metrics);
        self.told = Instant::now();
        self.metrics.applied(&self.config.written.hash());
        self.sweep = (Instant::now() + SWEEP, SWEEP);
        Ok(())
    }

    /// What is drained, and how.
    pub(super) fn drained(&mut self) -> (config::Drain, Drained) {
        self.sockets.send_replace(Arc::new([]));
        let drained = Drained {
            listening: take(&mut self.listening),
            accepting: take(&mut self.accepting),
            workers: take(&mut self.workers),
        };
        (self.config.drain.clone(), drained)
    }

    /// Ends the probes and the board.
    pub(super) async fn end(mut self) {
        // They are to stand still.
        drop(self.watchdog);
        join_all(self.upstreams.drain(..).map(Probed::end)).await;
        self.board.shutdown().await;
    }
}

/// What takes calls.
#[derive(Debug)]
pub(super) struct Drained {
    /// The sockets, which are closed when these are dropped.
    pub(super) listening: Vec<Listening>,
    pub(super) accepting: JoinSet<bool>,
    pub(super) workers: Arc<Vec<Worker>>,
}

fn answers(reader: &Reader, config: &config::Listener, health: &config::Health) -> Answers {
    Answers::new(reader.clone(), config.not_serving_as, health.details)
        .with_agents(&config.not_serving_as_for)
}

/// What ended late is taken out of the metrics after that long, and after twice as long again and
/// again, since a stream has no bound.
const SWEEP: Duration = Duration::from_secs(2);
/// How often certificates that end soon are warned of.
const DAY: Duration = Duration::from_secs(24 * 3600);
const LONGEST_SWEEP: Duration = Duration::from_secs(60);
