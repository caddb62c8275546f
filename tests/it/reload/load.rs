//! Many of them, while calls go on.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use tokio::task::JoinSet;

use super::{ANY, Live, MESSAGE, UNARY, config};
use crate::fixture::{
    caller::{Caller, get},
    echo::Echo,
    eventually, refusing, resident,
};

/// 300 of them, or as many as `RELOADS` says.
#[tokio::test]
async fn reloads_under_load_lose_no_call_and_leave_nothing_behind() {
    let reloads = std::env::var("RELOADS").map_or(300, |it| it.parse().unwrap());
    let (a, b) = (Echo::start().await, Echo::start().await);
    let (ends_a, ends_b, gone) = ([a.address()], [b.address()], [refusing()]);
    let text = |number: usize| {
        // Each has an upstream, an endpoint and a service that no other has.
        let name = format!("wave{number}");
        let upstreams = [("a", &ends_a[..]), (&name, &ends_b), ("gone", &gone[..number % 2])];
        let upstreams = &upstreams[..2 + number % 2];
        let to = if number.is_multiple_of(3) { "a" } else { &name };
        let services = format!("{{ \"\": {{ any: [a, {name}] }}, {name}: {{ all: [{name}] }} }}");
        let more = format!("health: {{ services: {services} }}\n");
        config(&[("otlp", ANY, to)], upstreams, &more).replace("5ms", "1ms")
    };
    let live = Live::start("load", &text(0)).await;
    let (done, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut callers = JoinSet::new();
    for number in 0..4 {
        let (address, done, over) =
            (live.proxy.address("otlp"), Arc::clone(&done), Arc::clone(&over));
        callers.spawn(async move {
            let mut caller = Caller::connect(address).await;
            let path = if number % 2 == 0 { UNARY } else { "/test.Echo/Slow" };
            while !over.load(SeqCst) {
                let reply = caller.unary(path, MESSAGE).await.unwrap();
                assert_eq!(reply.code(), 0, "{:?}", reply.status());
                done.fetch_add(1, SeqCst);
            }
        });
    }
    let mut memory = Vec::new();
    for number in 1..=reloads {
        live.reload(&text(number), "applied").await;
        assert!(callers.try_join_next().is_none(), "a caller ended");
        if number % (reloads / 10).max(1) == 0 {
            memory.push(resident() >> 10);
        }
    }
    over.store(true, SeqCst);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let calls = done.load(SeqCst);
    println!(
        "{reloads} reloads, {calls} calls, none lost; KiB in memory at each tenth: {memory:?}"
    );
    let last = format!("\"wave{reloads}\"");
    eventually("what each of them named is forgotten", async || {
        let metrics = get(live.proxy.admin(), "/metrics").await.1;
        metrics.lines().all(|line| !line.contains("\"wave") || line.contains(&last))
    })
    .await;
    assert!(calls > reloads, "only {calls} calls");
    live.stop().await;
}
