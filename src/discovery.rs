//! Discovery: where the endpoints of an upstream are, for those that the configuration does not
//! list.
//!
//! One task an upstream looks again and again, away from every call, and is the only writer of the
//! upstream's endpoint set; probes follow the set by themselves. What cannot be found leaves the
//! endpoints as they are, since their probes tell whether they still serve, and an upstream without
//! any would lose calls that the last ones could take.

mod dns;
mod file;
mod resolver;
mod system;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::{
    config,
    metrics::{Metrics, UpstreamLabels},
    upstream::{Endpoint, Upstream},
};

/// Keeps the endpoints of `upstream` what `config` says, for as long as it is polled.
pub async fn follow(upstream: Arc<Upstream>, config: config::Discovery, metrics: Metrics) {
    let found = Found::new(upstream, &metrics);
    match config {
        config::Discovery::Dns(config) => dns::follow(&config, found).await,
        config::Discovery::File(config) => file::follow(config, found).await,
    }
}

/// Brings what is found to the upstream, and tells of it.
#[derive(Debug)]
struct Found {
    upstream: Arc<Upstream>,
    endpoints: BTreeSet<config::Endpoint>,
    /// What was told last; empty where all is well.
    told: String,
    metrics: Metrics,
    labels: UpstreamLabels,
}

impl Found {
    fn new(upstream: Arc<Upstream>, metrics: &Metrics) -> Self {
        let labels = UpstreamLabels { upstream: (&**upstream.name()).into() };
        // At zero from the start, so that the first event is seen as a change.
        metrics.discovery_endpoints.get_or_create(&labels).set(0);
        metrics.discovery_failures.get_or_create(&labels).inc_by(0);
        metrics.discovery_last_success.get_or_create(&labels).set(0);
        let (endpoints, told) = (BTreeSet::new(), String::new());
        Self { upstream, endpoints, told, metrics: metrics.clone(), labels }
    }

    /// These are the endpoints now.
    async fn publish(&mut self, found: BTreeSet<config::Endpoint>) {
        let (endpoints, note) = bounded(once(found));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.metrics.discovery_last_success.get_or_create(&self.labels).set(now);
        self.tell(note);
        if endpoints == self.endpoints {
            return;
        }
        let upstream = &**self.upstream.name();
        let came = words(endpoints.difference(&self.endpoints));
        let went = words(self.endpoints.difference(&endpoints));
        info!(upstream, endpoints = endpoints.len(), came, went, "endpoints changed");
        let count = i64::try_from(endpoints.len()).unwrap_or(i64::MAX);
        self.metrics.discovery_endpoints.get_or_create(&self.labels).set(count);
        self.bring_in(&endpoints).await;
        self.upstream.reconcile(&endpoints.iter().copied().collect::<Vec<_>>());
        self.endpoints = endpoints;
    }

    /// Where too few endpoints of those that stay are healthy, the others stay with the new ones
    /// until these were probed: an upstream that serves must not stop to.
    async fn bring_in(&self, wanted: &BTreeSet<config::Endpoint>) {
        let upstream = &self.upstream;
        let before = upstream.endpoints();
        let is_wanted = |it: &Arc<Endpoint>| wanted.iter().any(|new| new.address == it.address());
        let stay = before.iter().filter(|it| it.is_healthy() && is_wanted(it));
        if stay.count() >= upstream.needed(wanted.len()) || !upstream.tally().is_serving() {
            return;
        }
        let go = before.iter().filter(|it| !is_wanted(it));
        let go = go.map(|it| config::Endpoint { backup: it.is_backup(), address: it.address() });
        upstream.reconcile(&wanted.iter().copied().chain(go).collect::<Vec<_>>());
        let now = upstream.endpoints();
        let new = now.iter().filter(|it| is_wanted(it));
        _ = timeout(PATIENCE, join_all(new.map(|it| it.known()))).await;
    }

    /// The endpoints cannot be found, and stay as they are.
    fn fail(&mut self, why: String) {
        self.metrics.discovery_failures.get_or_create(&self.labels).inc();
        self.tell(why);
    }

    /// Leaves the words beside the upstream; logs new ones.
    fn tell(&mut self, words: String) {
        if words == self.told {
            return;
        }
        let (upstream, endpoints) = (&**self.upstream.name(), self.endpoints.len());
        if words.is_empty() {
            info!(upstream, "endpoints are found again");
        } else {
            warn!(upstream, endpoints, reason = words, "endpoints are not known for sure");
        }
        self.upstream.leave_note(&words);
        self.told = words;
    }
}

/// Each address once; one that is listed both ways is no backup.
fn once(mut endpoints: BTreeSet<config::Endpoint>) -> BTreeSet<config::Endpoint> {
    let primaries = endpoints.iter().filter(|it| !it.backup).copied().collect::<BTreeSet<_>>();
    endpoints.retain(|it| !it.backup || !primaries.contains(&it.address.into()));
    endpoints
}

/// At most [`MOST`] of the endpoints, the same ones each time, and words on those left out.
fn bounded(mut endpoints: BTreeSet<config::Endpoint>) -> (BTreeSet<config::Endpoint>, String) {
    let total = endpoints.len();
    let Some(first) = endpoints.iter().nth(MOST).copied() else {
        return (endpoints, String::new());
    };
    endpoints.split_off(&first);
    (endpoints, format!("the first {MOST} of {total} endpoints are taken"))
}

/// The first endpoints, and how many more there are.
fn words<'a>(endpoints: impl Iterator<Item = &'a config::Endpoint>) -> String {
    let mut endpoints = endpoints.map(config::Endpoint::to_string);
    let mut words: Vec<_> = endpoints.by_ref().take(LISTED).collect();
    match endpoints.count() {
        0 => {}
        more => words.push(format!("{more} more")),
    }
    words.join(", ")
}

/// The wait, or up to a tenth more, so that many processes do not ask in step.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + 0.1 * fastrand::f64())
}

/// How long endpoints that are no more stay for those that come to be probed.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most endpoints of an upstream.
const MOST: usize = 1000;
/// How many endpoints a log line lists.
const LISTED: usize = 8;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn endpoints(count: u16) -> BTreeSet<config::Endpoint> {
        (1..=count).map(|port| SocketAddr::from(([10, 0, 0, 1], port)).into()).collect()
    }

    #[test]
    fn the_same_first_thousand_are_taken() {
        let (all, note) = bounded(endpoints(1000));
        assert_eq!((all.len(), &*note), (1000, ""));
        let (some, note) = bounded(endpoints(1002));
        assert_eq!((&some, &*note), (&all, "the first 1000 of 1002 endpoints are taken"));
    }

    #[test]
    fn a_backup_that_is_listed_as_none_too_is_none() {
        let twice = endpoints(2).into_iter().map(|it| config::Endpoint { backup: true, ..it });
        let all = once(endpoints(1).into_iter().chain(twice).collect());
        assert_eq!(words(all.iter()), "10.0.0.1:1, 10.0.0.1:2 (backup)");
    }

    #[test]
    fn a_log_line_stays_short() {
        assert_eq!(words(endpoints(0).iter()), "");
        assert_eq!(words(endpoints(2).iter()), "10.0.0.1:1, 10.0.0.1:2");
        assert!(words(endpoints(1000).iter()).ends_with("10.0.0.1:8, 992 more"));
    }
}
