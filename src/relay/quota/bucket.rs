//! One key's bucket: what it has used, without a lock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::config::ClientLimits;

/// What one key has used.
#[derive(Debug)]
pub(super) struct Bucket {
    bounds: Bounds,
    calls: Level,
    bytes: Level,
    in_flight: AtomicU32,
}

/// How much a bucket holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    begun: Instant,
    calls: Option<Rate>,
    bytes: Option<Rate>,
    in_flight: Option<u32>,
}

/// What a call has of a bucket: its place among those in flight, which is given back when it is
/// dropped, and a right to take bytes.
#[derive(Debug)]
pub(in crate::relay) struct Held(Arc<Bucket>);

/// Of what there was too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) enum Lack {
    Calls,
    Bytes,
    InFlight,
}

/// A call for which there was no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) struct Shed {
    pub(in crate::relay) lack: Lack,
    /// Until there may be some.
    pub(in crate::relay) wait: Duration,
}

/// How long one unit takes to be earned, and how long all that are there at once, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Rate {
    one: f64,
    all: u64,
}

impl Bounds {
    pub(super) fn new(limits: ClientLimits, now: Instant) -> Self {
        let calls = limits.calls_per_second.map(u64::from);
        let bytes = limits.bytes_per_second.map(|size| size.as_u64());
        Self {
            begun: now,
            calls: calls.map(|rate| Rate::new(rate, limits.burst.map(u64::from))),
            bytes: bytes.map(|rate| Rate::new(rate, limits.bytes_burst.map(|size| size.as_u64()))),
            in_flight: limits.max_in_flight,
        }
    }

    fn time(&self, now: Instant) -> u64 {
        let time = now.saturating_duration_since(self.begun).as_nanos();
        u64::try_from(time).unwrap_or(u64::MAX)
    }
}

impl Bucket {
    /// One of which nothing is used.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            calls: Level::default(),
            bytes: Level::default(),
            in_flight: AtomicU32::new(0),
        }
    }

    /// Takes one call, and what is to be kept with it; nothing where only the rate of calls counts.
    pub(super) fn take(self: Arc<Self>, now: Instant) -> Result<Option<Held>, Shed> {
        let Bounds { calls, bytes, in_flight, .. } = self.bounds;
        let time = self.bounds.time(now);
        let shed = |lack, nanos| Err(Shed { lack, wait: Duration::from_nanos(nanos) });
        if let Some(rate) = bytes
            && let owed @ 1.. = self.bytes.owed(rate, time)
        {
            return shed(Lack::Bytes, owed);
        }
        let mut held = None;
        if bytes.is_some() || in_flight.is_some() {
            let most = in_flight.unwrap_or(u32::MAX);
            let one_more = |calls: u32| (calls < most).then_some(calls + 1);
            if self.in_flight.fetch_update(Relaxed, Relaxed, one_more).is_err() {
                return shed(Lack::InFlight, AGAIN);
            }
            held = Some(Held(Arc::clone(&self)));
        }
        if let Some(rate) = calls
            && let Err(nanos) = self.calls.take(rate, time)
        {
            return shed(Lack::Calls, nanos);
        }
        Ok(held)
    }

    /// Whether nothing of it is used any more.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        let time = self.bounds.time(now);
        self.calls.0.load(Relaxed) <= time && self.bytes.0.load(Relaxed) <= time
    }
}

impl Held {
    /// Takes bytes that the call brings, whether they are there or not.
    pub(in crate::relay) fn took(&self, bytes: usize, now: Instant) {
        let bounds = &self.0.bounds;
        if let Some(rate) = bounds.bytes {
            self.0.bytes.add((bytes as f64 * rate.one) as u64, bounds.time(now));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Rate {
    fn new(rate: u64, burst: Option<u64>) -> Self {
        let one = 1e9 / rate as f64;
        Self { one, all: (one * burst.unwrap_or(rate) as f64) as u64 }
    }
}

/// A level that rises by itself, as the time when it is full again, in nanoseconds (GCRA).
#[derive(Debug, Default)]
struct Level(AtomicU64);

impl Level {
    /// Takes one unit, or says how long it takes until there is one.
    fn take(&self, rate: Rate, time: u64) -> Result<(), u64> {
        let after = |full: u64| full.max(time).saturating_add(rate.one as u64);
        let most = time.saturating_add(rate.all);
        let fits = |full| Some(after(full)).filter(|full| *full <= most);
        let taken = self.0.fetch_update(Relaxed, Relaxed, fits);
        taken.map(drop).map_err(|full| after(full) - most)
    }

    /// Lowers it, below nothing too.
    fn add(&self, nanos: u64, time: u64) {
        let lower = |full: u64| Some(full.max(time).saturating_add(nanos));
        _ = self.0.fetch_update(Relaxed, Relaxed, lower);
    }

    /// How long it takes to come up to nothing; 0 where it is not below.
    fn owed(&self, rate: Rate, time: u64) -> u64 {
        self.0.load(Relaxed).saturating_sub(time.saturating_add(rate.all))
    }
}

/// When another call may have ended, in nanoseconds, before this is spread.
const AGAIN: u64 = 500_000_000;
