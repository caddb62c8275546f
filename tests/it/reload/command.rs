//! What the command line and the admin server tell of it, and SIGHUP.

use std::fs;

use http::StatusCode;
use serde_json::Value;

use super::{ANY, Live, config, directory, write};
use crate::fixture::{
    caller::{Caller, get},
    echo::Echo,
    program::{Running, upbeat},
    proxy::{CHECK, Proxy},
    refusing,
};

#[tokio::test]
async fn check_tells_what_would_change_in_the_running_proxy() {
    let echo = Echo::start().await;
    let ends = [echo.address()];
    let before = config(&[("otlp", ANY, "otlp")], &[("old", &ends), ("otlp", &ends)], "");
    let live = Live::start("against", &before).await;
    let admin = live.proxy.admin().to_string();
    let file = live.file.with_file_name("next.yaml").to_str().unwrap().to_owned();
    let arguments = ["check", "--config", &file, "--against-running", "--admin", &admin];

    fs::write(&file, format!("# The same.\n{before}")).unwrap();
    let ended = upbeat(&arguments).await;
    let said = format!("{file}: no problems\nnothing would change\n");
    assert_eq!((ended.code, ended.stdout), (Some(0), said), "{}", ended.stderr);

    let address = echo.address();
    let after =
        config(&[("otlp", ANY, "otlp"), ("extra", "127.0.0.1:1", "otlp")], &[("otlp", &ends)], "");
    let probe = "{ checks: [{ tcp: {} }], interval: 300ms, timeout: 290ms }";
    let old = format!("- upstreams.old: {{ endpoints: [{address}], probe: {probe} }}\n");
    let extra = "+ listeners.extra: { address: 127.0.0.1:1, name: extra, upstream: otlp }\n";
    fs::write(&file, after.replace("interval: 300ms", "interval: 10s")).unwrap();
    let ended = upbeat(&arguments).await;
    let interval = "~ upstreams.otlp.probe.interval: 300ms -> 10s\n";
    let said = format!(
        "{file}: no problems\n{extra}{old}{interval}3 changes, which a reload would apply\n"
    );
    assert_eq!((ended.code, ended.stdout), (Some(0), said), "{}", ended.stderr);

    fs::write(&file, before.replace("workers: 2", "workers: 4")).unwrap();
    let ended = upbeat(&arguments).await;
    assert_eq!(ended.code, Some(0));
    let said = "~ workers: 2 -> 4 (needs a restart)\n1 to change, and a reload would refuse all: 1 need a restart\n";
    assert!(ended.stdout.ends_with(said), "{}", ended.stdout);

    // Asked where the file has it.
    let there = before
        .replace("address: \"127.0.0.1:0\" }\ndrain", &format!("address: \"{admin}\" }}\ndrain"));
    fs::write(&file, there).unwrap();
    let ended = upbeat(&["check", "--config", &file, "--against-running"]).await;
    assert!(ended.stdout.contains("admin.address"), "{} {}", ended.stdout, ended.stderr);

    fs::write(&file, "listeners: []").unwrap();
    assert_eq!(upbeat(&arguments).await.code, Some(78));
    fs::write(&file, before).unwrap();
    let nobody = refusing().to_string();
    let ended =
        upbeat(&["check", "--config", &file, "--against-running", "--admin", &nobody]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains(&nobody), "{}", ended.stderr);
    live.stop().await;
}

#[tokio::test]
async fn the_running_configuration_is_shown_without_its_secrets() {
    let echo = Echo::start().await;
    let text = config(&[("otlp", ANY, "otlp")], &[("otlp", &[echo.address()])], "");
    let check = "{ grpc: { metadata: { authorization: hush, x-scope-orgid: seen } } }";
    let proxy = Proxy::start(&text.replace("{ tcp: {} }", check)).await;
    let (status, body) = get(proxy.admin(), "/config").await;
    assert_eq!(status, StatusCode::OK);
    let shown: Value = serde_json::from_str(&body).unwrap();
    let metadata = &shown["upstreams"]["otlp"]["probe"]["checks"][0]["grpc"]["metadata"];
    assert_eq!(
        (&metadata["authorization"], &metadata["x-scope-orgid"]),
        (&"***".into(), &"seen".into())
    );
    assert_eq!((&shown["workers"], &shown["log"]["level"]), (&2.into(), &"info".into()));
    assert!(!body.contains("hush"), "{body}");
    proxy.stop().await;
}

#[tokio::test]
async fn sighup_reads_the_file_and_a_bad_one_ends_nothing() {
    let echo = Echo::start().await;
    let file = directory("sighup").join("upbeat.yaml");
    let more = "log: { format: json }\n";
    let good = config(&[("otlp", ANY, "otlp")], &[("otlp", &[echo.address()])], more);
    let good = good.replace("interval: 5ms", "watch: false");
    write(&file, &good);
    let mut running = Running::start(&["run", "--config", file.to_str().unwrap()]);
    let address = running.logged("listening").await["address"].as_str().unwrap().to_owned();
    running.logged("admin listening").await;

    running.signal("HUP");
    running.logged("the configuration is the one that runs").await;
    write(&file, &good.replace("workers: 2", "workers: 3"));
    running.signal("HUP");
    let refused = running.logged("configuration refused: the one that runs stays").await;
    let words =
        "workers: 2 cannot become 3 while the process runs: restart it, or take workers back";
    assert_eq!(refused["problem"], words);
    write(&file, "listeners: []\nnonsense: 1");
    running.signal("HUP");
    for problem in ["at least one upstream", "at least one listener", "nonsense: unknown key"] {
        let refused = running.logged("configuration refused: the one that runs stays").await;
        assert!(refused["problem"].as_str().unwrap().contains(problem), "{refused}");
    }
    write(&file, &good.replace("interval: 300ms", "interval: 400ms"));
    running.signal("HUP");
    let changed = running.logged("configuration changed").await;
    assert_eq!(changed["key"], "upstreams.otlp.probe.interval");
    assert_eq!((&changed["from"], &changed["to"]), (&"300ms".into(), &"400ms".into()));
    running.logged("configuration applied").await;
    let mut caller = Caller::connect(address.parse().unwrap()).await;
    assert_eq!(caller.unary(CHECK, &[0; 5]).await.unwrap().code(), 0);
    running.signal("TERM");
    assert_eq!(running.ends().await, Some(0));
}
