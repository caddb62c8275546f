//! Conversations through the running proxy: what both ends see is what the other sent.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::fixture::{
    caller::{Caller, read},
    echo::Echo,
    eventually,
    proxy::{Proxy, yaml},
};

async fn alone(echo: &Echo) -> Proxy {
    let config = yaml(&[echo.address()], "{ tcp: {} }", "").replace("workers: 2", "workers: 1");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    proxy
}

#[tokio::test]
async fn a_connection_in_the_place_of_a_lost_one_keeps_its_calls() {
    let echo = Echo::start().await;
    let proxy = alone(&echo).await;
    let connections = r#"upbeat_connections{listener="otlp"}"#;
    // Answered early, its request open: the proxy passes over what still comes for a while.
    let mut lost = Caller::connect(proxy.address("otlp")).await;
    let call = lost.open("/test.Echo/Early").await.unwrap();
    assert_eq!(read(call.response.await.unwrap()).await.unwrap().code(), 0);
    drop((call.request, lost));
    eventually("it is gone", async || proxy.metric(connections).await == 0.0).await;

    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = caller.open("/test.Echo/Stream").await.unwrap();
    call.request.send_data(Bytes::from_static(&[0, 0, 0, 0, 1, 7]), false).unwrap();
    let mut response = call.response.await.unwrap();
    assert_eq!(response.body_mut().data().await.unwrap().unwrap().len(), 6);
    let nothing = timeout(Duration::from_millis(1500), response.body_mut().data()).await;
    assert!(nothing.is_err(), "{nothing:?} on a stream of another connection");
    call.request.send_data(Bytes::new(), true).unwrap();
    assert_eq!(read(response).await.unwrap().code(), 0);
    proxy.stop().await;
}
