//! How much each tenant, or each client address, may ask of a listener.

mod bucket;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use self::bucket::{Bounds, Bucket};
pub(super) use self::bucket::{Held, Lack, Shed};
use crate::config::ClientLimits;

/// A bucket for each key. All workers share them, so the bounds are those of the listener; the lock
/// is held for one look-up. Shares for each worker would be without it, but one client's calls
/// mostly come on one connection, and so on one worker, which would have a part of the rate only.
#[derive(Debug)]
pub(super) struct Quota {
    limits: ClientLimits,
    bounds: Bounds,
    state: Mutex<State>,
    /// Keys with a bucket of their own.
    keys: Gauge,
}

#[derive(Debug)]
struct State {
    buckets: HashMap<Box<[u8]>, Arc<Bucket>>,
    /// Of all keys for which there is no room.
    other: Arc<Bucket>,
    /// When those that were idle were last let go.
    swept: Instant,
}

impl Quota {
    pub(super) fn new(limits: ClientLimits, keys: Gauge) -> Self {
        let now = Instant::now();
        let bounds = Bounds::new(limits, now);
        let state =
            State { buckets: HashMap::new(), other: Arc::new(Bucket::new(bounds)), swept: now };
        Self { limits, bounds, state: Mutex::new(state), keys }
    }

    /// What it was made of.
    pub(super) fn limits(&self) -> &ClientLimits {
        &self.limits
    }

    /// Takes a call of `key`'s, and what is to be kept with it; or says when there will be one.
    pub(super) fn take(&self, key: &[u8], now: Instant) -> Result<Option<Held>, Shed> {
        self.bucket(key, now).take(now)
    }

    /// The bucket of `key`. While somebody has it, it is not let go.
    fn bucket(&self, key: &[u8], now: Instant) -> Arc<Bucket> {
        let mut state = self.lock();
        let State { buckets, other, swept } = &mut *state;
        if let Some(bucket) = buckets.get(key) {
            return Arc::clone(bucket);
        }
        if buckets.len() >= MOST && now.saturating_duration_since(*swept) >= PAUSE {
            *swept = now;
            let before = buckets.len();
            // A bucket that is full again says no more than a new one.
            buckets.retain(|_, it| Arc::strong_count(it) > 1 || !it.is_full(now));
            self.keys.dec_by((before - buckets.len()) as i64);
        }
        if buckets.len() >= MOST || key.len() > LONGEST {
            return Arc::clone(other);
        }
        self.keys.inc();
        let bucket = Arc::new(Bucket::new(self.bounds));
        buckets.insert(key.into(), Arc::clone(&bucket));
        bucket
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let held = self.lock().buckets.len();
        self.keys.dec_by(held as i64);
    }
}

/// Keys with a bucket of their own.
const MOST: usize = 10_000;
/// The longest of them, in bytes: Tempo takes tenants of up to 150.
const LONGEST: usize = 150;
/// Between two looks for idle ones, since each goes over all.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::*;

    fn quota(limits: ClientLimits) -> Quota {
        Quota::new(limits, Gauge::default())
    }

    fn calls(calls_per_second: u32, burst: u32) -> Quota {
        let (calls_per_second, burst) = (Some(calls_per_second), Some(burst));
        quota(ClientLimits { calls_per_second, burst, ..ClientLimits::default() })
    }

    #[test]
    fn a_key_has_its_burst_and_then_its_rate() {
        let (quota, begin) = (calls(10, 3), Instant::now());
        let calls = |key: &[u8], millis| {
            let now = begin + Duration::from_millis(millis);
            std::iter::repeat_with(|| quota.take(key, now)).take_while(Result::is_ok).count()
        };
        assert_eq!((calls(b"a", 0), calls(b"b", 0)), (3, 3));
        assert_eq!((calls(b"a", 99), calls(b"a", 201)), (0, 2));
        assert_eq!(calls(b"a", 60_000), 3);
        let shed = quota.take(b"a", begin + Duration::from_secs(60)).unwrap_err();
        let wait = shed.wait;
        assert!(wait <= Duration::from_millis(100) && wait > Duration::from_millis(90), "{wait:?}");
        assert_eq!(shed.lack, Lack::Calls);
    }

    #[test]
    fn keys_beyond_the_bound_share_a_bucket_until_others_are_idle() {
        let (quota, begin) = (calls(1, 1), Instant::now());
        for key in 0..MOST + 1 {
            assert!(quota.take(&key.to_be_bytes(), begin).is_ok(), "{key}");
        }
        assert!(quota.take(b"one more", begin).is_err());
        assert_eq!((quota.lock().buckets.len(), quota.keys.get()), (MOST, MOST as i64));
        let later = begin + Duration::from_secs(5);
        assert!(quota.take(b"one more", later).is_ok());
        assert_eq!((quota.lock().buckets.len(), quota.keys.get()), (1, 1));
    }

    #[test]
    fn keys_that_no_tenant_can_have_share_a_bucket() {
        let (quota, begin) = (calls(1, 1), Instant::now());
        assert!(quota.take(&[b'a'; LONGEST], begin).is_ok());
        assert!(quota.take(&[b'a'; LONGEST + 1], begin).is_ok());
        assert!(quota.take(&[b'b'; LONGEST + 2], begin).is_err());
        assert_eq!(quota.lock().buckets.len(), 1);
    }

    #[test]
    fn calls_in_flight_are_bounded_and_keep_their_bucket() {
        let limits = ClientLimits { max_in_flight: Some(2), ..ClientLimits::default() };
        let (quota, begin) = (quota(limits), Instant::now());
        let first = quota.take(b"a", begin).unwrap();
        let _second = quota.take(b"a", begin).unwrap();
        assert_eq!(quota.take(b"a", begin).unwrap_err().lack, Lack::InFlight);
        assert!(quota.take(b"b", begin).is_ok());
        for key in 0..MOST {
            assert!(quota.take(&key.to_be_bytes(), begin).is_ok(), "{key}");
        }
        // Time to sweep; a call that goes on does not become a client's third one.
        assert!(quota.take(b"c", begin + Duration::from_secs(5)).is_ok());
        assert_eq!(quota.lock().buckets.len(), 2);
        assert!(quota.take(b"a", begin).is_err());
        drop(first);
        assert!(quota.take(b"a", begin).is_ok());
    }

    #[test]
    fn a_call_that_the_rate_turns_away_is_not_in_flight() {
        let limits = ClientLimits {
            calls_per_second: Some(1),
            max_in_flight: Some(2),
            ..ClientLimits::default()
        };
        let (quota, begin) = (quota(limits), Instant::now());
        let _held = quota.take(b"a", begin).unwrap();
        for _ in 0..5 {
            assert_eq!(quota.take(b"a", begin).unwrap_err().lack, Lack::Calls);
        }
    }

    #[test]
    fn bytes_are_owed_and_new_calls_wait_until_they_are_paid() {
        let limits = ClientLimits {
            bytes_per_second: Some(ByteSize::b(1000)),
            bytes_burst: Some(ByteSize::b(3000)),
            ..ClientLimits::default()
        };
        let (quota, begin) = (quota(limits), Instant::now());
        let call = quota.take(b"a", begin).unwrap().unwrap();
        call.took(3000, begin);
        assert!(quota.take(b"a", begin).is_ok(), "nothing is owed yet");
        call.took(1500, begin);
        let shed = quota.take(b"a", begin).unwrap_err();
        assert_eq!((shed.lack, shed.wait), (Lack::Bytes, Duration::from_millis(1500)));
        assert!(quota.take(b"b", begin).is_ok());
        let after = |millis| begin + Duration::from_millis(millis);
        assert!(quota.take(b"a", after(1499)).is_err());
        assert!(quota.take(b"a", after(1500)).is_ok());
        // One that keeps to the rate owes nothing, however long it goes on.
        for second in 10..100 {
            call.took(1000, after(second * 1000));
        }
        assert!(quota.take(b"a", after(100_000)).is_ok());
    }
}
