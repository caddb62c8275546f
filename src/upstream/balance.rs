//! Which endpoint the next call takes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::Endpoint;
use crate::config::LoadBalancing;

/// Picks endpoints by one of the configured ways.
#[derive(Debug)]
pub(super) enum Balancer {
    LeastRequest,
    RoundRobin(AtomicUsize),
}

impl Balancer {
    pub(super) fn new(how: LoadBalancing) -> Self {
        match how {
            LoadBalancing::LeastRequest => Self::LeastRequest,
            // Each process begins elsewhere, so that a fleet of them spreads.
            LoadBalancing::RoundRobin => {
                Self::RoundRobin(AtomicUsize::new(fastrand::usize(..1024)))
            }
        }
    }

    /// One of the endpoints that `admitted` lets through, or none.
    pub(super) fn pick<'a>(
        &self,
        endpoints: &'a [Arc<Endpoint>],
        admitted: impl Fn(&Arc<Endpoint>) -> bool,
    ) -> Option<&'a Arc<Endpoint>> {
        match self {
            Self::LeastRequest => least_request(endpoints, admitted),
            Self::RoundRobin(next) => {
                let turn = next.fetch_add(1, Relaxed);
                let due = endpoints.get(turn.checked_rem(endpoints.len())?)?;
                if admitted(due) {
                    return Some(due);
                }
                // By chance, or by the turn among the admitted ones: taking the next neighbour
                // instead would give it the calls of every endpoint before it that is down.
                if let Some([other, _]) = two(endpoints, &admitted) {
                    return Some(other);
                }
                let rest: Vec<_> = endpoints.iter().filter(|endpoint| admitted(endpoint)).collect();
                rest.get(turn.checked_rem(rest.len())?).copied()
            }
        }
    }
}

/// Of few endpoints the least loaded; of many the better of two random ones, which is nearly as
/// even and does not grow with their number. Where few of many are admitted all are looked at,
/// since chance would take too long to find them.
fn least_request(
    endpoints: &[Arc<Endpoint>],
    admitted: impl Fn(&Arc<Endpoint>) -> bool,
) -> Option<&Arc<Endpoint>> {
    match endpoints {
        [] => return None,
        [only] => return admitted(only).then_some(only),
        _ => {}
    }
    if let Some([a, b]) = two(endpoints, &admitted) {
        return Some(if b.in_flight() < a.in_flight() { b } else { a });
    }
    let (before, after) = endpoints.split_at(fastrand::usize(..endpoints.len()));
    // `min_by_key` keeps the first of equals, so the random start breaks ties.
    after
        .iter()
        .chain(before)
        .filter(|endpoint| admitted(endpoint))
        .min_by_key(|endpoint| endpoint.in_flight())
}

/// Two of many endpoints that are admitted, by chance; none where there are few of either kind.
fn two(
    endpoints: &[Arc<Endpoint>],
    admitted: impl Fn(&Arc<Endpoint>) -> bool,
) -> Option<[&Arc<Endpoint>; 2]> {
    if endpoints.len() <= FEW {
        return None;
    }
    let tries = (0..TRIES).map(|_| &endpoints[fastrand::usize(..endpoints.len())]);
    let mut found = tries.filter(|endpoint| admitted(endpoint));
    let first = found.next()?;
    let second = found.find(|endpoint| !Arc::ptr_eq(endpoint, first))?;
    Some([first, second])
}

const FEW: usize = 8;
/// With half of them down, all but one pick in four thousand finds two by so many.
const TRIES: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::{Health, InFlight, tests::upstream};

    fn endpoints(count: u16) -> Vec<Arc<Endpoint>> {
        let endpoints = upstream(count.max(1), "").endpoints();
        endpoints[..count.into()].to_vec()
    }

    #[test]
    fn round_robin_gives_each_admitted_endpoint_its_turn() {
        let endpoints = endpoints(4);
        let balancer = Balancer::new(LoadBalancing::RoundRobin);
        let mut counts = [0; 4];
        for _ in 0..1200 {
            let down = endpoints[1].address();
            let picked = balancer.pick(&endpoints, |endpoint| endpoint.address() != down).unwrap();
            counts[usize::from(picked.address().port()) - 1] += 1;
        }
        assert_eq!(counts, [400, 0, 400, 400]);
    }

    #[test]
    fn least_request_evens_out_calls_in_flight() {
        let endpoints = endpoints(4);
        let balancer = Balancer::new(LoadBalancing::LeastRequest);
        let held: Vec<_> = (0..40)
            .map(|_| InFlight::of(balancer.pick(&endpoints, |_| true).unwrap()).unwrap())
            .collect();
        assert_eq!(endpoints.iter().map(|e| e.in_flight()).collect::<Vec<_>>(), [10; 4]);
        drop(held);
        assert!(endpoints.iter().all(|endpoint| endpoint.in_flight() == 0));
    }

    #[test]
    fn of_many_endpoints_few_are_looked_at_though_half_are_down() {
        let endpoints = endpoints(1000);
        for how in [LoadBalancing::LeastRequest, LoadBalancing::RoundRobin] {
            let (balancer, looks) = (Balancer::new(how), std::cell::Cell::new(0));
            let up = |endpoint: &Arc<Endpoint>| {
                looks.set(looks.get() + 1);
                endpoint.address().port().is_multiple_of(2)
            };
            let mut counts = vec![0; 1001];
            for _ in 0..50_000 {
                let picked = balancer.pick(&endpoints, up).unwrap();
                counts[usize::from(picked.address().port())] += 1;
            }
            assert!(looks.get() < 6 * 50_000, "{how:?}: {looks:?}");
            let most = counts.iter().max().unwrap();
            assert!(*most < 200, "{how:?}: {most} calls for one of 500 that were due 100");
        }
    }

    proptest! {
        #[test]
        fn only_healthy_endpoints_are_picked_and_one_is_when_there_is_one(
            health in prop::collection::vec(any::<bool>(), 0..40),
            round_robin in any::<bool>(),
        ) {
            let endpoints = endpoints(u16::try_from(health.len()).unwrap());
            for (endpoint, healthy) in endpoints.iter().zip(&health) {
                endpoint.publish(if *healthy { Health::Healthy } else { Health::Unhealthy }, "");
            }
            let how =
                if round_robin { LoadBalancing::RoundRobin } else { LoadBalancing::LeastRequest };
            let balancer = Balancer::new(how);
            for _ in 0..20 {
                match balancer.pick(&endpoints, |endpoint| endpoint.is_healthy()) {
                    Some(endpoint) => prop_assert!(endpoint.is_healthy()),
                    None => prop_assert!(!health.contains(&true)),
                }
            }
        }
    }
}
