//! Threads that stand still, and panics.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};
use tokio_stream::StreamExt;
use tonic_health::pb::health_check_response::ServingStatus;

use super::child::{Child, Fault};
use crate::{
    fixture::{caller::get, eventually},
    health::watch,
    truth::Dialects,
};

/// A process in front of an endpoint that is well, once it serves.
async fn serving(test: &str, fault: Fault) -> (Child, TcpListener) {
    let endpoint = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let test = format!("machine::threads::{test}");
    let child = Child::start(&test, endpoint.local_addr().unwrap(), fault).await;
    eventually("SERVING", async || child.answer("open", "/").await == Some(true)).await;
    (child, endpoint)
}

#[tokio::test]
async fn a_worker_that_stands_still_gets_no_connections_and_ends_the_process_in_the_end() {
    let fault = Fault::Stall(Duration::from_secs(60));
    let test = "a_worker_that_stands_still_gets_no_connections_and_ends_the_process_in_the_end";
    let (child, _endpoint) = serving(test, fault).await;
    // One on each worker, that is kept.
    let mut kept = Vec::new();
    for _ in 0..2 {
        kept.push(Dialects::at(child.address("open")).await);
    }
    child.break_a_worker().await;
    let broken = Instant::now();
    eventually("the stall is counted", async || {
        let names = ["worker-0", "worker-1"];
        let name = |it: &str| format!("upbeat_thread_stalls_total{{thread=\"{it}\"}}");
        child.metric(&name(names[0])).await + child.metric(&name(names[1])).await == 1.0
    })
    .await;
    // No new connection is lost there.
    for _ in 0..20 {
        assert_eq!(child.answer("open", "/").await, Some(true));
    }
    eventually("NOT_SERVING", async || child.answer("open", "/").await == Some(false)).await;
    assert_eq!(child.answer("admin", "/readyz").await, Some(false));
    let (status, stderr) = child.ends().await;
    assert_eq!(status.code(), Some(70), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.contains("upbeat: thread worker-") && last.contains("stood still"), "{stderr}");
    assert!(broken.elapsed() < Duration::from_secs(30), "{:?}", broken.elapsed());
}

#[tokio::test]
async fn who_finds_all_places_taken_waits_for_a_worker_that_is_late() {
    let fault = Fault::Stall(Duration::from_millis(900));
    let test = "who_finds_all_places_taken_waits_for_a_worker_that_is_late";
    let (child, _endpoint) = serving(test, fault).await;
    // One on each worker, and one place in all.
    let silent = TcpStream::connect(child.address("full")).await.unwrap();
    let _other = Dialects::at(child.address("open")).await;
    sleep(Duration::from_millis(1200)).await;
    child.break_a_worker().await;
    let begun = Instant::now();
    let (status, _) = get(child.address("full"), "/").await;
    assert_eq!(status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    drop(silent);
}

#[tokio::test]
async fn a_burst_of_connections_waits_for_no_worker_that_does_not_begin_with_its_part() {
    let fault = Fault::Stall(Duration::from_secs(8));
    let test = "a_burst_of_connections_waits_for_no_worker_that_does_not_begin_with_its_part";
    let (child, _endpoint) = serving(test, fault).await;
    child.break_a_worker().await;
    let address = child.address("open");
    let asked = (0..60).map(|_| timeout(Duration::from_secs(5), get(address, "/")));
    let answered = join_all(asked).await.iter().filter(|answer| answer.is_ok()).count();
    // It is handed 16 before it has begun with them.
    assert!(answered >= 60 - 16, "{answered}");
}

#[tokio::test]
async fn a_control_thread_that_stands_still_makes_all_say_not_serving_until_it_runs_again() {
    let fault = Fault::Stall(Duration::from_secs(9));
    let test = "a_control_thread_that_stands_still_makes_all_say_not_serving_until_it_runs_again";
    let (child, _endpoint) = serving(test, fault).await;
    // Nothing is accepted meanwhile.
    let mut dialects = Dialects::at(child.address("open")).await;
    let mut watch = watch(child.address("open"), "").await;
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    child.break_control().await;
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(!dialects.check().await);
    assert!(dialects.kept().await.iter().all(|(_, serving)| !serving));
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert!(dialects.check().await);
    assert!(dialects.others().await.iter().all(|(_, serving)| *serving));
    assert_eq!(child.answer("admin", "/readyz").await, Some(true));
}

#[tokio::test]
async fn a_control_thread_that_stands_still_for_long_ends_the_process() {
    let fault = Fault::Stall(Duration::from_secs(60));
    let test = "a_control_thread_that_stands_still_for_long_ends_the_process";
    let (child, _endpoint) = serving(test, fault).await;
    child.break_control().await;
    let (status, stderr) = child.ends().await;
    assert_eq!(status.code(), Some(70), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.contains("upbeat: thread control has stood still"), "{stderr}");
}

#[tokio::test]
async fn a_panic_in_a_workers_task_ends_the_process_with_its_message() {
    let test = "a_panic_in_a_workers_task_ends_the_process_with_its_message";
    let (child, _endpoint) = serving(test, Fault::Panic).await;
    child.break_a_worker().await;
    let broken = Instant::now();
    let (status, stderr) = child.ends().await;
    assert_eq!(status.code(), Some(70), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(
        last.contains("upbeat: thread worker-") && last.contains("the log is full"),
        "{stderr}"
    );
    assert!(broken.elapsed() < Duration::from_secs(3), "{:?}", broken.elapsed());
}

#[tokio::test]
async fn a_panic_in_a_control_task_ends_the_process_with_its_message() {
    let test = "a_panic_in_a_control_task_ends_the_process_with_its_message";
    let (child, _endpoint) = serving(test, Fault::Panic).await;
    child.break_control().await;
    let broken = Instant::now();
    let (status, stderr) = child.ends().await;
    assert_eq!(status.code(), Some(70), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("upbeat: thread ") && last.contains("the log is full"), "{stderr}");
    assert!(broken.elapsed() < Duration::from_secs(3), "{:?}", broken.elapsed());
}
