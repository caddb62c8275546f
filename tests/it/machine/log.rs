//! Nothing waits for a log line.

use std::fs;

use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tonic_health::pb::health_check_response::ServingStatus;

use super::{config, process::Process, told_by_all};
use crate::{fixture::eventually, health::watch};

#[tokio::test]
async fn health_is_told_while_nobody_reads_standard_error() {
    let endpoint = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = endpoint.local_addr().unwrap();
    let mut process = Process::start("full_stderr", &config(address, "")).await;
    told_by_all(&process, true).await;
    let mut watch = watch(process.address("otlp"), "").await;
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);

    process.fill();
    // Each reload logs a thousand lines.
    let service = |number: usize| format!("    s{number}: {{ all: [nobody] }}\n");
    let bad = (0..1000).map(service).collect::<String>();
    fs::write(&process.file, config(address, &format!("health:\n  services:\n{bad}"))).unwrap();
    for refused in 1..=4 {
        let so_far = "upbeat_config_reloads_total{result=\"refused\"}";
        eventually("a reload", async || {
            process.signal(Signal::HUP);
            process.metric(so_far).await >= f64::from(refused)
        })
        .await;
    }
    let dropped = process.metric("upbeat_log_lines_dropped_total").await;
    assert!(dropped > 1000.0, "{dropped}");

    drop(endpoint);
    told_by_all(&process, false).await;
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let _endpoint = TcpListener::bind(address).await.unwrap();
    told_by_all(&process, true).await;

    let line = process.says("log lines dropped").await;
    assert!(line.contains("\"lines\":"), "{line}");
    drop(watch);
    process.stop().await;
}

#[tokio::test]
async fn a_process_whose_standard_error_is_full_ends_when_it_is_told_to() {
    let endpoint = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = endpoint.local_addr().unwrap();
    let mut process = Process::start("full_stderr_at_the_end", &config(address, "")).await;
    told_by_all(&process, true).await;
    process.fill();
    process.stop().await;
}

#[tokio::test]
async fn health_is_told_when_standard_error_was_closed() {
    let endpoint = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = endpoint.local_addr().unwrap();
    let mut process = Process::start("closed_stderr", &config(address, "")).await;
    told_by_all(&process, true).await;
    process.close();
    drop(endpoint);
    told_by_all(&process, false).await;
    let dropped = process.metric("upbeat_log_lines_dropped_total").await;
    assert!(dropped >= 1.0, "{dropped}");
    process.stop().await;
}
