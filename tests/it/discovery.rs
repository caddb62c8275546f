//! Endpoints that the configuration does not list: names that are resolved, files that are read.

mod swap;

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use bytes::Bytes;
use hickory_resolver::proto::rr::RecordType;
use tokio::{
    net::TcpListener,
    time::{Instant, timeout},
};
use upbeat::{
    config::Config,
    metrics::Metrics,
    upstream::{Changes, Health, Upstream},
};

use crate::fixture::{
    caller::{Caller, get, read},
    echo::Echo,
    eventually,
    names::{Names, Trouble},
    proxy::{Proxy, yaml},
};

const NAME: &str = "tempo.test.";
const TCP: &str = "{ tcp: {} }";

/// A loopback address; several of them can share a port.
fn ip(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 7, last).into()
}

/// An endpoint behind every loopback address.
async fn everywhere() -> Echo {
    Echo::start_at(([0, 0, 0, 0], 0).into(), None).await
}

/// A proxy with `found` in the place of endpoints. The first probe of each decides, and a busy
/// machine does not make them late.
async fn finding(found: &str, check: &str) -> Proxy {
    let yaml = yaml(&[], check, "").replace("endpoints: []", found);
    Proxy::start(&yaml.replace("interval: 300ms, timeout: 290ms", "interval: 5s, timeout: 4s"))
        .await
}

/// A proxy whose endpoints `dns` tells, asking `names`; `more` is said of the upstream.
async fn proxy(names: &Names, dns: &str, more: &str) -> Proxy {
    let dns = format!("dns: {{ resolvers: [\"{}\"], {dns} }}\n    {more}", names.address());
    finding(&dns, TCP).await
}

/// A proxy whose endpoints are the addresses of [`NAME`], looked up all the time.
async fn quick(names: &Names, port: u16) -> Proxy {
    quick_with(names, port, "").await
}

async fn quick_with(names: &Names, port: u16, more: &str) -> Proxy {
    let dns = format!("name: {NAME}, port: {port}, min_refresh: 10ms, refresh_interval: 50ms");
    proxy(names, &dns, more).await
}

async fn endpoints(proxy: &Proxy) -> BTreeSet<SocketAddr> {
    let status = proxy.status().await;
    status.upstreams[0].endpoints.iter().map(|it| it.endpoint.parse().unwrap()).collect()
}

async fn wait_for(proxy: &Proxy, expected: &[SocketAddr]) {
    let expected: BTreeSet<_> = expected.iter().copied().collect();
    eventually("the endpoints are found", async || endpoints(proxy).await == expected).await;
}

async fn note(proxy: &Proxy) -> String {
    proxy.status().await.upstreams[0].note.clone()
}

#[tokio::test]
async fn a_call_on_an_endpoint_that_goes_ends_there_and_new_ones_go_elsewhere() {
    let first = Echo::start_at(SocketAddr::new(ip(1), 0), None).await;
    let port = first.address().port();
    let second = Echo::start_at(SocketAddr::new(ip(2), port), None).await;
    let names = Names::start().await;
    names.set(NAME, 0, &[ip(1)]);
    let proxy = quick(&names, port).await;
    proxy.wait_serving().await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = caller.open("/test.Echo/Stream").await.unwrap();
    call.request.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
    let mut body = call.response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap().len(), 5);

    names.set(NAME, 0, &[ip(2)]);
    wait_for(&proxy, &[second.address()]).await;
    proxy.wait_serving().await;
    for _ in 0..50 {
        assert_eq!(caller.unary("/test.Echo/Unary", &[0; 5]).await.unwrap().code(), 0);
    }
    assert_eq!(first.seen().streams.load(SeqCst), 1, "only the call that was there");
    assert_eq!(second.seen().streams.load(SeqCst), 50);
    let gone = first.address();
    let open = format!("upbeat_upstream_connections{{upstream=\"otlp\",endpoint=\"{gone}\"}}");
    call.request.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    assert_eq!(body.data().await.unwrap().unwrap().len(), 5);
    assert!(body.data().await.is_none());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    let metrics = || get(proxy.admin(), "/metrics");
    eventually("it is forgotten", async || !metrics().await.1.contains(&open)).await;

    names.set(NAME, 0, &[ip(1)]);
    wait_for(&proxy, &[first.address()]).await;
    proxy.wait_serving().await;
    assert_eq!(caller.unary("/test.Echo/Unary", &[0; 5]).await.unwrap().code(), 0);
    assert_eq!(first.seen().streams.load(SeqCst), 2);
    proxy.stop().await;
}

#[tokio::test]
async fn a_call_that_waits_for_an_endpoint_that_goes_is_placed_elsewhere() {
    // Connections are made, and nobody ever says anything on them.
    let silent = TcpListener::bind(SocketAddr::new(ip(1), 0)).await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let echo = Echo::start_at(SocketAddr::new(ip(2), port), None).await;
    let names = Names::start().await;
    names.set(NAME, 0, &[ip(1)]);
    let proxy = quick_with(&names, port, "connect_timeout: 1h").await;
    proxy.wait_serving().await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = caller.open("/test.Echo/Unary").await.unwrap();
    call.request.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    eventually("it waits", async || proxy.status().await.upstreams[0].endpoints[0].in_flight == 1)
        .await;

    names.set(NAME, 0, &[ip(1), ip(2)]);
    eventually("both are healthy", async || proxy.status().await.upstreams[0].healthy == 2).await;
    names.set(NAME, 0, &[ip(2)]);
    let response = timeout(Duration::from_secs(20), call.response).await.expect("it waits on");
    assert_eq!(read(response.unwrap()).await.unwrap().code(), 0);
    assert_eq!(echo.seen().streams.load(SeqCst), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn nothing_is_left_of_two_hundred_endpoints_that_were_there() {
    let echo = everywhere().await;
    let port = echo.address().port();
    let names = Names::start().await;
    names.set(NAME, 0, &[ip(1)]);
    let proxy = quick(&names, port).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    for number in 1..=200 {
        names.set(NAME, 0, &[ip(number)]);
        let address = SocketAddr::new(ip(number), port).to_string();
        eventually("the next one is healthy", async || {
            let status = proxy.status().await;
            let endpoint = status.upstreams[0].endpoints.first();
            endpoint.is_some_and(|it| it.endpoint == address && it.health == "healthy")
        })
        .await;
        assert_eq!(caller.unary("/test.Echo/Unary", &[0; 5]).await.unwrap().code(), 0);
    }
    let last = format!("endpoint=\"{}\"", SocketAddr::new(ip(200), port));
    eventually("the others are forgotten", async || {
        let (_, metrics) = get(proxy.admin(), "/metrics").await;
        let of_endpoints = metrics.lines().filter(|line| line.contains("endpoint=\""));
        of_endpoints.clone().count() > 0 && of_endpoints.clone().all(|line| line.contains(&last))
    })
    .await;
    assert_eq!(proxy.metric("upbeat_discovery_endpoints{upstream=\"otlp\"}").await, 1.0);
    proxy.stop().await;
}

#[tokio::test]
async fn what_a_name_server_in_trouble_says_changes_nothing() {
    let echo = everywhere().await;
    let port = echo.address().port();
    let names = Names::start().await;
    names.set(NAME, 0, &[ip(1), ip(2), "::1".parse().unwrap()]);
    let proxy = quick(&names, port).await;
    let all = [ip(1), ip(2), "::1".parse().unwrap()].map(|ip| SocketAddr::new(ip, port));
    wait_for(&proxy, &all).await;
    assert_eq!(note(&proxy).await, "");
    let failures = "upbeat_discovery_failures_total{upstream=\"otlp\"}";
    assert_eq!(proxy.metric(failures).await, 0.0);
    let (a, aaaa) = (Some(RecordType::A), Some(RecordType::AAAA));
    for (trouble, only, words) in [
        (Trouble::ServFail, None, "A of tempo.test.: SERVFAIL"),
        (Trouble::ServFail, a, "A of tempo.test.: SERVFAIL"),
        (Trouble::ServFail, aaaa, "AAAA of tempo.test.: SERVFAIL"),
        (Trouble::Silent, aaaa, "AAAA of tempo.test.: no answer"),
    ] {
        let before = proxy.metric(failures).await;
        names.fail(trouble, only);
        let expected = format!("cannot resolve {NAME}: {words}");
        eventually(&expected, async || note(&proxy).await == expected).await;
        eventually("counted", async || proxy.metric(failures).await > before).await;
        assert_eq!(endpoints(&proxy).await, BTreeSet::from(all));
        names.fail(Trouble::None, None);
        eventually("it is well again", async || note(&proxy).await.is_empty()).await;
    }
    // The name is gone, and all of its addresses.
    names.set(NAME, 0, &[]);
    let expected = format!("cannot resolve {NAME}: no such name, or it has no address");
    eventually(&expected, async || note(&proxy).await == expected).await;
    assert_eq!(endpoints(&proxy).await, BTreeSet::from(all));
    assert_eq!(proxy.check().await, 1, "it serves on");
    proxy.stop().await;
}

#[tokio::test]
async fn a_proxy_starts_without_endpoints_and_says_why() {
    let echo = everywhere().await;
    let names = Names::start().await;
    let proxy = quick(&names, echo.address().port()).await;
    let expected =
        "otlp: no endpoints (cannot resolve tempo.test.: no such name, or it has no address)";
    eventually(expected, async || proxy.status().await.services[0].reason == expected).await;
    proxy.wait_not_serving().await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let reply = caller.unary("/test.Echo/Unary", &[0; 5]).await.unwrap();
    assert_eq!(reply.status().unwrap().message, "no healthy endpoint in upstream otlp");

    names.set(NAME, 0, &[ip(1)]);
    proxy.wait_serving().await;
    assert_eq!(note(&proxy).await, "");
    assert_eq!(caller.unary("/test.Echo/Unary", &[0; 5]).await.unwrap().code(), 0);
    let success = "upbeat_discovery_last_success_timestamp_seconds{upstream=\"otlp\"}";
    assert!(proxy.metric(success).await > 1.7e9);
    proxy.stop().await;
}

#[tokio::test]
async fn a_name_of_the_hosts_file_needs_no_server() {
    let echo = everywhere().await;
    let dns = format!("dns: {{ name: localhost, type: a, port: {} }}", echo.address().port());
    let proxy = finding(&dns, TCP).await;
    wait_for(&proxy, &[SocketAddr::new([127, 0, 0, 1].into(), echo.address().port())]).await;
    proxy.wait_serving().await;
    proxy.stop().await;
}

#[tokio::test]
async fn an_answer_is_asked_for_again_when_its_ttl_has_run_out() {
    let names = Names::start().await;
    names.set_alias(NAME, 1, "other.test.");
    names.set("other.test.", 3600, &[ip(1)]);
    let started = Instant::now();
    let dns = format!("name: {NAME}, port: 4317, min_refresh: 10ms, refresh_interval: 1h");
    let proxy = proxy(&names, &dns, "").await;
    eventually("three look-ups", async || names.asked(RecordType::A) >= 3).await;
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}, and the alias holds for one second");
    wait_for(&proxy, &[SocketAddr::new(ip(1), 4317)]).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_long_ttl_is_not_waited_for() {
    let names = Names::start().await;
    names.set(NAME, 3600, &[ip(1)]);
    let proxy = quick(&names, 4317).await;
    eventually("five look-ups", async || names.asked(RecordType::A) >= 5).await;
    proxy.stop().await;
}

#[tokio::test]
async fn srv_records_have_the_ports_and_those_of_a_later_priority_are_backups() {
    let (first, second) = (everywhere().await, everywhere().await);
    let (one, two) = (first.address().port(), second.address().port());
    let names = Names::start().await;
    names.set("a.test.", 0, &[ip(1)]);
    names.set("b.test.", 0, &[ip(2)]);
    let third = everywhere().await;
    let three = third.address().port();
    let backup = (2, three, "a.test.");
    let all = [(1, one, "a.test."), (1, two, "b.test."), (1, 1, "gone.test."), backup];
    names.set_services("_grpc._tcp.tempo.test.", 0, &all);
    let dns = "name: _grpc._tcp.tempo.test, type: srv, min_refresh: 10ms, refresh_interval: 50ms";
    let proxy = proxy(&names, dns, "").await;
    let (a, b) = (SocketAddr::new(ip(1), one), SocketAddr::new(ip(2), two));
    let backup = SocketAddr::new(ip(1), three);
    wait_for(&proxy, &[a, b, backup]).await;
    eventually("all are healthy", async || proxy.status().await.upstreams[0].healthy == 3).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    for _ in 0..20 {
        assert_eq!(caller.unary("/test.Echo/Unary", &[0; 5]).await.unwrap().code(), 0);
    }
    assert!(first.seen().streams.load(SeqCst) > 0 && second.seen().streams.load(SeqCst) > 0);
    assert_eq!(third.seen().streams.load(SeqCst), 0, "it is a backup");
    let status = proxy.status().await;
    let marked = status.upstreams[0].endpoints.iter().filter(|it| it.backup);
    let marked: Vec<_> = marked.map(|it| it.endpoint.clone()).collect();
    assert_eq!(marked, [backup.to_string()]);
    names.fail(Trouble::ServFail, Some(RecordType::A));
    let expected = "cannot resolve _grpc._tcp.tempo.test: A of ";
    eventually(expected, async || note(&proxy).await.starts_with(expected)).await;
    assert_eq!(endpoints(&proxy).await.len(), 3, "a target that cannot be asked for is not gone");
    proxy.stop().await;
}

#[tokio::test]
async fn an_answer_too_long_for_udp_is_asked_for_over_tcp() {
    let names = Names::start().await;
    let ips: Vec<_> = (1..=200).map(ip).collect();
    names.set(NAME, 3600, &ips);
    names.truncate();
    let proxy = proxy(&names, &format!("name: {NAME}, type: a, port: 4317"), "").await;
    let all: Vec<_> = ips.iter().map(|ip| SocketAddr::new(*ip, 4317)).collect();
    wait_for(&proxy, &all).await;
    assert_eq!((names.over_tcp(), names.asked(RecordType::AAAA)), (1, 0));
    proxy.stop().await;
}

/// An empty directory for one test.
fn directory(test: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("upbeat-{}-{test}", process::id()));
    _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

async fn following(path: &Path) -> Proxy {
    let file = format!("file: {{ path: {} }}", path.display());
    finding(&file, TCP).await
}

#[tokio::test]
async fn a_file_is_followed_and_a_bad_one_changes_nothing() {
    let echo = everywhere().await;
    let [a, b, c] = [1, 2, 3].map(|last| SocketAddr::new(ip(last), echo.address().port()));
    let directory = directory("file");
    let path = directory.join("endpoints.yaml");
    let proxy = following(&path).await;
    let expected = format!(
        "otlp: no endpoints (cannot use {}: No such file or directory (os error 2))",
        path.display()
    );
    eventually(&expected, async || proxy.status().await.services[0].reason == expected).await;

    fs::write(&path, format!("- {a}\n- {b}\n")).unwrap();
    wait_for(&proxy, &[a, b]).await;
    proxy.wait_serving().await;
    fs::write(&path, format!("[\"{b}\", \"{c}\"]")).unwrap();
    wait_for(&proxy, &[b, c]).await;
    for (text, why) in [
        ("- tempo:4317\n", "\"tempo:4317\" is not an IP address and port, such as 10.0.0.1:4317"),
        ("", "it lists no endpoint"),
    ] {
        fs::write(&path, text).unwrap();
        let expected = format!("cannot use {}: {why}", path.display());
        eventually(&expected, async || note(&proxy).await == expected).await;
        assert_eq!(endpoints(&proxy).await, BTreeSet::from([b, c]));
    }
    fs::write(&path, format!("- {a}\n")).unwrap();
    wait_for(&proxy, &[a]).await;
    assert_eq!(note(&proxy).await, "");
    proxy.stop().await;
    fs::remove_dir_all(directory).unwrap();
}

/// As the kubelet writes a ConfigMap: a new directory, and then the link to it is moved over the
/// old one.
fn turn(directory: &Path, revision: &str, endpoints: &[SocketAddr]) {
    fs::create_dir(directory.join(revision)).unwrap();
    let lines: String = endpoints.iter().map(|endpoint| format!("- \"{endpoint}\"\n")).collect();
    fs::write(directory.join(revision).join("endpoints.yaml"), lines).unwrap();
    symlink(revision, directory.join("..data_tmp")).unwrap();
    fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
}

#[tokio::test]
async fn a_config_map_that_is_written_anew_is_seen() {
    let [a, b] = [1, 2].map(|last| SocketAddr::new(ip(last), 4317));
    let directory = directory("map");
    turn(&directory, "..2026_01_01", &[a]);
    symlink("..data/endpoints.yaml", directory.join("endpoints.yaml")).unwrap();
    let proxy = following(&directory.join("endpoints.yaml")).await;
    wait_for(&proxy, &[a]).await;
    turn(&directory, "..2026_01_02", &[a, b]);
    fs::remove_dir_all(directory.join("..2026_01_01")).unwrap();
    wait_for(&proxy, &[a, b]).await;
    proxy.stop().await;
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn an_endpoint_that_stays_is_the_same_and_one_that_returns_is_new() {
    let config = Config::parse(&yaml(&[SocketAddr::new(ip(1), 1)], "{ tcp: {} }", ""), |_| None);
    let upstream =
        Upstream::new(&config.unwrap().upstreams[0], &Changes::default(), &Metrics::new());
    let [a, b] = [1, 2].map(|last| SocketAddr::new(ip(last), 1));
    upstream.reconcile(&[a.into(), b.into()]);
    let first = upstream.endpoints();
    first[0].publish(Health::Healthy, "");

    upstream.reconcile(&[b.into()]);
    upstream.reconcile(&[b.into(), a.into()]);
    let now = upstream.endpoints();
    assert!(Arc::ptr_eq(&now[0], &first[1]) && !now[0].is_removed());
    assert!(first[0].is_removed() && !now[1].is_removed());
    assert_eq!(now[1].state().health, Health::Unknown);

    // The last word of a prober that is about to end does not bring it back.
    assert!(!first[0].is_healthy());
    first[0].publish(Health::Unhealthy, "gone");
    first[0].publish(Health::Healthy, "");
    assert!(!first[0].is_healthy());
}
