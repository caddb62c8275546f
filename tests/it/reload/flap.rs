//! Services while upstreams come and go.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_stream::StreamExt;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{ANY, Live, config};
use crate::fixture::{echo::Echo, refusing};

/// Answers each GET with 200, after 200 ms.
async fn slow() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                while socket.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {
                    sleep(Duration::from_millis(200)).await;
                    _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            });
        }
    });
    (address, tasks)
}

#[tokio::test]
async fn no_service_flaps_when_an_upstream_is_added() {
    let echo = Echo::start().await;
    let (slow, _tasks) = slow().await;
    let ends = [echo.address()];
    let before = config(&[("otlp", ANY, "otlp")], &[("otlp", &ends)], "");
    let live = Live::start("flap", &before).await;
    let address = format!("http://{}", live.proxy.address("otlp"));
    let endpoint = tonic::transport::Endpoint::from_shared(address).unwrap();
    let mut client = HealthClient::new(endpoint.connect().await.unwrap());
    let mut told = Vec::new();
    for service in ["", "new"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        told.push(client.watch(request).await.unwrap().into_inner());
    }
    let [overall, new] = &mut told[..] else { panic!() };
    let next = async |stream: &mut tonic::Streaming<_>| {
        let next = timeout(Duration::from_secs(20), stream.next()).await.expect("told in time");
        let response: tonic_health::pb::HealthCheckResponse = next.unwrap().unwrap();
        response.status()
    };
    assert_eq!(next(overall).await, ServingStatus::Serving);
    assert_eq!(next(new).await, ServingStatus::ServiceUnknown);

    let probe = "{ interval: 5s, timeout: 4s, checks: [{ http: {} }] }";
    let upstream = format!("  slow: {{ endpoints: [\"{slow}\"], probe: {probe} }}\nadmin:");
    let more = "health: { services: { new: { all: [slow] } } }\n";
    let after = format!("{}{more}", before.replace("admin:", &upstream));
    live.reload(&after, "applied").await;
    assert_eq!(next(new).await, ServingStatus::Serving, "without NOT_SERVING before it");
    let status = live.proxy.status().await;
    assert_eq!(status.services[0].history.len(), 1, "{:?}", status.services[0]);

    live.reload(&before, "applied").await;
    assert_eq!(next(new).await, ServingStatus::ServiceUnknown);
    // One that does not answer is taken over after its probe's time, and said to be ill.
    let ill = after.replace(&slow.to_string(), &refusing().to_string());
    live.reload(&ill, "applied").await;
    assert_eq!(next(new).await, ServingStatus::NotServing);
    assert_eq!(next(overall).await, ServingStatus::NotServing);
    live.stop().await;
}
