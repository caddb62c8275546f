//! Starts all parts, and judges what came of it.

use std::{
    collections::{BTreeMap, HashSet},
    env, fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    Options,
    calls::{Failure, Tally, load},
    endpoint::Endpoint,
    picture,
    proxy::Proxy,
    samples::{held, rise, sample},
    torment::{FROZEN, KILLED, Spell, counts, torment},
};

/// Runs it; what is wrong.
pub(crate) async fn run(options: &Options) -> Vec<String> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    let folder = env::temp_dir().join(format!("upbeat-soak-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    println!("--seed {seed}, log in {}", folder.display());
    let binary =
        options.binary.clone().unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_upbeat")));
    let wrong = soak(options, &binary, &folder, Rng::with_seed(seed)).await;
    if wrong.is_empty() {
        fs::remove_dir_all(folder).unwrap();
    }
    wrong
}

async fn soak(options: &Options, binary: &Path, folder: &Path, mut random: Rng) -> Vec<String> {
    let mut endpoints = Vec::new();
    for _ in 0..3 {
        endpoints.push(Endpoint::start(folder).await);
    }
    let addresses = endpoints.iter().map(|it| it.address).collect();
    let mut proxy = Proxy::start(binary, folder, addresses).await;
    let (pid, calm) = (proxy.pid(), held(proxy.pid()));
    let tally = Arc::<Tally>::default();
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(options.minutes * 60.0);
    let mut clients = JoinSet::new();
    let listeners = ["plain", "tls"].map(|name| proxy.address(name));
    let tls = proxy.authority().client(None);
    clients.spawn(load(listeners, tls, Arc::clone(&tally), end));
    let every = Duration::from_secs_f64((options.minutes * 60.0 / 2000.0).max(0.5));
    let torments = async {
        let done = torment(&mut endpoints, &mut proxy, &mut random, end).await;
        tally.over.store(!done.1.is_empty(), Relaxed);
        done
    };
    let ((spells, mut wrong), samples) =
        tokio::join!(torments, sample(pid, &tally, start, end, every));
    clients.join_all().await;
    if wrong.is_empty() {
        wrong.extend(left(&proxy, pid, calm).await);
        let code = proxy.stop().await;
        if code != Some(0) {
            wrong.push(format!("the proxy ended with {code:?}"));
        }
    }

    let calls = tally.calls.load(Relaxed);
    let failures = std::mem::take(&mut *tally.failures.lock().unwrap());
    let begun = endpoints.iter().flat_map(Endpoint::begun).collect();
    let (causes, lost) = explain(&failures, &begun, &spells);
    let words = format!(
        "{calls} calls, {} of them failed, {} lost; {:?}",
        failures.len(),
        lost.len(),
        counts(&spells)
    );
    println!("{words}");
    causes.iter().for_each(|(cause, count)| println!("{count:6} {cause}"));
    if let Some(file) = &options.svg {
        fs::write(file, picture::draw(&samples, &spells, start, &words.replace(['"', '&'], "")))
            .unwrap();
    }
    wrong.extend(rise(&samples, "memory in KiB", 4096, |it| it.memory));
    wrong.extend(rise(&samples, "descriptors", 16, |it| it.descriptors));
    wrong.extend(rise(&samples, "threads", 2, |it| it.threads));
    wrong.extend(lost.iter().take(TOLD).map(|it| format!("lost: {it:?}")));
    let spent = (options.minutes * 60.0) as u64;
    if calls < spent * 50 {
        wrong.push(format!("only {calls} calls"));
    }
    if failures.len() as u64 > calls / 50 {
        wrong.push(format!("{} of {calls} calls failed", failures.len()));
    }
    wrong
}

/// Lost calls that are told one by one.
const TOLD: usize = 20;

/// What is left of the load once it has ended.
async fn left(proxy: &Proxy, pid: u32, calm: [u64; 2]) -> Vec<String> {
    let gauges = ["upbeat_streams", "upbeat_endpoint_in_flight", "upbeat_connections"];
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let mut left = Vec::new();
        for gauge in gauges {
            // The one that asks for it may be a connection.
            let most = if gauge == "upbeat_connections" { 1.0 } else { 0.0 };
            let value = proxy.metric(gauge).await;
            if value > most {
                left.push(format!("{gauge} is {value} after all"));
            }
        }
        // Connections to the endpoints stay, and so may threads that read files.
        let now = held(pid);
        for (name, more, [now, calm]) in
            [("descriptors", 40, [now[0], calm[0]]), ("threads", 3, [now[1], calm[1]])]
        {
            if now > calm + more {
                left.push(format!("{now} {name} after all, {calm} before it"));
            }
        }
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Failed calls by what was said of them and what became of them, and those that are lost: no
/// endpoint had begun them, and none was killed or frozen that may have had them unread.
fn explain<'a>(
    failures: &'a [Failure],
    begun: &HashSet<String>,
    spells: &[Spell],
) -> (BTreeMap<String, usize>, Vec<&'a Failure>) {
    let (mut causes, mut lost) = (BTreeMap::<_, usize>::new(), Vec::new());
    for failure in failures {
        let meets = |of| {
            let in_flight = |it: &Spell| failure.began <= it.to && failure.ended >= it.from;
            spells.iter().any(|it| it.of == of && in_flight(it))
        };
        let why = &failure.why;
        let gone = why.contains("upstream connection lost");
        let late = why.contains("DEADLINE_EXCEEDED") || gone || why.contains("UNAVAILABLE");
        let became = if begun.contains(&failure.id) {
            "an endpoint had it"
        } else if gone && (why.contains("after GOAWAY") || meets(KILLED)) {
            "unread at one that ended"
        } else if late && meets(FROZEN) {
            "unread at one that was frozen"
        } else {
            lost.push(failure);
            "LOST"
        };
        let known = ["hangs", "OK with", "no status", "TLS:"];
        if known.iter().any(|it| why.starts_with(it)) && became != "LOST" {
            // No cause makes that right.
            lost.push(failure);
        }
        *causes.entry(format!("{became}, {}: {why}", failure.kind)).or_default() += 1;
    }
    (causes, lost)
}
