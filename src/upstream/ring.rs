//! Which endpoint a value belongs to: a ring of points, of which each endpoint has some by its
//! address. One that comes or goes moves only the values next to its own points, and every proxy
//! has the same ring.

use std::net::{IpAddr, SocketAddr};

/// Points in their order, each with the index of its endpoint.
#[derive(Debug)]
pub(super) struct Ring(Box<[(u64, u32)]>);

impl Ring {
    pub(super) fn of(addresses: impl Iterator<Item = SocketAddr>) -> Self {
        let mut points: Vec<_> = (0..)
            .zip(addresses)
            .flat_map(|(index, address)| {
                let seed = seed(address);
                (0..POINTS)
                    .map(move |point| (mix(seed.wrapping_add(point.wrapping_mul(STEP))), index))
            })
            .collect();
        points.sort_unstable();
        Self(points.into())
    }

    /// The first endpoint from `hash` on that `admitted` lets through. None where that would take
    /// long, which it does only where few are admitted.
    pub(super) fn pick(&self, hash: u64, admitted: impl Fn(usize) -> bool) -> Option<usize> {
        let start = self.0.partition_point(|(point, _)| *point < hash);
        let (before, after) = self.0.split_at(start);
        let indices = after.iter().chain(before).take(WALK).map(|(_, index)| *index as usize);
        indices.into_iter().find(|index| admitted(*index))
    }
}

/// What a value is hashed to, alike in every process and version.
pub fn hash(value: &[u8]) -> u64 {
    // FNV-1a, whose high bits need mixing.
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(value.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

fn seed(address: SocketAddr) -> u64 {
    let port = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(ip) => hash(&[&ip.octets()[..], &port].concat()),
        IpAddr::V6(ip) => hash(&[&ip.octets()[..], &port].concat()),
    }
}

/// The finalizer of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Of one endpoint: parts of the ring then differ by about a tenth.
const POINTS: u64 = 128;
/// The golden ratio, as splitmix64 steps.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// Points that are looked at.
const WALK: usize = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses(count: u16) -> Vec<SocketAddr> {
        (0..count).map(|number| ([10, 0, 0, 1], 4000 + number).into()).collect()
    }

    fn values() -> impl Iterator<Item = u64> {
        (0..5000).map(|number: u32| hash(format!("tenant-{number}").as_bytes()))
    }

    #[test]
    fn hashes_stay_what_they_are() {
        assert_eq!(hash(b"tenant-1"), hash(b"tenant-1"));
        let points = Ring::of(addresses(2).into_iter()).0;
        assert_eq!(points.len(), 256);
        assert!(points.is_sorted());
    }

    proptest! {
        #[test]
        fn only_the_values_of_an_endpoint_that_leaves_move(count in 2_u16..20, gone in 0_usize..20) {
            let before = addresses(count);
            let gone = gone % before.len();
            let mut after = before.clone();
            after.remove(gone);
            let [a, b] = [&before, &after].map(|it| Ring::of(it.iter().copied()));
            for value in values() {
                let was = before[a.pick(value, |_| true).unwrap()];
                let is = after[b.pick(value, |_| true).unwrap()];
                prop_assert!(was == is || was == before[gone]);
                // Passing it over is the same as its having left.
                prop_assert_eq!(before[a.pick(value, |index| index != gone).unwrap()], is);
            }
        }

        #[test]
        fn no_endpoint_has_much_more_than_its_share(count in 2_u16..20) {
            let ring = Ring::of(addresses(count).into_iter());
            let mut counts = vec![0_u32; count.into()];
            values().for_each(|value| counts[ring.pick(value, |_| true).unwrap()] += 1);
            let mean = 5000.0 / f64::from(count);
            let most = f64::from(*counts.iter().max().unwrap());
            prop_assert!(most < mean * 1.6, "{most} of {mean}");
            let least = f64::from(*counts.iter().min().unwrap());
            prop_assert!(least > mean * 0.5, "{least} of {mean}");
        }
    }
}
