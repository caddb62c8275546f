//! Calls of few, long-lived connections are spread over all endpoints.

use std::sync::atomic::Ordering::SeqCst;

use tokio::task::JoinSet;

use crate::fixture::{
    caller::Caller,
    echo::Echo,
    eventually,
    proxy::{Proxy, yaml},
};

const CLIENTS: usize = 8;
const CALLS: usize = 1500;

/// Has each client make its calls one after the other, on a connection of its own; how many came
/// to each endpoint.
async fn spread(load_balancing: &str) -> Vec<usize> {
    let mut echoes = Vec::new();
    for _ in 0..4 {
        echoes.push(Echo::start().await);
    }
    let addresses: Vec<_> = echoes.iter().map(Echo::address).collect();
    let way = format!("    load_balancing: {load_balancing}\n    probe:");
    let config = yaml(&addresses, "{ tcp: {} }", "").replace("    probe:", &way);
    let proxy = Proxy::start(&config).await;
    eventually("all are healthy", async || proxy.status().await.upstreams[0].healthy == 4).await;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let address = proxy.address("otlp");
        clients.spawn(async move {
            let mut caller = Caller::connect(address).await;
            for _ in 0..CALLS {
                assert_eq!(caller.unary("/test.Echo/Unary", &[0; 5]).await.unwrap().code(), 0);
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    proxy.stop().await;
    echoes.iter().map(|echo| echo.seen().streams.load(SeqCst)).collect()
}

/// Each endpoint has its share of the calls, give or take 5 %.
async fn is_even(load_balancing: &str) {
    let counts = spread(load_balancing).await;
    let (total, share) = (CLIENTS * CALLS, CLIENTS * CALLS / counts.len());
    assert_eq!(counts.iter().sum::<usize>(), total, "{counts:?}");
    let even = counts.iter().all(|count| count.abs_diff(share) * 20 <= share);
    assert!(even, "{load_balancing} gives {counts:?} of {total} calls");
}

#[tokio::test]
async fn eight_connections_spread_their_calls_evenly_by_least_request() {
    is_even("least_request").await;
}

#[tokio::test]
async fn eight_connections_spread_their_calls_evenly_by_turns() {
    is_even("round_robin").await;
}
