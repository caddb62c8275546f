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
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tracing::{info, warn};

use crate::{
    config,
    metrics::{Metrics, UpstreamLabels},
    upstream::Upstream,
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
    addresses: BTreeSet<SocketAddr>,
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
        let (addresses, told) = (BTreeSet::new(), String::new());
        Self { upstream, addresses, told, metrics: metrics.clone(), labels }
    }

    /// These are the endpoints now.
    fn publish(&mut self, found: BTreeSet<SocketAddr>) {
        let (addresses, note) = bounded(found);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.metrics.discovery_last_success.get_or_create(&self.labels).set(now);
        self.tell(note);
        if addresses == self.addresses {
            return;
        }
        let upstream = &**self.upstream.name();
        let came = words(addresses.difference(&self.addresses));
        let went = words(self.addresses.difference(&addresses));
        info!(upstream, endpoints = addresses.len(), came, went, "endpoints changed");
        let count = i64::try_from(addresses.len()).unwrap_or(i64::MAX);
        self.metrics.discovery_endpoints.get_or_create(&self.labels).set(count);
        let endpoint = |address: &SocketAddr| config::Endpoint { address: *address, backup: false };
        self.upstream.reconcile(&addresses.iter().map(endpoint).collect::<Vec<_>>());
        self.addresses = addresses;
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
        let (upstream, endpoints) = (&**self.upstream.name(), self.addresses.len());
        if words.is_empty() {
            info!(upstream, "endpoints are found again");
        } else {
            warn!(upstream, endpoints, reason = words, "endpoints are not known for sure");
        }
        self.upstream.leave_note(&words);
        self.told = words;
    }
}

/// At most [`MOST`] of the addresses, the same ones each time, and words on those left out.
fn bounded(mut addresses: BTreeSet<SocketAddr>) -> (BTreeSet<SocketAddr>, String) {
    let total = addresses.len();
    let Some(first) = addresses.iter().nth(MOST).copied() else {
        return (addresses, String::new());
    };
    addresses.split_off(&first);
    (addresses, format!("the first {MOST} of {total} endpoints are taken"))
}

/// The first addresses, and how many more there are.
fn words<'a>(addresses: impl Iterator<Item = &'a SocketAddr>) -> String {
    let mut addresses = addresses.map(SocketAddr::to_string);
    let mut words: Vec<_> = addresses.by_ref().take(LISTED).collect();
    match addresses.count() {
        0 => {}
        more => words.push(format!("{more} more")),
    }
    words.join(", ")
}

/// The wait, or up to a tenth more, so that many processes do not ask in step.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + 0.1 * fastrand::f64())
}

/// The most endpoints of an upstream.
const MOST: usize = 1000;
/// How many addresses a log line lists.
const LISTED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(count: u16) -> BTreeSet<SocketAddr> {
        (1..=count).map(|port| SocketAddr::from(([10, 0, 0, 1], port))).collect()
    }

    #[test]
    fn the_same_first_thousand_are_taken() {
        let (all, note) = bounded(addresses(1000));
        assert_eq!((all.len(), &*note), (1000, ""));
        let (some, note) = bounded(addresses(1002));
        assert_eq!((&some, &*note), (&all, "the first 1000 of 1002 endpoints are taken"));
    }

    #[test]
    fn a_log_line_stays_short() {
        assert_eq!(words(addresses(0).iter()), "");
        assert_eq!(words(addresses(2).iter()), "10.0.0.1:1, 10.0.0.1:2");
        assert!(words(addresses(1000).iter()).ends_with("10.0.0.1:8, 992 more"));
    }
}
