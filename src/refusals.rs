//! Those that are turned away, and those that are ended for what they do: counted, and told in the log,
//! enough to see why and no more than that, since anybody can be turned away as often as they like.

mod given_up;
mod told;

use std::{fmt::Display, net::IpAddr};

use tokio::time::Instant;
use tracing::warn;

pub use self::given_up::GivenUp;
use self::told::Told;
use crate::metrics::{Metrics, RefusedLabels, Text};

/// The refusals of one listener.
#[derive(Debug)]
pub struct Refusals {
    listener: Text,
    metrics: Metrics,
    told: Told<(What, &'static str)>,
}

/// What is turned away or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// A call, for who makes it.
    Denied,
    /// A connection on which nothing was asked.
    Refused,
    /// A connection, for what its client does.
    Ended,
    /// A stream, for what its client or its endpoint does.
    Cut,
}

impl What {
    /// As the log has several of it.
    fn label(self) -> &'static str {
        match self {
            Self::Denied => "calls denied",
            Self::Refused => "connections refused",
            Self::Ended => "connections ended",
            Self::Cut => "streams cut",
        }
    }
}

impl Refusals {
    /// Of the listener of this name, or of `admin`.
    pub fn new(listener: Text, metrics: &Metrics) -> Self {
        Self { listener, metrics: metrics.clone(), told: Told::default() }
    }

    /// Counts a call, or a request, that is turned away for who makes it.
    pub fn denied(&self, client: Option<IpAddr>, reason: &'static str) {
        if let Some(unlogged) = self.told.note(&(What::Denied, reason), Instant::now()) {
            // As itself, on a socket of IPv6 too.
            let client = client.map(|it| tracing::field::display(it.to_canonical()));
            warn!(listener = %self.listener.0, client, reason, unlogged, "call denied");
        }
        self.metrics.refusals.denied.get_or_create(&self.labels(reason)).inc();
    }

    /// Counts a connection that is closed before anything is asked on it. `why` is for the log.
    pub fn refused(&self, client: IpAddr, reason: &'static str, why: &str) {
        if let Some(unlogged) = self.told.note(&(What::Refused, reason), Instant::now()) {
            // A part of it may be the client's own words.
            let why = format_args!("{why:.200}");
            let (listener, client) = (&self.listener.0, client.to_canonical());
            warn!(%listener, %client, reason, %why, unlogged, "connection refused");
        }
        self.metrics.refusals.connections_refused.get_or_create(&self.labels(reason)).inc();
    }

    /// Counts a connection that is ended for what its client does, or does not do. `reason` names
    /// the key that bounds it, where one does; `why` is for the log.
    pub fn ended(&self, client: Option<IpAddr>, reason: &'static str, why: impl Display) {
        self.over(What::Ended, client, reason, why);
        self.metrics.refusals.connections_ended.get_or_create(&self.labels(reason)).inc();
    }

    /// Counts a stream that is ended for what its client or its endpoint does; as
    /// [`Refusals::ended`].
    pub fn cut(&self, client: Option<IpAddr>, reason: &'static str, why: impl Display) {
        self.over(What::Cut, client, reason, why);
        self.metrics.refusals.streams_cut.get_or_create(&self.labels(reason)).inc();
    }

    fn over(&self, what: What, client: Option<IpAddr>, reason: &'static str, why: impl Display) {
        let Some(unlogged) = self.told.note(&(what, reason), Instant::now()) else { return };
        let client = client.map(|it| tracing::field::display(it.to_canonical()));
        let (listener, why) = (&self.listener.0, format_args!("{why:.200}"));
        match what {
            What::Cut => warn!(%listener, client, reason, %why, unlogged, "stream cut"),
            _ => warn!(%listener, client, reason, %why, unlogged, "connection ended"),
        }
    }

    /// Logs how many were turned away unlogged, where none has followed in whose line it would be.
    pub fn tell(&self) {
        for ((what, reason), unlogged) in self.told.overdue(Instant::now()) {
            let (listener, what) = (&self.listener.0, what.label());
            warn!(%listener, what, reason, unlogged, "more of the same");
        }
    }

    fn labels(&self, reason: &'static str) -> RefusedLabels {
        RefusedLabels { listener: self.listener.clone(), reason }
    }
}
