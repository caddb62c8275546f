//! Three endpoints, each a process of its own, are killed, frozen, slowed and restarted at random
//! under calls that come at a steady rate. `UPBEAT_CHAOS` is for how many seconds, else a few at a
//! lower rate; `UPBEAT_CHAOS_SEED` repeats what was done before.

mod distributor;
mod load;

use std::{
    collections::{BTreeMap, HashSet},
    env,
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, sleep},
};

use self::{
    distributor::Distributor,
    load::{Ended, load},
};
use crate::fixture::{
    eventually,
    proxy::{Proxy, yaml},
};

/// What is done to a distributor.
#[derive(Debug, Clone, Copy)]
enum Torment {
    Kill { down: Duration },
    Freeze(Duration),
    Slow(Duration),
    Restart { down: Duration },
}

impl Torment {
    fn new(random: &mut Rng, longest: u64) -> Self {
        let mut millis = |from, to| Duration::from_millis(random.u64(from..to));
        let (down, long) = (millis(0, 1500), millis(1000, longest));
        match random.u8(..4) {
            0 => Self::Kill { down },
            1 => Self::Freeze(long),
            2 => Self::Slow(long),
            _ => Self::Restart { down },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kill { .. } => "killed",
            Self::Freeze(_) => "frozen",
            Self::Slow(_) => "slowed",
            Self::Restart { .. } => "restarted",
        }
    }

    async fn befall(self, distributor: &mut Distributor) {
        match self {
            Self::Kill { down } => {
                distributor.kill().await;
                sleep(down).await;
                distributor.start().await;
            }
            Self::Freeze(long) => {
                distributor.signal("STOP").await;
                sleep(long).await;
                distributor.signal("CONT").await;
            }
            Self::Slow(long) => {
                distributor.say("slow 100").await;
                sleep(long).await;
                distributor.say("slow 0").await;
            }
            Self::Restart { down } => {
                distributor.stop().await;
                sleep(down).await;
                distributor.start().await;
            }
        }
    }
}

/// From when to when something was done.
struct Spell {
    of: &'static str,
    from: Instant,
    to: Instant,
}

/// Torments distributors until `end`, two at most at a time: how often in which way, and when.
async fn torment(
    distributors: &[Arc<Mutex<Distributor>>],
    proxy: &Arc<Proxy>,
    random: &mut Rng,
    end: Instant,
    longest: u64,
) -> (BTreeMap<&'static str, usize>, Vec<Spell>) {
    let (mut done, mut spells) = (BTreeMap::new(), Vec::new());
    let permits = Arc::new(Semaphore::new(distributors.len() - 1));
    let mut victims = JoinSet::new();
    while Instant::now() < end {
        sleep(Duration::from_millis(random.u64(200..1500))).await;
        let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
        let mut order = [0, 1, 2];
        random.shuffle(&mut order);
        let free = order.into_iter().find_map(|it| {
            Arc::clone(&distributors[it]).try_lock_owned().ok().map(|victim| (it, victim))
        });
        let (index, mut victim) = free.expect("a permit is for a distributor that is free");
        let torment = Torment::new(random, longest);
        *done.entry(torment.name()).or_default() += 1;
        let proxy = Arc::clone(proxy);
        victims.spawn(async move {
            let began = Instant::now();
            torment.befall(&mut victim).await;
            let spell = Spell { of: torment.name(), from: began, to: Instant::now() };
            recovered(&proxy, index, permit).await;
            spell
        });
    }
    while let Some(spell) = victims.join_next().await {
        spells.push(spell.unwrap());
    }
    (done, spells)
}

/// Waits until the proxy uses an endpoint again, so that one of them always can be used.
async fn recovered(proxy: &Proxy, index: usize, _permit: OwnedSemaphorePermit) {
    // What it is now may not be known yet.
    sleep(Duration::from_millis(500)).await;
    let healthy = async || proxy.status().await.upstreams[0].endpoints[index].health == "healthy";
    let deadline = Instant::now() + Duration::from_secs(30);
    while !healthy().await {
        assert!(Instant::now() < deadline, "endpoint {index} is not used again");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Failed calls by what was said of them and by what became of them; and those that were lost
/// though no distributor had them.
fn explain<'a>(
    calls: &'a [Ended],
    accepted: &HashSet<String>,
    spells: &[Spell],
) -> (BTreeMap<String, usize>, Vec<&'a Ended>) {
    let (mut causes, mut lost) = (BTreeMap::<_, usize>::new(), Vec::new());
    for call in calls {
        let Some(failure) = &call.failure else { continue };
        let meets = |of| {
            let in_flight = |it: &Spell| call.began <= it.to && call.ended >= it.from;
            spells.iter().any(|it| it.of == of && in_flight(it))
        };
        let gone = failure.contains("upstream connection lost");
        let became = if gone && failure.contains("after GOAWAY") {
            // Its GOAWAY counts the call as taken: one that thaws has more before it than it likes.
            "in flight on one that ended its connection"
        } else if gone && meets("killed") {
            // What its socket had, nobody can know to be unread.
            "in flight on one that was killed"
        } else if meets("frozen") && failure == load::TOO_LATE {
            "in flight while one was frozen"
        } else if accepted.contains(&call.id) {
            "in flight"
        } else {
            lost.push(call);
            "LOST"
        };
        let begun = if accepted.contains(&call.id) { "begun" } else { "not begun" };
        let became = format!("{became}, {begun}");
        *causes.entry(format!("{became}: {failure}")).or_default() += 1;
    }
    (causes, lost)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_loses_no_call_that_no_endpoint_had() {
    let seconds = env::var("UPBEAT_CHAOS").ok().map(|it| it.parse().unwrap());
    let (rate, longest) = if seconds.is_some() { (2000, 8000) } else { (300, 2500) };
    let seed =
        env::var("UPBEAT_CHAOS_SEED").map_or_else(|_| fastrand::u64(..), |it| it.parse().unwrap());
    eprintln!("UPBEAT_CHAOS_SEED={seed}");
    let mut distributors = Vec::new();
    for _ in 0..3 {
        distributors.push(Distributor::new().await);
    }
    let addresses: Vec<_> = distributors.iter().map(Distributor::address).collect();
    let journals: Vec<_> = distributors.iter().map(Distributor::journal).collect();
    let distributors: Vec<_> = distributors.into_iter().map(Mutex::new).map(Arc::new).collect();
    // As it is by default.
    let config =
        yaml(&addresses, "{ otlp: {} }", "").replace("interval: 300ms, timeout: 290ms,", "");
    let proxy = Arc::new(Proxy::start(&config).await);
    eventually("all are healthy", async || proxy.status().await.upstreams[0].healthy == 3).await;

    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(10));
    let mut calls = JoinSet::new();
    calls.spawn(load(proxy.address("otlp"), rate, end));
    let mut random = Rng::with_seed(seed);
    let (done, spells) = torment(&distributors, &proxy, &mut random, end, longest).await;
    let calls = calls.join_next().await.expect("it was just spawned").unwrap();

    let accepted = journals.iter().flat_map(|it| it.read()).collect();
    let (causes, lost) = explain(&calls, &accepted, &spells);
    let mut took: Vec<_> = calls.iter().map(|call| call.ended - call.began).collect();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    eprintln!(
        "{done:?}, {} calls, p50 {:?}, p99 {:?}, longest {:?}",
        calls.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    causes.iter().for_each(|(cause, count)| eprintln!("{count:6} {cause}"));
    assert!(calls.len() as u64 > rate * seconds.unwrap_or(10) / 2, "only {} calls", calls.len());
    assert!(lost.is_empty(), "of {} calls, seed {seed}: {lost:?}", calls.len());
    drop(distributors);
    let Ok(proxy) = Arc::try_unwrap(proxy) else { panic!("nobody else has it") };
    proxy.stop().await;
}
