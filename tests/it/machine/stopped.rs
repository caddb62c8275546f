//! A process that is stopped as a whole, and goes on: by SIGSTOP, in a machine that sleeps, or under a
//! hypervisor that moves it.

use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::{net::TcpListener, time::sleep};
use tokio_stream::StreamExt;
use tonic_health::pb::health_check_response::ServingStatus;
use upbeat::grpc::{HealthCheckResponse, decode_unary};

use super::{config, process::Process, told_by_all};
use crate::{
    fixture::{
        caller::{Caller, read},
        echo::Echo,
        proxy::CHECK,
    },
    health::watch,
};

async fn callers(process: &Process, count: usize) -> Vec<Caller> {
    join_all((0..count).map(|_| Caller::connect(process.address("otlp")))).await
}

/// Asks whether it serves, on each of these connections.
async fn asked(callers: &mut [Caller]) -> Vec<bool> {
    let check = async |caller: &mut Caller| {
        let reply = caller.unary(CHECK, &[0; 5]).await.expect("the connection lives");
        let response: HealthCheckResponse = decode_unary(&reply.body, None, 100).unwrap();
        response.status == 1
    };
    join_all(callers.iter_mut().map(check)).await
}

#[tokio::test]
async fn what_was_asked_while_the_process_was_stopped_is_not_answered_from_before() {
    let endpoint = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = endpoint.local_addr().unwrap();
    let process = Process::start("stopped", &config(address, "")).await;
    told_by_all(&process, true).await;
    let mut callers = callers(&process, 8).await;
    assert_eq!(asked(&mut callers).await, [true; 8]);
    let mut watch = watch(process.address("otlp"), "").await;
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);

    process.halt().await;
    drop(endpoint);
    let stopped = async {
        sleep(Duration::from_secs(7)).await;
        process.signal(Signal::CONT);
    };
    let (answers, ()) = tokio::join!(asked(&mut callers), stopped);
    assert_eq!(answers, [false; 8]);
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);

    let _endpoint = TcpListener::bind(address).await.unwrap();
    told_by_all(&process, true).await;
    drop(watch);
    process.stop().await;
}

#[tokio::test]
async fn nobody_was_silent_while_the_process_was_stopped() {
    let echo = Echo::start().await;
    let limits = "limits: { idle_timeout: 3s, client_ping_interval: 2s, client_ping_timeout: 1s, \
                  upstream_ping_interval: 2s, send_timeout: 2s }";
    let process = Process::start("stopped_idle", &config(echo.address(), limits)).await;
    told_by_all(&process, true).await;
    let (mut idle, mut busy) = (callers(&process, 4).await, callers(&process, 4).await);
    assert_eq!(asked(&mut idle).await, [true; 4]);
    let mut open = Vec::new();
    for caller in &mut busy {
        open.push(caller.open("/test.Echo/Stream").await.unwrap());
    }
    process.halt().await;
    sleep(Duration::from_secs(8)).await;
    process.signal(Signal::CONT);
    // Nor is any of them told to go.
    for _ in 0..4 {
        sleep(Duration::from_millis(200)).await;
        assert_eq!(asked(&mut idle).await.len(), 4);
    }
    for mut call in open {
        call.request.send_data(vec![0; 5].into(), true).unwrap();
        let reply = read(call.response.await.unwrap()).await.unwrap();
        assert_eq!(reply.code(), 0, "{reply:?}");
    }
    told_by_all(&process, true).await;
    for thread in ["control", "worker-0", "worker-1"] {
        let stalls = format!("upbeat_thread_stalls_total{{thread=\"{thread}\"}}");
        assert_eq!(process.metric(&stalls).await, 0.0, "{thread}");
    }
    process.stop().await;
}
