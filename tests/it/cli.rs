//! The command line as it is typed: the real binary, its exit codes, and what it says.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use http::Method;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::fixture::{
    caller::{Caller, get, http1},
    echo::Echo,
    endpoint::Endpoint,
    eventually,
    program::{Running, command, upbeat},
    proxy::{Proxy, yaml},
    refusing,
};

const MANY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/bad/many.yaml");

/// `upbeat run` with a configuration that logs JSON.
fn run(name: &str, config: &str) -> Running {
    let config = format!("{config}\nlog: {{ format: json }}\n");
    Running::start(&["run", "--config", &file(name, &config)])
}

/// A configuration file; each test has a name of its own for it.
fn file(name: &str, text: &str) -> String {
    let path = format!("{}/{name}.yaml", env!("CARGO_TARGET_TMPDIR"));
    fs::write(&path, text).unwrap();
    path
}

/// A port that is taken for as long as the listener lives.
fn taken() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn check_passes_the_configuration_that_is_shipped() {
    let ended = upbeat(&["check"]).await;
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    assert_eq!(ended.stdout, "config/upbeat.yaml: no problems\n");
}

#[tokio::test]
async fn bad_configuration_is_told_whole_and_exits_78() {
    let problems = include_str!("bad/many.txt");
    let expected = format!("{MANY}: {} problems\n{problems}", problems.lines().count());
    for command in ["check", "run"] {
        let ended = upbeat(&[command, "--config", MANY]).await;
        assert_eq!(ended.code, Some(78), "{command}");
        assert_eq!((&*ended.stdout, &*ended.stderr), ("", &*expected), "{command}");
    }
}

#[tokio::test]
async fn configuration_that_is_missing_is_named() {
    for command in ["check", "run"] {
        let ended = upbeat(&[command, "--config", "/nowhere.yaml"]).await;
        assert_eq!(ended.code, Some(78), "{command}");
        assert!(ended.stderr.contains("/nowhere.yaml: cannot be read: No such file"), "{command}");
    }
}

#[tokio::test]
async fn configuration_takes_values_from_the_environment() {
    let text = yaml(&[refusing()], "{ tcp: {} }", "workers: ${UPBEAT_TEST_WORKERS}");
    let path = file("environment", &text.replacen("workers: 2\n", "", 1));
    for (workers, code) in [("3", 0), ("0", 78)] {
        let mut command = command(&["check", "--config", &path]);
        let output = command.env("UPBEAT_TEST_WORKERS", workers).output().await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
    let ended = upbeat(&["check", "--config", &path]).await;
    assert!(ended.stderr.contains("${UPBEAT_TEST_WORKERS}: is not set"), "{}", ended.stderr);
}

#[tokio::test]
async fn schema_is_json() {
    let ended = upbeat(&["schema"]).await;
    assert_eq!(ended.code, Some(0));
    let schema: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(schema, upbeat::config::schema());
}

#[tokio::test]
async fn help_and_version_are_no_mistakes() {
    for arguments in [&["--help"][..], &["help"], &["run", "--help"], &["probe", "--help"]] {
        let ended = upbeat(arguments).await;
        assert_eq!(ended.code, Some(0), "{arguments:?}");
        assert!(ended.stdout.contains("Usage: upbeat"), "{arguments:?}");
    }
    let ended = upbeat(&["--version"]).await;
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.stdout, concat!("upbeat ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[tokio::test]
async fn usage_errors_exit_2_but_those_of_probe_exit_1() {
    for (arguments, code) in [
        (&[][..], 2),
        (&["walk"], 2),
        (&["run", "--file", "x"], 2),
        (&["demo", "--otlp-port", "70000"], 2),
        (&["status", "a", "b"], 2),
        (&["probe"], 1),
        (&["probe", "127.0.0.1:1", "--timeout", "5"], 1),
        (&["probe", "127.0.0.1:1", "--otlp", "--http", "/ready"], 1),
        (&["probe", "127.0.0.1:1", "--metadata", "no-value"], 1),
    ] {
        let ended = upbeat(arguments).await;
        assert_eq!(ended.code, Some(code), "{arguments:?}");
        assert!(ended.stderr.contains("Usage") || ended.stderr.contains("--help"), "{arguments:?}");
    }
}

#[tokio::test]
async fn probe_exits_0_when_it_is_told_serving() {
    let endpoint = Endpoint::start().await;
    let proxy = Proxy::in_front_of(&[endpoint.otlp()]).await;
    let (grpc, otlp) = (endpoint.grpc().to_string(), endpoint.otlp().to_string());
    let front = proxy.address("otlp").to_string();
    for arguments in [
        &["probe", &grpc][..],
        &["probe", &front],
        &["probe", &otlp, "--otlp"],
        &["probe", &front, "--otlp"],
        &["probe", &front, "--http", "/healthz"],
        &["probe", &front, "--metadata", "x-scope-orgid=health"],
    ] {
        let ended = upbeat(arguments).await;
        assert_eq!((ended.code, &*ended.stdout), (Some(0), "SERVING\n"), "{arguments:?}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn probe_exits_2_when_it_cannot_connect() {
    let nobody = refusing().to_string();
    for arguments in [&["probe", &nobody][..], &["probe", &nobody, "--otlp"]] {
        let ended = upbeat(arguments).await;
        assert_eq!(ended.code, Some(2), "{arguments:?}");
        assert!(ended.stderr.contains(&nobody), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn probe_exits_3_when_the_answer_is_an_error() {
    let endpoint = Endpoint::start().await;
    let grpc = endpoint.grpc().to_string();
    for (arguments, said) in [
        (&["probe", &*grpc, "--service", "unknown"][..], "NOT_FOUND"),
        (&["probe", &grpc, "--otlp"], "UNIMPLEMENTED"),
        (&["probe", &grpc, "--http", "/ready"], "HTTP"),
    ] {
        let ended = upbeat(arguments).await;
        assert_eq!(ended.code, Some(3), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{arguments:?}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn probe_gives_up_on_a_silent_server_after_its_timeout() {
    let (_silent, address) = taken();
    let address = address.to_string();
    for more in [&[][..], &["--otlp"], &["--http", "/ready"]] {
        let started = Instant::now();
        let ended = upbeat(&[&["probe", &address, "--timeout", "100ms"], more].concat()).await;
        assert_eq!(ended.code, Some(3), "{more:?}: {}", ended.stderr);
        assert_eq!(ended.stderr, "no answer within 100ms\n", "{more:?}");
        // Far from the default of 1 s for each half of it.
        assert!(started.elapsed() >= Duration::from_millis(100), "{more:?}");
    }
}

#[tokio::test]
async fn probe_exits_4_when_it_is_told_not_serving() {
    let proxy = Proxy::start(&yaml(&[refusing()], "{ tcp: {} }", "")).await;
    proxy.wait_not_serving().await;
    let address = proxy.address("otlp").to_string();
    for more in [&[][..], &["--http", "/healthz"]] {
        let ended = upbeat(&[&["probe", &address], more].concat()).await;
        assert_eq!(ended.code, Some(4), "{more:?}");
        assert!(ended.stderr.contains("NOT_SERVING"), "{more:?}: {}", ended.stderr);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn status_shows_services_and_endpoints_with_reasons() {
    let up = Echo::start().await;
    let down = refusing();
    let more = "health: { services: { traces: { all: [otlp] } } }";
    let config = yaml(&[up.address(), down], "{ tcp: {} }", more);
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    let admin = proxy.admin().to_string();
    let row = |table: &str, name: &str| -> Vec<String> {
        let line = table.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        let cells = line.split("  ").map(|cell| cell.trim().to_owned());
        cells.filter(|cell| !cell.is_empty()).collect()
    };
    eventually("the refusing endpoint is unhealthy", async || {
        upbeat(&["status", "--admin", &admin]).await.stdout.contains("unhealthy")
    })
    .await;
    let ended = upbeat(&["status", "--admin", &admin]).await;
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    let table = &ended.stdout;
    assert_eq!(row(table, "SERVICE"), ["SERVICE", "STATUS", "SINCE", "WHY"]);
    assert_eq!(row(table, "\"\" (overall)")[1], "SERVING");
    assert_eq!(row(table, "traces")[1], "SERVING");
    assert_eq!(row(table, &format!("otlp/{}", up.address()))[1], "healthy");
    let why = row(table, &format!("otlp/{down}"));
    assert_eq!(why[1], "unhealthy");
    assert!(why[3].contains("connection refused"), "{why:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn status_says_when_there_is_no_admin_server() {
    let nobody = refusing().to_string();
    let ended = upbeat(&["status", "--admin", &nobody]).await;
    assert_eq!(ended.code, Some(1));
    let expected = format!("cannot connect to {nobody}; is the proxy running?");
    assert!(ended.stderr.contains(&expected), "{}", ended.stderr);

    let proxy = Proxy::start(&yaml(&[refusing()], "{ tcp: {} }", "")).await;
    let traffic = proxy.address("otlp").to_string();
    let ended = upbeat(&["status", "--admin", &traffic]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains(&format!("{traffic} answered 404")), "{}", ended.stderr);
    proxy.stop().await;
}

#[tokio::test]
async fn run_names_every_port_that_is_taken() {
    let (_a, listener) = taken();
    let (_b, admin) = taken();
    let config = yaml(&[refusing()], "{ tcp: {} }", "");
    let config = config.replacen("127.0.0.1:0", &listener.to_string(), 1);
    let config = config.replacen("127.0.0.1:0", &admin.to_string(), 1);
    let ended = upbeat(&["run", "--config", &file("taken", &config)]).await;
    assert_eq!(ended.code, Some(1));
    let said: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains(&format!("cannot listen on {listener}: address in use")), "{said:?}");
    assert!(said[0].ends_with("change the address of listener \"otlp\""), "{said:?}");
    assert!(said[1].contains(&format!("cannot listen on {admin}: address in use")), "{said:?}");
    assert!(said[1].ends_with("change admin.address"), "{said:?}");
}

#[tokio::test]
async fn run_drains_and_exits_0_on_sigterm() {
    let mut run = run("sigterm", &yaml(&[refusing()], "{ tcp: {} }", ""));
    let listening = run.logged("listening").await;
    assert_eq!(listening["listener"], "otlp");
    let admin = run.logged("admin listening").await;
    let admin: SocketAddr = admin["address"].as_str().unwrap().parse().unwrap();
    eventually("alive", async || get(admin, "/livez").await.0 == 200).await;
    run.signal("TERM");
    assert_eq!(run.logged("draining").await["signal"], "SIGTERM");
    run.logged("drained").await;
    assert_eq!(run.ends().await, Some(0));
}

#[tokio::test]
async fn second_signal_ends_a_long_drain_at_once() {
    let config = yaml(&[refusing()], "{ tcp: {} }", "");
    let mut run = run("second_signal", &config.replace("delay: 0s", "delay: 1h"));
    let listening = run.logged("listening").await;
    let address: SocketAddr = listening["address"].as_str().unwrap().parse().unwrap();
    eventually("answers", async || get(address, "/healthz").await.0 == 503).await;
    run.signal("TERM");
    run.logged("NOT_SERVING; still accepting").await;
    assert_eq!(get(address, "/livez").await.0, 200, "accepts while it drains");
    run.signal("INT");
    run.logged("drain cut").await;
    assert_eq!(run.ends().await, Some(0), "no stream was open");
}

#[tokio::test]
async fn drain_that_cuts_a_call_exits_1() {
    let echo = Echo::start().await;
    let config = yaml(&[echo.address()], "{ tcp: {} }", "");
    let mut run = run("cut", &config.replace("timeout: 2s", "timeout: 50ms"));
    let listening = run.logged("listening").await;
    let address: SocketAddr = listening["address"].as_str().unwrap().parse().unwrap();
    eventually("serves", async || get(address, "/healthz").await.0 == 200).await;
    let mut caller = Caller::connect(address).await;
    let _call = caller.open("/test.Echo/Hang").await.unwrap();
    eventually("the call arrives", async || {
        echo.seen().open.load(std::sync::atomic::Ordering::SeqCst) == 1
    })
    .await;
    run.signal("TERM");
    assert_eq!(run.logged("drain was cut").await["open"], 1);
    assert_eq!(run.ends().await, Some(1));
}

#[tokio::test]
async fn json_logs_are_one_object_a_line() {
    let mut run = run("json_logs", &yaml(&[refusing()], "{ tcp: {} }", ""));
    // `logged` reads every line up to this one as JSON.
    let changed = run.logged("endpoint health changed").await;
    assert_eq!(changed["level"], "WARN");
    assert_eq!((&changed["from"], &changed["to"]), (&"unknown".into(), &"unhealthy".into()));
    assert!(changed["timestamp"].as_str().unwrap().ends_with('Z'), "{changed}");
    assert!(changed["reason"].as_str().unwrap().contains("connection refused"), "{changed}");
    run.signal("TERM");
    assert_eq!(run.ends().await, Some(0));
}

#[tokio::test]
async fn a_quiet_log_changes_nothing_else() {
    let echo = Echo::start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = yaml(&[echo.address()], "{ tcp: {} }", "log: { level: error }");
    let config = file("quiet_log", &config.replacen("127.0.0.1:0", &free.to_string(), 1));
    let run = Running::start(&["run", "--config", &config]);
    eventually("it serves", async || upbeat(&["probe", &free.to_string()]).await.code == Some(0))
        .await;
    run.signal("TERM");
    assert_eq!(run.ends().await, Some(0));
}

#[tokio::test]
async fn text_logs_name_the_level_and_the_listener() {
    let config = file("text_logs", &yaml(&[refusing()], "{ tcp: {} }", "log: { level: info }"));
    let mut run = Running::start(&["run", "--config", &config]);
    let mut next = async || timeout(PATIENCE, run.stderr.next_line()).await.unwrap().unwrap();
    let workers = next().await.unwrap();
    assert!(workers.contains(" INFO ") && workers.contains("buffer="), "{workers}");
    let line = next().await.unwrap();
    assert!(line.contains(" INFO ") && line.contains("listener=\"otlp\""), "{line}");
    assert!(!line.contains('\u{1b}'), "no colours where nobody looks: {line:?}");
}

/// Every port of the demo, each free.
const FREE: [&str; 11] = [
    "demo",
    "--otlp-port",
    "0",
    "--tempo-port",
    "0",
    "--health-port",
    "0",
    "--admin-port",
    "0",
    "--control-port",
    "0",
];

#[tokio::test]
async fn demo_shows_health_flip_and_says_how() {
    let mut demo = Running::start(&FREE);
    let said = demo.says("Ctrl-C ends it.").await;
    let address = |name: &str| {
        let line = said.lines().find(|line| line.trim_start().starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {said}"));
        line.split_whitespace().last().unwrap().to_owned()
    };
    let [otlp, tempo, health, admin] = ["otlp", "tempo", "health", "admin"].map(address);
    let fail = said.split_whitespace().find(|word| word.ends_with("/fail/all")).unwrap();
    let control: SocketAddr =
        fail.strip_prefix("http://").unwrap().strip_suffix("/fail/all").unwrap().parse().unwrap();
    assert!(said.contains(&format!("curl -i http://{otlp}/grpc.health.v1.Health/Check")));
    assert!(said.contains(&format!("upbeat probe {otlp}")));
    assert!(said.contains(&format!("upbeat status --admin {admin}")));

    for address in [&otlp, &tempo, &health] {
        eventually("the demo serves", async || upbeat(&["probe", address]).await.code == Some(0))
            .await;
    }
    eventually("spans arrive", async || {
        let (_, state) = get(control, "/").await;
        // Each of the few calls goes to either, so one of the two may get none for a while.
        state.contains("distributor 1: up, ") && state.matches(", 0 spans received").count() < 2
    })
    .await;
    let ended = upbeat(&["status", "--admin", &admin]).await;
    assert!(ended.stdout.contains("opentelemetry.proto.collector.trace.v1.TraceService"));

    let reply = http1(control, Method::POST, "/fail/all").await;
    assert_eq!(reply.status(), 200);
    let (_, state) = get(control, "/").await;
    assert_eq!(state.matches("failing, back in ").count(), 2, "{state}");
    for address in [&otlp, &tempo, &health] {
        eventually("it fails", async || upbeat(&["probe", address]).await.code == Some(4)).await;
    }

    demo.signal("INT");
    assert_eq!(demo.ends().await, Some(0));
}

#[tokio::test]
async fn demo_says_which_port_is_taken_and_how_to_choose_others() {
    let (_held, address) = taken();
    let port = address.port().to_string();
    for (at, flag) in FREE.iter().enumerate().filter(|(_, it)| it.starts_with("--")) {
        let mut arguments = FREE;
        arguments[at + 1] = &port;
        let ended = upbeat(&arguments).await;
        assert_eq!(ended.code, Some(1), "{flag}");
        assert!(ended.stderr.contains(&port), "{flag}: {}", ended.stderr);
        assert!(ended.stderr.contains("choose other ports with --otlp-port"), "{}", ended.stderr);
        assert!(ended.stderr.contains(flag), "{flag}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{flag}");
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
