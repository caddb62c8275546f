//! How many calls a second each tenant, or each client address, may make on a listener.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

use crate::config::CallRate;

/// A bucket of calls for each key. All workers share them, so the rate is that of the listener; the
/// lock is held for one look-up. Shares for each worker would be without it, but one client's calls
/// mostly come on one connection, and so on one worker, which would have a part of the rate only.
#[derive(Debug)]
pub(super) struct Quota {
    rate: f64,
    burst: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    buckets: HashMap<Box<[u8]>, Bucket>,
    /// Of all keys for which there is no room.
    other: Bucket,
    /// When those that were idle were last let go.
    swept: Instant,
}

/// How many calls there were at a time.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    calls: f64,
    at: Instant,
}

impl Quota {
    pub(super) fn new(config: CallRate) -> Self {
        let (rate, burst) = (f64::from(config.calls_per_second), f64::from(config.burst()));
        let now = Instant::now();
        let other = Bucket { calls: burst, at: now };
        let state = State { buckets: HashMap::new(), other, swept: now };
        Self { rate, burst, state: Mutex::new(state) }
    }

    /// Takes a call of `key`'s, or says when there will be one.
    pub(super) fn take(&self, key: &[u8], now: Instant) -> Result<(), Duration> {
        let mut state = self.lock();
        let State { buckets, other, swept } = &mut *state;
        if !buckets.contains_key(key) {
            if buckets.len() >= MOST && now.saturating_duration_since(*swept) >= PAUSE {
                *swept = now;
                // A bucket that is full again says no more than a new one.
                buckets.retain(|_, bucket| bucket.at(now, self.rate, self.burst) < self.burst);
            }
            if buckets.len() < MOST {
                buckets.insert(key.into(), Bucket { calls: self.burst, at: now });
            }
        }
        let bucket = buckets.get_mut(key).unwrap_or(other);
        let calls = bucket.at(now, self.rate, self.burst);
        *bucket = Bucket { calls, at: now };
        if calls >= 1.0 {
            bucket.calls -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - calls) / self.rate))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl Bucket {
    /// How many calls there are now.
    fn at(&self, now: Instant, rate: f64, burst: f64) -> f64 {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * rate;
        (self.calls + earned).min(burst)
    }
}

/// Keys with a bucket of their own.
const MOST: usize = 10_000;
/// Between two looks for idle ones, since each goes over all.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(calls_per_second: u32, burst: u32) -> Quota {
        Quota::new(CallRate { calls_per_second, burst: Some(burst) })
    }

    #[test]
    fn a_key_has_its_burst_and_then_its_rate() {
        let (quota, begin) = (quota(10, 3), Instant::now());
        let calls = |key: &[u8], millis| {
            let now = begin + Duration::from_millis(millis);
            std::iter::repeat_with(|| quota.take(key, now)).take_while(Result::is_ok).count()
        };
        assert_eq!((calls(b"a", 0), calls(b"b", 0)), (3, 3));
        assert_eq!((calls(b"a", 99), calls(b"a", 201)), (0, 2));
        assert_eq!(calls(b"a", 60_000), 3);
        let wait = quota.take(b"a", begin + Duration::from_secs(60)).unwrap_err();
        assert!(wait <= Duration::from_millis(100) && wait > Duration::from_millis(90), "{wait:?}");
    }

    #[test]
    fn keys_beyond_the_bound_share_a_bucket_until_others_are_idle() {
        let (quota, begin) = (quota(1, 1), Instant::now());
        for key in 0..MOST + 1 {
            assert_eq!(quota.take(&key.to_be_bytes(), begin), Ok(()), "{key}");
        }
        assert!(quota.take(b"one more", begin).is_err());
        assert_eq!(quota.lock().buckets.len(), MOST);
        let later = begin + Duration::from_secs(5);
        assert_eq!(quota.take(b"one more", later), Ok(()));
        assert_eq!(quota.lock().buckets.len(), 1);
    }
}
