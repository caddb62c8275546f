//! Picks as the relay asks for them: who takes calls, and who has room.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tokio::time::advance;

use super::*;

/// An upstream of one endpoint or more, on the ports from 1 on, with `more` keys.
pub(super) fn upstream(count: u16, more: &str) -> Upstream {
    let addresses: Vec<_> = (1..=count).map(|port| format!("'127.0.0.1:{port}'")).collect();
    let checks = "probe: { checks: [{ tcp: {} }] }";
    let endpoints = addresses.join(", ");
    let config = config::upstream(&format!("{{ endpoints: [{endpoints}], {checks}, {more} }}"));
    Upstream::new(&config, &Changes::default(), &Metrics::new())
}

/// The same, with all endpoints healthy.
fn healthy(count: u16, more: &str) -> Upstream {
    let upstream = upstream(count, more);
    upstream.endpoints().iter().for_each(|it| it.publish(Health::Healthy, ""));
    upstream
}

fn port(picked: &Picked) -> Option<u16> {
    match picked {
        Picked::Endpoint(in_flight) => Some(in_flight.endpoint().address().port()),
        Picked::Full | Picked::None => None,
    }
}

fn any(upstream: &Upstream) -> Picked {
    upstream.pick(None, |_| true)
}

fn fail(endpoint: &Endpoint, times: usize) {
    (0..times).for_each(|_| endpoint.fault(Fault::Reset));
}

#[test]
fn an_endpoint_at_its_bound_is_full_and_one_that_is_down_is_none() {
    let upstream = healthy(2, "admission: { max_in_flight_per_endpoint: 2 }");
    let held: Vec<_> = (0..4).map(|_| any(&upstream)).collect();
    let ports: BTreeSet<_> = held.iter().map(port).collect();
    assert_eq!(ports, [Some(1), Some(2)].into());
    assert!(matches!(any(&upstream), Picked::Full));
    assert!(matches!(upstream.pick(None, |_| false), Picked::None));
    drop(held);
    assert!(port(&any(&upstream)).is_some());
    upstream.endpoints().iter().for_each(|it| it.publish(Health::Unhealthy, "down"));
    assert!(matches!(any(&upstream), Picked::None));
}

#[test]
fn an_upstream_at_its_bound_is_full_though_no_endpoint_is() {
    let upstream = healthy(3, "admission: { max_in_flight: 4 }");
    let held: Vec<_> = (0..4).map(|_| any(&upstream)).collect();
    assert!(held.iter().all(|picked| port(picked).is_some()));
    assert!(matches!(any(&upstream), Picked::Full));
    drop(held);
    assert!(port(&any(&upstream)).is_some());
}

#[test]
fn bounds_hold_though_many_threads_pick_at_once() {
    let more = "admission: { max_in_flight: 7, max_in_flight_per_endpoint: 3 }";
    let upstream = healthy(3, more);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5000 {
                    let picked = any(&upstream);
                    // One that looks may see another thread's attempt, which is undone.
                    assert!(!matches!(picked, Picked::None));
                }
            });
        }
    });
    let held: Vec<_> = (0..7).map(|_| any(&upstream)).collect();
    assert!(held.iter().all(|picked| port(picked).is_some()));
    assert!(upstream.endpoints().iter().all(|it| it.in_flight() <= 3));
    assert!(matches!(any(&upstream), Picked::Full));
}

fn with_backups(count: u16, from: u16) -> Upstream {
    let upstream = upstream(count, "panic_threshold: '0%'");
    let endpoint =
        |port| config::Endpoint { address: ([127, 0, 0, 1], port).into(), backup: port >= from };
    // In any order: backups are last.
    let wanted: Vec<_> = (1..=count).rev().map(endpoint).collect();
    upstream.reconcile(&wanted);
    upstream.endpoints().iter().for_each(|it| it.publish(Health::Healthy, ""));
    upstream
}

#[test]
fn backups_take_calls_only_while_nothing_else_is_available() {
    let upstream = with_backups(4, 3);
    let seen = || (0..40).map(|_| port(&any(&upstream))).collect::<BTreeSet<_>>();
    assert_eq!(seen(), [Some(1), Some(2)].into());
    let endpoints = upstream.endpoints();
    let primaries = &endpoints[..2];
    // Available ones that this call cannot use do not make it a backup's.
    let only_backups = |it: &Arc<Endpoint>| it.address().port() > 2;
    assert!(matches!(upstream.pick(None, only_backups), Picked::None));
    primaries.iter().for_each(|it| it.publish(Health::Unhealthy, "down"));
    assert_eq!(seen(), [Some(3), Some(4)].into());
    primaries[0].publish(Health::Healthy, "");
    assert_eq!(seen(), [Some(primaries[0].address().port())].into());
}

#[test]
fn what_nothing_is_known_of_is_better_than_nothing_and_worse_than_all_else() {
    let upstream = upstream(3, "");
    let spare =
        || (0..40).map(|_| port(&upstream.pick_spare(None, |_| true))).collect::<BTreeSet<_>>();
    assert!(matches!(any(&upstream), Picked::None), "a new one is probed before it counts");
    assert_eq!(spare(), BTreeSet::from([Some(1), Some(2), Some(3)]));
    let endpoints = upstream.endpoints();
    endpoints[0].publish(Health::Unhealthy, "down");
    assert_eq!(spare(), [Some(2), Some(3)].into());
    endpoints[1].publish(Health::Healthy, "");
    assert_eq!(spare(), [Some(2)].into());
}

#[tokio::test(start_paused = true)]
async fn faults_in_a_row_eject_and_the_first_passed_probe_after_the_time_readmits() {
    let upstream = healthy(2, "");
    let endpoint = Arc::clone(&upstream.endpoints()[0]);
    fail(&endpoint, 4);
    any(&upstream);
    upstream.pick(None, |it| Arc::ptr_eq(it, &endpoint)).answered();
    fail(&endpoint, 4);
    assert!(endpoint.is_available(), "a response came between");
    fail(&endpoint, 1);
    assert_eq!((endpoint.is_available(), endpoint.is_healthy()), (false, true));
    assert_eq!(endpoint.ejected().unwrap().reason, Fault::Reset);
    assert!((0..20).all(|_| port(&any(&upstream)) == Some(2)));
    advance(Duration::from_secs(9)).await;
    endpoint.passed();
    assert!(!endpoint.is_available(), "its time has not run out");
    advance(Duration::from_secs(2)).await;
    assert!(!endpoint.is_available(), "no probe has passed");
    endpoint.passed();
    assert!(endpoint.is_available() && endpoint.ejected().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_its_probes_find_down_comes_back_by_them() {
    let upstream = healthy(2, "");
    let endpoint = Arc::clone(&upstream.endpoints()[0]);
    fail(&endpoint, 5);
    endpoint.publish(Health::Unhealthy, "down");
    fail(&endpoint, 50);
    assert!(endpoint.ejected().is_none());
    endpoint.publish(Health::Healthy, "");
    assert!(endpoint.is_available());
}

#[test]
fn no_more_than_their_share_is_ejected_and_of_one_endpoint_none() {
    for (count, more, ejected) in [
        (1, "", 0),
        (2, "", 1),
        (3, "", 1),
        (5, "", 2),
        (5, "ejection: { max_ejected: '100%' }", 4),
        (5, "ejection: { max_ejected: '0%' }", 0),
        (5, "min_healthy: 4", 1),
        (4, "min_healthy: '100%'", 0),
    ] {
        let upstream = healthy(count, more);
        upstream.endpoints().iter().for_each(|it| fail(it, 30));
        let found = upstream.endpoints().iter().filter(|it| it.is_ejected()).count();
        assert_eq!(found, ejected, "{count} {more}");
        assert!(port(&any(&upstream)).is_some());
    }
}

#[test]
fn the_last_available_endpoint_is_not_ejected() {
    let upstream = healthy(4, "");
    upstream.endpoints()[1..].iter().for_each(|it| it.publish(Health::Unhealthy, "down"));
    fail(&upstream.endpoints()[0], 30);
    assert!(upstream.endpoints()[0].is_available());
}

#[test]
fn an_ejected_endpoint_that_leaves_makes_room_for_another_one() {
    let upstream = healthy(2, "");
    let endpoints = upstream.endpoints();
    fail(&endpoints[0], 5);
    let wanted: Vec<_> = [2, 3]
        .map(|port| config::Endpoint::from(std::net::SocketAddr::from(([127, 0, 0, 1], port))))
        .into();
    upstream.reconcile(&wanted);
    upstream.endpoints()[1].publish(Health::Healthy, "");
    fail(&endpoints[0], 5);
    fail(&endpoints[1], 5);
    assert!(endpoints[1].is_ejected());
}

#[test]
fn in_panic_calls_go_to_all_of_them() {
    let upstream = healthy(4, "panic_threshold: '50%'");
    let seen = || (0..200).map(|_| port(&any(&upstream))).collect::<BTreeSet<_>>();
    upstream.endpoints()[..2].iter().for_each(|it| it.publish(Health::Unhealthy, "down"));
    assert_eq!(seen(), [Some(3), Some(4)].into());
    upstream.endpoints()[2].publish(Health::Unhealthy, "down");
    assert_eq!(seen().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_comes_back_gets_its_share_slowly() {
    let upstream = healthy(2, "slow_start: 100s, load_balancing: round_robin");
    let share = || (0..4000).filter(|_| port(&any(&upstream)) == Some(1)).count() / 20;
    assert!((90..110).contains(&share()), "all are cold");
    advance(Duration::from_secs(101)).await;
    let endpoint = Arc::clone(&upstream.endpoints()[0]);
    endpoint.publish(Health::Unhealthy, "down");
    endpoint.publish(Health::Healthy, "");
    for (seconds, expected) in [(0, 10), (50, 55), (50, 100), (100, 100)] {
        advance(Duration::from_secs(seconds)).await;
        let share = share();
        assert!(share.abs_diff(expected) < 8, "{share} after {seconds}, not {expected}");
    }
}

#[test]
fn calls_of_one_value_go_to_one_endpoint_unless_it_is_loaded_or_cannot_be_used() {
    let upstream = healthy(5, "hash_by: x-scope-orgid");
    let hash = Some(hash(b"tenant-1"));
    let home = port(&upstream.pick(hash, |_| true)).unwrap();
    let others = |it: &Arc<Endpoint>| it.address().port() != home;
    let next = port(&upstream.pick(hash, others)).unwrap();
    for _ in 0..20 {
        assert_eq!(port(&upstream.pick(hash, |_| true)), Some(home));
        assert_eq!(port(&upstream.pick(hash, others)), Some(next));
    }
    let held: Vec<_> = (0..200).map(|_| upstream.pick(hash, |_| true)).collect();
    let most = upstream.endpoints().iter().map(|it| it.in_flight()).max();
    // 1.25 times 40.
    assert_eq!(most, Some(50));
    drop(held);
    assert_eq!(port(&upstream.pick(hash, |_| true)), Some(home));
}

#[test]
fn a_bound_that_follows_latency_is_that_of_picks() {
    let upstream = healthy(1, "admission: { adaptive: true, max_in_flight_per_endpoint: 6 }");
    let held: Vec<_> = (0..6).map(|_| any(&upstream)).collect();
    assert!(held.iter().all(|picked| port(picked).is_some()));
    assert!(matches!(any(&upstream), Picked::Full));
}

#[test]
fn what_is_known_of_an_endpoint_is_measured_until_it_is_forgotten() {
    let metrics = Metrics::new();
    let text = "{ endpoints: ['127.0.0.1:1', '127.0.0.1:2'], probe: { checks: [{ tcp: {} }] } }";
    let upstream = Upstream::new(&config::upstream(text), &Changes::default(), &metrics);
    let endpoints = upstream.endpoints();
    endpoints.iter().for_each(|it| it.publish(Health::Healthy, ""));
    fail(&endpoints[0], 5);
    let held = any(&upstream);
    upstream.measure();
    let has = |sample: &str| metrics.render().contains(sample);
    let one = "{upstream=\"u\",endpoint=\"127.0.0.1:1\"}";
    let two = "{upstream=\"u\",endpoint=\"127.0.0.1:2\"}";
    assert!(has(&format!("upbeat_endpoint_ejected{one} 1")));
    assert!(has(&format!("upbeat_endpoint_ejected{two} 0")));
    assert!(has(&format!("upbeat_endpoint_in_flight{two} 1")));
    drop(held);
    upstream.reconcile(&[endpoints[1].address().into()]);
    metrics.forget(&endpoints[0].labels());
    upstream.measure();
    for name in ["endpoint_ejected", "endpoint_in_flight", "ejections_total"] {
        assert!(!metrics.render().lines().any(|line| line.contains(name) && line.contains(":1\"")));
    }
    assert!(has(&format!("upbeat_endpoint_in_flight{two} 0")));
}

impl Picked {
    fn answered(&self) {
        if let Self::Endpoint(in_flight) = self {
            in_flight.answered();
        }
    }
}

proptest! {
    #[test]
    fn whatever_fails_the_caps_hold_and_one_endpoint_is_left(
        count in 1_u16..12,
        share in 0_u8..=100,
        steps in prop::collection::vec((0_usize..12, 0_u8..4), 0..200),
    ) {
        let upstream = healthy(count, &format!("ejection: {{ max_ejected: '{share}%' }}"));
        let endpoints = upstream.endpoints();
        for (index, step) in steps {
            let endpoint = &endpoints[index % endpoints.len()];
            let available = endpoints.iter().filter(|it| it.is_available()).count();
            match step {
                0 => endpoint.publish(Health::Unhealthy, "down"),
                1 => endpoint.publish(Health::Healthy, ""),
                _ => {
                    fail(endpoint, 5);
                    let left = endpoints.iter().filter(|it| it.is_available()).count();
                    prop_assert!(left > 0 || available == 0);
                }
            }
            let ejected = endpoints.iter().filter(|it| it.is_ejected()).count();
            prop_assert!(ejected * 100 <= endpoints.len() * usize::from(share));
            let left = endpoints.iter().filter(|it| it.is_available()).count();
            prop_assert_eq!(port(&any(&upstream)).is_some(), left > 0);
        }
    }
}
