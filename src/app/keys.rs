//! The keys of the issuers of tokens, fetched for as long as a listener names them.

mod fetch;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Certificates;
use crate::{
    auth::Keys,
    config::{Config, KeysFrom},
    metrics::{FetchLabels, ListenerLabels, Metrics, Text},
    tls::Connector,
};

/// Those of all listeners that have some fetched, by their names.
#[derive(Debug)]
pub(super) struct Issuers {
    all: BTreeMap<String, Issuer>,
    metrics: Metrics,
}

/// One, and the task that fetches its keys, which ends when this is dropped.
#[derive(Debug)]
struct Issuer {
    from: KeysFrom,
    connector: Option<Arc<Connector>>,
    keys: Keys,
    /// Cancelled when they were fetched once, or could not be.
    tried: CancellationToken,
    task: JoinSet<()>,
}

impl Issuers {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self { all: BTreeMap::new(), metrics: metrics.clone() }
    }

    /// Fetches what `config` names, and no more. Keys that are still from the same place stay.
    pub(super) fn succeed(&mut self, config: &Config, certificates: &Certificates) {
        let mut before = std::mem::take(&mut self.all);
        for listener in &config.listeners {
            let Some(from) = listener.keys_from() else { continue };
            let name = &listener.name;
            let connector = certificates.keys.get(name).cloned();
            let issuer = match before.remove(name) {
                Some(old) if old.from == *from && old.connector == connector => old,
                old => {
                    let same = old.filter(|old| place(&old.from) == place(from));
                    let keys = same.map(|old| old.keys).unwrap_or_default();
                    let follow = Follow {
                        listener: name.as_str().into(),
                        from: from.clone(),
                        connector: connector.clone(),
                        keys: keys.clone(),
                        metrics: self.metrics.clone(),
                    };
                    let mut task = JoinSet::new();
                    let tried = CancellationToken::new();
                    task.spawn(follow.run(tried.clone()));
                    Issuer { from: from.clone(), connector, keys, tried, task }
                }
            };
            self.all.insert(name.clone(), issuer);
        }
    }

    /// Waits until every one was asked once, which takes no longer than a fetch may: where tokens
    /// are taken already, they go on to be while others take over.
    pub(super) async fn tried(&self) {
        join_all(self.all.values().map(|issuer| issuer.tried.cancelled())).await;
    }

    /// What checks the tokens of a listener, where its keys are fetched.
    pub(super) fn keys(&self, listener: &str) -> Option<Keys> {
        self.all.get(listener).map(|issuer| issuer.keys.clone())
    }

    /// Waits for a task that should go on for ever; none where there are none.
    pub(super) async fn ended(&mut self) -> Option<()> {
        let tasks = self.all.values_mut().map(|issuer| issuer.task.join_next());
        tasks.collect::<FuturesUnordered<_>>().next().await.map(drop)
    }
}

fn place(from: &KeysFrom) -> (&str, u16, &str, &str) {
    (&from.host, from.port, &from.authority, &from.path)
}

/// Fetches the keys of one issuer.
struct Follow {
    listener: Text,
    from: KeysFrom,
    connector: Option<Arc<Connector>>,
    keys: Keys,
    metrics: Metrics,
}

impl Follow {
    /// At once, then at each interval, and once between them where a token names a key that is not
    /// there; after a failure soon, and then more and more seldom.
    async fn run(self, tried: CancellationToken) {
        let mut due = Instant::now();
        let mut rested: Option<Instant> = None;
        let mut pause = SHORTEST;
        let mut told = None;
        self.keys.ready();
        loop {
            tokio::select! {
                () = sleep_until(due) => {}
                // What is asked for while none can be had comes with the next ones.
                () = self.keys.wanted(), if told.is_none() => {}
                () = sleep_until(rested.unwrap_or(due)), if rested.is_some() => {
                    rested = None;
                    self.keys.ready();
                    continue;
                }
            }
            let fetched = fetch::keys(&self.from, self.connector.as_deref()).await;
            let result = match fetched {
                Ok(jwks) => {
                    let (count, again) = (jwks.count(), told.take().is_some());
                    let changed = self.keys.publish(jwks);
                    if changed || again {
                        info!(listener = %self.listener.0, keys = count, "keys of tokens fetched");
                    }
                    if self.keys.answered() {
                        rested = Some(Instant::now() + REST);
                    }
                    pause = SHORTEST;
                    due = Instant::now() + self.from.refresh_interval;
                    let labels = ListenerLabels { listener: self.listener.clone() };
                    self.metrics.keys.last_success.get_or_create(&labels).set(seconds());
                    if changed { "changed" } else { "unchanged" }
                }
                Err(error) => {
                    if told.as_ref() != Some(&error) {
                        let words = "keys of tokens cannot be fetched: the last ones stay";
                        warn!(listener = %self.listener.0, error, "{words}");
                    }
                    told = Some(error);
                    due = Instant::now() + pause.min(self.from.refresh_interval);
                    pause = LONGEST.min(pause * 2);
                    "failed"
                }
            };
            let labels = FetchLabels { listener: self.listener.clone(), result };
            self.metrics.keys.fetches.get_or_create(&labels).inc();
            tried.cancel();
        }
    }
}

/// Since 1970.
fn seconds() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// How long no others are fetched after some were that a token has asked for.
const REST: Duration = Duration::from_secs(30);
/// How long after a failure they are fetched again; twice as long after each further one.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
