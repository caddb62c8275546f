//! What a Watch and a Check say, in the order that a test gives: by a health service that holds
//! replies back and tells on its Watch what it is told to.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderValue, Response, header};
use tokio::{
    net::TcpListener,
    sync::{broadcast, watch},
    task::JoinSet,
    time::sleep,
};
use upbeat::grpc::{Code, Status};

use crate::fixture::{
    eventually,
    proxy::{Proxy, yaml},
};

const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;

/// A health service that says what a test makes it say.
struct Scripted {
    address: SocketAddr,
    script: Arc<Script>,
    tasks: JoinSet<()>,
}

struct Script {
    /// What a Check that is asked now is answered.
    status: Mutex<u8>,
    /// While false, replies to Checks are held back.
    flows: watch::Sender<bool>,
    /// Checks whose reply is held back, all Checks, and all Watches.
    held: AtomicUsize,
    checks: AtomicUsize,
    watches: AtomicUsize,
    /// What open Watches say; none ends them.
    words: broadcast::Sender<Option<u8>>,
    watchable: AtomicBool,
}

impl Scripted {
    async fn start(watchable: bool) -> Self {
        let script = Script {
            status: Mutex::new(SERVING),
            flows: watch::Sender::new(true),
            held: AtomicUsize::new(0),
            checks: AtomicUsize::new(0),
            watches: AtomicUsize::new(0),
            words: broadcast::Sender::new(9),
            watchable: AtomicBool::new(watchable),
        };
        Self::run(([127, 0, 0, 1], 0).into(), Arc::new(script)).await
    }

    async fn run(address: SocketAddr, script: Arc<Script>) -> Self {
        let socket = TcpListener::from_std(upbeat::net::listen(address).unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let inside = Arc::clone(&script);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = socket.accept().await.unwrap();
                let script = Arc::clone(&inside);
                connections.spawn(async move {
                    let mut streams = JoinSet::new();
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        streams.spawn(answer(request, respond, Arc::clone(&script)));
                    }
                });
            }
        });
        Self { address, script, tasks }
    }

    /// The same at the same address, with all connections lost.
    async fn restarted(self) -> Self {
        let Self { address, script, mut tasks } = self;
        tasks.shutdown().await;
        Self::run(address, script).await
    }

    /// Holds replies back from now on; waits for one.
    async fn hold(&self) {
        self.script.flows.send_replace(false);
        let held = self.script.held.load(SeqCst);
        eventually("a Check", async || self.script.held.load(SeqCst) > held).await;
    }

    fn say(&self, word: Option<u8>) {
        self.script.words.send(word).unwrap();
    }
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    script: Arc<Script>,
) -> Result<(), h2::Error> {
    let mut reply = Response::new(());
    let grpc = HeaderValue::from_static("application/grpc");
    reply.headers_mut().insert(header::CONTENT_TYPE, grpc);
    let message = |status| Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]);
    if request.uri().path().ends_with("/Check") {
        let status = *script.status.lock().unwrap();
        script.checks.fetch_add(1, SeqCst);
        if !*script.flows.borrow() {
            script.held.fetch_add(1, SeqCst);
        }
        script.flows.subscribe().wait_for(|flows| *flows).await.unwrap();
        let mut back = respond.send_response(reply, false)?;
        back.send_data(message(status), false)?;
        return back.send_trailers(Status::OK.trailers());
    }
    script.watches.fetch_add(1, SeqCst);
    if !script.watchable.load(SeqCst) {
        let status = Status::new(Code::Unimplemented, "unknown method Watch");
        return respond.send_response(status.trailers_only(), true).map(drop);
    }
    let mut words = script.words.subscribe();
    let mut back = respond.send_response(reply, false)?;
    back.send_data(message(*script.status.lock().unwrap()), false)?;
    while let Ok(Some(status)) = words.recv().await {
        back.send_data(message(status), false)?;
    }
    back.send_trailers(Status::OK.trailers())
}

/// A proxy whose probes may be held for seconds, and of which each makes the endpoint's health.
async fn proxy(address: SocketAddr) -> Proxy {
    let probe = "interval: 3s, timeout: 2900ms, healthy_threshold: 1, unhealthy_threshold: 100";
    let config = yaml(&[address], "{ grpc: {} }", "");
    let proxy = Proxy::start(&config.replace("interval: 300ms, timeout: 290ms", probe)).await;
    proxy.wait_serving().await;
    proxy
}

/// What has been told of the service, the first thing first.
async fn told(proxy: &Proxy) -> Vec<String> {
    let status = proxy.status().await;
    status.services[0].history.iter().rev().map(|change| change.to.clone()).collect()
}

#[tokio::test]
async fn a_reply_that_is_older_than_a_word_of_the_watch_makes_nothing_worse() {
    let backend = Scripted::start(true).await;
    let proxy = proxy(backend.address).await;
    *backend.script.status.lock().unwrap() = NOT_SERVING;
    backend.hold().await;
    // It was so for a moment only, in which the Check was asked.
    *backend.script.status.lock().unwrap() = SERVING;
    backend.say(Some(SERVING));
    sleep(Duration::from_millis(300)).await;
    let checks = backend.script.checks.load(SeqCst);
    backend.script.flows.send_replace(true);
    eventually("another", async || backend.script.checks.load(SeqCst) > checks).await;
    assert_eq!(told(&proxy).await, ["SERVING"]);
    proxy.stop().await;
}

#[tokio::test]
async fn a_reply_that_is_older_than_the_last_word_of_a_watch_makes_nothing_better() {
    let backend = Scripted::start(true).await;
    let proxy = proxy(backend.address).await;
    backend.hold().await;
    *backend.script.status.lock().unwrap() = NOT_SERVING;
    backend.say(Some(NOT_SERVING));
    proxy.wait_not_serving().await;
    // The last word there is.
    backend.script.watchable.store(false, SeqCst);
    backend.say(None);
    sleep(Duration::from_millis(300)).await;
    let checks = backend.script.checks.load(SeqCst);
    backend.script.flows.send_replace(true);
    eventually("another", async || backend.script.checks.load(SeqCst) > checks).await;
    eventually("it is told", async || proxy.check().await == 2).await;
    assert_eq!(told(&proxy).await, ["SERVING", "NOT_SERVING"]);
    proxy.stop().await;
}

#[tokio::test]
async fn a_watch_that_tells_no_changes_is_opened_anew_where_checks_contradict_it() {
    let backend = Scripted::start(true).await;
    let proxy = proxy(backend.address).await;
    // Its streams say what is so when they begin, and no more.
    for (status, serves) in [(NOT_SERVING, false), (SERVING, true)] {
        *backend.script.status.lock().unwrap() = status;
        match serves {
            true => proxy.wait_serving().await,
            false => proxy.wait_not_serving().await,
        }
    }
    assert!(backend.script.watches.load(SeqCst) >= 2);
    proxy.stop().await;
}

#[tokio::test]
async fn an_endpoint_without_watch_is_asked_for_one_once_and_again_when_it_was_restarted() {
    let backend = Scripted::start(false).await;
    let config = yaml(&[backend.address], "{ grpc: {} }", "");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    let script = Arc::clone(&backend.script);
    eventually("ten probes", async || script.checks.load(SeqCst) >= 10).await;
    assert_eq!(script.watches.load(SeqCst), 1);
    let state = proxy.status().await.upstreams.remove(0).endpoints.remove(0);
    assert_eq!((&*state.note, &*state.reason), ("", ""));
    let backend = backend.restarted().await;
    eventually("another Watch", async || script.watches.load(SeqCst) == 2).await;
    drop(backend);
    proxy.stop().await;
}
