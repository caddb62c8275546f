//! How soon each kind of check tells a death, NOT_SERVING and a return, over many rounds with the
//! thresholds that are the default and an interval that no round could wait for.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_stream::StreamExt;
use tonic_health::ServingStatus;

use super::Dialects;
use crate::{
    fixture::{
        echo::Echo,
        endpoint::Endpoint,
        proxy::{Proxy, yaml},
    },
    health::watch,
    probe::{self, Http},
};

/// A backend that goes and comes back at the same address.
enum Backend {
    Calls(SocketAddr, Option<Echo>),
    Web(SocketAddr, Option<Http>),
    /// Stays, and says by its health service what it is.
    Health(Endpoint),
}

impl Backend {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Calls(address, _) | Self::Web(address, _) => *address,
            Self::Health(endpoint) => endpoint.grpc(),
        }
    }

    async fn go(&mut self) {
        match self {
            Self::Calls(_, echo) => drop(echo.take()),
            Self::Web(_, web) => drop(web.take()),
            Self::Health(endpoint) => {
                endpoint.health.set_service_status("", ServingStatus::NotServing).await;
            }
        }
    }

    async fn come(&mut self) {
        match self {
            Self::Calls(address, echo) => *echo = Some(Echo::start_at(*address, None).await),
            Self::Web(address, web) => *web = Some(probe::http_at(*address, WELL).await),
            Self::Health(endpoint) => {
                endpoint.health.set_service_status("", ServingStatus::Serving).await;
            }
        }
    }
}

/// How long it took until every dialect said so.
#[derive(Default)]
struct Took {
    down: Vec<Duration>,
    up: Vec<Duration>,
}

/// A few rounds with one proxy: more than a few returns in a row are not hurried.
async fn rounds(mut backend: Backend, check: &str, outage: Duration) -> Took {
    let defaults = "interval: 60s, timeout: 5s";
    let config = yaml(&[backend.address()], check, "");
    let config = config.replace("interval: 300ms, timeout: 290ms", defaults);
    assert!(config.contains(defaults));
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    let mut dialects = Dialects::of(&proxy).await;
    let mut watch = watch(proxy.address("otlp"), "").await;
    assert_eq!(watch.next().await.unwrap().unwrap().status, 1);
    let mut took = Took::default();
    for _ in 0..ROUNDS {
        // Any time between two probes.
        sleep(Duration::from_secs_f64(0.3 * fastrand::f64())).await;
        let start = Instant::now();
        backend.go().await;
        assert_eq!(watch.next().await.unwrap().unwrap().status, 2);
        dialects.all_say(false).await;
        took.down.push(start.elapsed());
        sleep(outage.mul_f64(0.5 + fastrand::f64())).await;
        let start = Instant::now();
        backend.come().await;
        assert_eq!(watch.next().await.unwrap().unwrap().status, 1);
        dialects.all_say(true).await;
        took.up.push(start.elapsed());
    }
    drop(watch);
    proxy.stop().await;
    took
}

/// Says what rounds beside each other took, which on a machine of its own is at most 0.1 s down and
/// 0.2 s up; asserts what one that is busy keeps too, and a wait for an interval or a back-off does not.
async fn measure(what: &str, check: &'static str, outage: u64, start: impl AsyncFn() -> Backend) {
    let mut beside = JoinSet::new();
    for _ in 0..BESIDE {
        beside.spawn(rounds(start().await, check, Duration::from_millis(outage)));
    }
    let (mut down, mut up) = (Vec::new(), Vec::new());
    for took in beside.join_all().await {
        down.extend(took.down);
        up.extend(took.up);
    }
    for (which, mut took) in [("down", down), ("up", up)] {
        took.sort();
        let mean = took.iter().sum::<Duration>() / took.len() as u32;
        let (median, max) = (took[took.len() / 2], took[took.len() - 1]);
        eprintln!("{what}, {which}: mean {mean:?}, max {max:?} of {}", took.len());
        assert!(median < Duration::from_secs(1), "{what}, {which}: {took:?}");
    }
}

async fn calls() -> Backend {
    let echo = Echo::start().await;
    Backend::Calls(echo.address(), Some(echo))
}

#[tokio::test]
async fn a_receiver_is_seen_to_die_and_to_return() {
    measure("otlp", "{ otlp: {} }", 2000, calls).await;
}

#[tokio::test]
async fn a_server_without_watch_is_seen_to_die_and_to_return() {
    let check = "{ grpc: { metadata: { x-scope-orgid: a } } }";
    measure("grpc without Watch", check, 2000, calls).await;
}

#[tokio::test]
async fn a_web_server_is_seen_to_die_and_to_return() {
    measure("http", "{ http: {} }", 2000, async || {
        let web = probe::http(WELL).await;
        Backend::Web(web.address, Some(web))
    })
    .await;
}

#[tokio::test]
async fn a_server_that_says_what_it_is_is_heard_at_once_by_default() {
    measure("grpc", "{ grpc: {} }", 300, async || {
        let endpoint = Endpoint::start().await;
        endpoint.health.set_service_status("", ServingStatus::Serving).await;
        Backend::Health(endpoint)
    })
    .await;
}

const WELL: &str = "HTTP/1.1 200 x\r\ncontent-length: 0\r\n\r\n";
const BESIDE: usize = 5;
const ROUNDS: usize = 4;
