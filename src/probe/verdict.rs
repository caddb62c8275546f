//! What all evidence of one endpoint comes to: its probes, and the words of its Watches.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    Failure,
    threshold::Threshold,
    watch::News,
    words::{Failures, Words, said},
};
use crate::{
    config,
    grpc::ServingStatus,
    metrics::{EndpointLabels, Metrics, ProbeLabels},
    upstream::{Endpoint, Health},
};

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// Every check passed.
    Passed,
    /// Why some did not.
    Failed(String),
    /// The same, where nobody listened.
    Refused(String),
    /// The endpoint's own word that it does not serve. Thresholds stand against probes that go
    /// astray; an answer did not, so that it needs no second one.
    NotServing(String),
    /// Why there was no probe: something was wrong here, which says nothing of the endpoint.
    Inconclusive(String),
}

impl Finding {
    /// From the failures of checks, by their index and name.
    fn of(mut failed: Failures) -> Self {
        failed.sort_by_key(|(index, ..)| *index);
        let is_local = |failure: &Failure| matches!(failure, Failure::Local(_));
        let own_word = failed.iter().any(|(.., it)| matches!(it, Failure::NotServing(_)));
        let conclusive = failed.iter().any(|(.., failure)| !is_local(failure));
        let refused = failed.iter().all(|(.., it)| matches!(it, Failure::Refused(_)));
        let words = failed
            .iter()
            .filter(|(.., failure)| !conclusive || !is_local(failure))
            .map(|(_, name, failure)| format!("{name}: {failure}"))
            .collect::<Vec<_>>()
            .join("; ");
        match (failed.is_empty(), own_word, conclusive) {
            (true, ..) => Self::Passed,
            (_, true, _) => Self::NotServing(words),
            (.., true) if refused => Self::Refused(words),
            (.., true) => Self::Failed(words),
            _ => Self::Inconclusive(words),
        }
    }

    /// Whether it failed, and not by the endpoint's own word.
    pub(super) fn failed(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Refused(_))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) | Self::Refused(_) | Self::NotServing(_) => "failed",
            Self::Inconclusive(_) => "inconclusive",
        }
    }
}

/// Publishes one endpoint's health; its only writer.
#[derive(Debug)]
pub(super) struct Verdict {
    upstream: Arc<str>,
    endpoint: Arc<Endpoint>,
    threshold: Threshold,
    stale_after: Duration,
    /// When a probe last said something.
    known: Instant,
    /// Why the last one did not; empty where it did.
    obstacle: String,
    /// A probe went without an answer since one passed.
    unanswered: bool,
    words: Words,
    /// Checks whose Watch was asked for, so that its lack is told, by their index.
    watched: Vec<usize>,
    metrics: Metrics,
    labels: EndpointLabels,
}

impl Verdict {
    pub(super) fn new(
        upstream: &Arc<str>,
        endpoint: Arc<Endpoint>,
        config: &config::Probe,
        metrics: &Metrics,
    ) -> Self {
        let labels = EndpointLabels {
            upstream: (&**upstream).into(),
            endpoint: endpoint.address().to_string().as_str().into(),
        };
        // There from the start, so that the first event is seen as a change. What another prober
        // knew is known, so that a reload makes no single probe decide.
        let health = endpoint.state().health;
        let healthy = health == Health::Healthy;
        metrics.endpoint_healthy.get_or_create(&labels).set(healthy.into());
        metrics.upstream_connections.get_or_create(&labels).inc_by(0);
        metrics.upstream_connect_failures.get_or_create(&labels).inc_by(0);
        Self {
            upstream: Arc::clone(upstream),
            threshold: Threshold::new(config.healthy_threshold, config.unhealthy_threshold, health),
            stale_after: config.stale_after,
            known: Instant::now(),
            obstacle: String::new(),
            unanswered: false,
            words: Words::default(),
            watched: watched(&config.checks),
            metrics: metrics.clone(),
            labels,
            endpoint,
        }
    }

    pub(super) fn health(&self) -> Health {
        self.threshold.health()
    }

    /// When what is known becomes too old, where something is known.
    pub(super) fn stale_at(&self) -> Option<Instant> {
        (self.health() != Health::Unknown).then(|| self.known + self.stale_after)
    }

    /// Takes the failures of a probe that was begun at `asked`; what it found.
    pub(super) fn record(&mut self, asked: Instant, mut failed: Failures) -> Recorded {
        let doubted = self.words.correct(asked, &mut failed);
        let lost = |failure: &Failure| matches!(failure, Failure::Connect(_) | Failure::Rpc(_));
        self.unanswered |= failed.iter().any(|(.., failure)| lost(failure));
        let finding = Finding::of(failed);
        let labels = ProbeLabels {
            upstream: self.labels.upstream.clone(),
            endpoint: self.labels.endpoint.clone(),
            result: finding.name(),
        };
        self.metrics.probes.get_or_create(&labels).inc();
        let from = self.health();
        let (changed, words) = match &finding {
            Finding::Inconclusive(why) => {
                self.hinder(why);
                return Recorded { finding, came_back: false, doubted };
            }
            Finding::Passed => {
                self.endpoint.passed();
                if std::mem::take(&mut self.unanswered) {
                    self.endpoint.doubt_connections();
                }
                (self.threshold.record(true), "")
            }
            Finding::Failed(words) | Finding::Refused(words) => {
                (self.threshold.record(false), words.as_str())
            }
            Finding::NotServing(words) => (self.threshold.fall(), words.as_str()),
        };
        self.metrics
            .probe_duration
            .get_or_create(&self.labels)
            .observe(asked.elapsed().as_secs_f64());
        self.known = Instant::now();
        self.obstacle.clear();
        self.publish(from, changed, words);
        let came_back = from == Health::Unhealthy && changed == Some(Health::Healthy);
        Recorded { finding, came_back, doubted }
    }

    /// Takes what the Watch of the check at `index` tells; whether to probe at once.
    pub(super) fn hear(&mut self, index: usize, news: News) -> bool {
        match news {
            News::Said(status, at) => {
                self.note("");
                self.words.hear(index, status, at);
                let from = self.health();
                if status == ServingStatus::Serving {
                    // Not taken for a whole probe: there may be other checks.
                    return from == Health::Unhealthy;
                }
                let changed = self.threshold.fall();
                self.known = Instant::now();
                self.publish(from, changed, &format!("grpc: {}", said(status)));
                false
            }
            News::Ended(failure) => {
                self.words.end(index);
                self.tell(index, &format!("Watch ended: {failure}"));
                true
            }
            News::Absent(failure) => {
                // Of a connect that failed, the probes tell.
                let told = matches!(
                    failure,
                    Failure::Connect(_) | Failure::Refused(_) | Failure::Local(_)
                );
                if !told {
                    self.tell(index, &format!("no Watch: {failure}"));
                }
                // What a stream before said is no longer its last word.
                self.words.end(index)
            }
            News::Unimplemented => {
                self.tell(index, "has no Watch (UNIMPLEMENTED): known by Check alone");
                // Where it had one, another program has come.
                self.words.end(index)
            }
        }
    }

    /// Makes an endpoint unknown whose last conclusive probe is too long ago.
    pub(super) fn expire(&mut self) {
        let from = self.health();
        self.threshold.forget();
        let age = humantime::format_duration(self.stale_after);
        let mut words = format!("not probed for {age}");
        if !self.obstacle.is_empty() {
            words = format!("{words} ({})", self.obstacle);
        }
        self.publish(from, Some(Health::Unknown), &words);
    }

    /// A probe could not be made, for a cause on our side.
    fn hinder(&mut self, why: &str) {
        if self.obstacle == why {
            return;
        }
        why.clone_into(&mut self.obstacle);
        let (upstream, address) = (&*self.upstream, self.endpoint.address());
        warn!(upstream, endpoint = %address, reason = why, "a probe could not be made");
        if self.health() == Health::Unknown {
            self.endpoint.publish(Health::Unknown, &format!("not probed: {why}"));
        }
    }

    fn publish(&self, from: Health, changed: Option<Health>, words: &str) {
        let health = self.health();
        // While failures are fewer than the threshold the endpoint is healthy, without a reason.
        // While passes are, the reason is that of its last failure.
        match health {
            Health::Healthy => self.endpoint.publish(health, ""),
            _ if words.is_empty() => {}
            _ => self.endpoint.publish(health, words),
        }
        let healthy = health == Health::Healthy;
        self.metrics.endpoint_healthy.get_or_create(&self.labels).set(healthy.into());
        let (upstream, address) = (&*self.upstream, self.endpoint.address());
        match changed {
            Some(Health::Healthy) => {
                info!(upstream, endpoint = %address, %from, to = %health, "endpoint health changed");
            }
            Some(_) => {
                warn!(upstream, endpoint = %address, %from, to = %health, reason = words, "endpoint health changed");
            }
            None => {}
        }
    }

    /// Notes what became of a Watch, where it was asked for; the others are held where they can be.
    fn tell(&self, index: usize, note: &str) {
        self.note(if self.watched.contains(&index) { note } else { "" });
    }

    /// Leaves a note on the endpoint; logs a new one.
    fn note(&self, note: &str) {
        if *self.endpoint.state().note == *note {
            return;
        }
        self.endpoint.note(note);
        if !note.is_empty() {
            let (upstream, address) = (&*self.upstream, self.endpoint.address());
            info!(upstream, endpoint = %address, note, "endpoint's Watch changed");
        }
    }
}

/// What a probe came to.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) finding: Finding,
    /// The endpoint is healthy again by it.
    pub(super) came_back: bool,
    /// A Watch should be opened anew, since a Check contradicts it.
    pub(super) doubted: bool,
}

/// The checks whose Watch was asked for.
fn watched(checks: &[config::Check]) -> Vec<usize> {
    let always = |check: &config::Check| match check {
        config::Check::Grpc(check) => check.watch == config::Watch::Always,
        _ => false,
    };
    (0..checks.len()).filter(|index| always(&checks[*index])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_failed_here_says_nothing_unless_another_check_of_it_does() {
        let local = (0, "tcp".to_owned(), Failure::Local("no files".to_owned()));
        let refused = (1, "otlp".to_owned(), Failure::Connect("refused".to_owned()));
        let alone = (0, "tcp".to_owned(), Failure::Refused("refused".to_owned()));
        let word = (2, "grpc".to_owned(), Failure::NotServing("NOT_SERVING".to_owned()));
        assert_eq!(Finding::of(vec![]), Finding::Passed);
        assert_eq!(
            Finding::of(vec![local.clone()]),
            Finding::Inconclusive("tcp: no files".to_owned())
        );
        assert_eq!(Finding::of(vec![alone.clone()]), Finding::Refused("tcp: refused".to_owned()));
        assert_eq!(
            Finding::of(vec![alone, refused.clone()]),
            Finding::Failed("tcp: refused; otlp: refused".to_owned())
        );
        assert_eq!(
            Finding::of(vec![refused.clone(), local]),
            Finding::Failed("otlp: refused".to_owned())
        );
        assert_eq!(
            Finding::of(vec![word, refused]),
            Finding::NotServing("otlp: refused; grpc: NOT_SERVING".to_owned())
        );
    }
}
