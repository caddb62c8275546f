//! What is done to the endpoints and to the proxy, at random.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use tokio::time::{Instant, sleep};

use crate::{endpoint::Endpoint, proxy::Proxy};

/// From when to when something was done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spell {
    pub(crate) of: &'static str,
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

/// Torments one after the other until `end`; what was done, and what did not come back.
pub(crate) async fn torment(
    endpoints: &mut [Endpoint],
    proxy: &mut Proxy,
    random: &mut Rng,
    end: Instant,
) -> (Vec<Spell>, Vec<String>) {
    let (mut spells, mut wrong) = (Vec::new(), Vec::new());
    while Instant::now() < end {
        sleep(Duration::from_millis(random.u64(500..3000))).await;
        let endpoint = &mut endpoints[random.usize(..3)];
        let long = Duration::from_millis(random.u64(500..6000));
        let from = Instant::now();
        let of = match random.u8(..6) {
            0 => {
                endpoint.kill().await;
                sleep(long / 4).await;
                endpoint.begin().await;
                KILLED
            }
            1 => {
                endpoint.signal("STOP").await;
                sleep(long).await;
                endpoint.signal("CONT").await;
                FROZEN
            }
            2 => {
                endpoint.say("slow 100").await;
                sleep(long).await;
                endpoint.say("slow 0").await;
                "slowed"
            }
            3 => {
                endpoint.stop().await;
                sleep(long / 4).await;
                endpoint.begin().await;
                "restarted"
            }
            4 => {
                proxy.configure();
                sleep(long / 4).await;
                "reloaded"
            }
            _ => {
                proxy.certify();
                sleep(long / 4).await;
                "certified"
            }
        };
        spells.push(Spell { of, from, to: Instant::now() });
        if !proxy.is_running() {
            wrong.push("the proxy has ended".to_owned());
            return (spells, wrong);
        }
        let waits = Instant::now();
        while !proxy.has_all().await {
            if waits.elapsed() > Duration::from_secs(30) {
                wrong.push(format!("an endpoint that was {of} is not used again"));
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    (spells, wrong)
}

/// How often each was done.
pub(crate) fn counts(spells: &[Spell]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    spells.iter().for_each(|it| *counts.entry(it.of).or_default() += 1);
    counts
}

pub(crate) const KILLED: &str = "killed";
pub(crate) const FROZEN: &str = "frozen";
