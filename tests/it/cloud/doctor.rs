//! The doctor of `upbeat cloud` finds each disagreement, and nothing where there is none.

use super::{CLOUDS, WELL, cloud, file};

/// What is wrong, for whom, how it is said, and what mends it: edits of `WELL`, and arguments.
struct Case {
    name: &'static str,
    clouds: &'static [&'static str],
    broken: Side,
    said: &'static [&'static str],
    mended: Side,
}

type Side = (&'static [(&'static str, &'static str)], &'static [&'static str]);

const ALL: &[&str] = &CLOUDS;
const GOOGLE: &[&str] = &["gke", "gcp"];
const AWS: &[&str] = &["aws"];
const PODS: &[&str] = &["gke", "kubernetes"];
const OUTSIDE: &[&str] = &["gke", "gcp", "aws", "azure"];
const OTHER: (&str, &str) = (
    "upstreams:",
    "upstreams:\n  tempo: { endpoints: [\"10.0.0.1:9095\"], probe: { checks: [{ tcp: {} }] } }",
);
const SHARED: (&str, &str) = ("all: [otlp]", "all: [otlp, tempo]");
const STATUS: (&str, &str) = ("ELB-HealthChecker: message", "ELB-HealthChecker: status");

const CASES: [Case; 19] = [
    Case {
        name: "loopback",
        clouds: ALL,
        broken: (&[("0.0.0.0:4317", "127.0.0.1:4317")], &[]),
        said: &["error: listener \"otlp\" is on 127.0.0.1:4317", "address: \"0.0.0.0:4317\""],
        mended: (&[("0.0.0.0:4317", "10.0.0.9:4317")], &[]),
    },
    Case {
        name: "port-zero",
        clouds: ALL,
        broken: (&[("0.0.0.0:8080", "[::]:0")], &[]),
        said: &["error: listener \"health\" is on [::]:0, another port at every start"],
        mended: (&[("0.0.0.0:8080", "[::]:8080")], &[]),
    },
    Case {
        name: "tls",
        clouds: ALL,
        broken: (&[], &["--backend-tls"]),
        said: &["error: the balancer speaks TLS", "kubernetes.io/h2c"],
        mended: (&[], &[]),
    },
    Case {
        name: "idle-timeout-google",
        clouds: GOOGLE,
        broken: (&[("idle_timeout: 620s", "idle_timeout: 600s")], &[]),
        said: &["error: listener \"otlp\" closes connections after 10m", "idle_timeout: 620s"],
        mended: (&[("idle_timeout: 620s", "idle_timeout: 601s")], &[]),
    },
    Case {
        name: "idle-timeout-aws",
        clouds: AWS,
        broken: (&[("idle_timeout: 620s", "idle_timeout: 60s")], &[]),
        said: &["error: listener \"otlp\" closes connections after 1m", "idle_timeout: 80s"],
        mended: (&[("idle_timeout: 620s", "idle_timeout: 80s")], &[]),
    },
    Case {
        name: "max-connections",
        clouds: GOOGLE,
        broken: (&[("max_connections: 10000", "max_connections: 255")], &[]),
        said: &["warning: listener \"otlp\" takes 255 connections", "max_connections: 256"],
        mended: (&[("max_connections: 10000", "max_connections: 256")], &[]),
    },
    Case {
        name: "success-code-that-any-tempo-passes",
        clouds: AWS,
        broken: (&[STATUS], &["--success-codes", "2"]),
        said: &["error: ", "which success codes 2 fail; 2 passes for any Tempo that lives"],
        mended: (&[STATUS], &["--success-codes", "0"]),
    },
    Case {
        name: "success-code-by-message",
        clouds: AWS,
        broken: (&[], &["--success-codes", "0"]),
        said: &["error: ", "an ALB reads the code alone", "ELB-HealthChecker: status"],
        mended: (&[], &["--success-codes", "12"]),
    },
    Case {
        name: "success-codes-that-pass-all",
        clouds: AWS,
        broken: (&[STATUS], &["--success-codes", "0-99"]),
        said: &["error: ", "which success codes 0-99 pass: dead instances stay healthy"],
        mended: (&[STATUS], &["--success-codes", "0,12"]),
    },
    Case {
        name: "shared-state",
        clouds: GOOGLE,
        broken: (&[OTHER, SHARED], &[]),
        said: &[
            "warning: listener \"otlp\" is judged by the overall state:",
            "otlp: { all: [\"otlp\"] }",
        ],
        mended: (&[OTHER, ("all: [otlp]", "all: [otlp, tempo] }, otlp: { all: [otlp]")], &[]),
    },
    Case {
        name: "shared-state-without-names",
        clouds: &["aws", "azure"],
        broken: (&[OTHER, ("all: [otlp]", "all: [otlp, tempo] }, otlp: { all: [otlp]")], &[]),
        said: &["warning: ", "gRPC check names no service", "one Upbeat for each upstream"],
        mended: (&[OTHER], &[]),
    },
    Case {
        name: "no-traffic",
        clouds: ALL,
        broken: (&[(", upstream: otlp, health", ", health")], &[]),
        said: &["warning: no listener has an upstream"],
        mended: (&[], &[]),
    },
    Case {
        name: "health-port-of-nobody",
        clouds: ALL,
        broken: (&[], &["--health-port", "4318"]),
        said: &["error: port 4318 is checked, but no listener", "--health-port 4317 or 8080"],
        mended: (&[], &["--health-port", "8080"]),
    },
    Case {
        name: "health-port-of-a-backend",
        clouds: ALL,
        broken: (&[], &["--health-port", "3200"]),
        said: &["error: port 3200 is checked, which is upstream \"otlp\"'s", "UNIMPLEMENTED"],
        mended: (&[], &["--health-port", "4317"]),
    },
    Case {
        name: "endpoint-in-the-pod",
        clouds: PODS,
        broken: (&[("10.0.0.1:14317", "127.0.0.1:14317")], &[]),
        said: &["warning: upstream \"otlp\" has the endpoint 127.0.0.1:14317"],
        mended: (&[], &[]),
    },
    Case {
        name: "interval",
        clouds: &["aws", "azure"],
        broken: (&[], &["--interval", "4s"]),
        said: &["error: the balancer is told to check every 4s", "--interval 5s"],
        mended: (&[], &["--interval", "5s"]),
    },
    Case {
        name: "drain-delay",
        clouds: OUTSIDE,
        broken: (&[], &["--interval", "8s"]),
        said: &[
            "error: drain.delay is 15s, shorter than the 8s × 2",
            "{ delay: 16s, timeout: 30s }",
        ],
        mended: (&[("delay: 15s", "delay: 16s")], &["--interval", "8s"]),
    },
    Case {
        name: "drain-delay-in-kubernetes",
        clouds: &["kubernetes"],
        broken: (&[("delay: 15s", "delay: 5s")], &[]),
        said: &[
            "warning: drain.delay is 5s, shorter than the 5s × 2",
            "{ delay: 10s, timeout: 30s }",
        ],
        mended: (&[("delay: 15s", "delay: 10s")], &[]),
    },
    Case {
        name: "grace-period",
        clouds: ALL,
        broken: (&[], &["--grace-period", "30s"]),
        said: &["error: the process is killed 30s after", "--grace-period 50s", "timeout: 15s }"],
        mended: (&[("timeout: 30s", "timeout: 15s")], &["--grace-period", "30s"]),
    },
];

/// What `upbeat cloud NAME --strict` says of an edited `WELL`.
fn examined(case: &Case, name: &str, side: Side) -> (Option<i32>, String) {
    let (edits, arguments) = side;
    let edit = |text: String, (from, to): &(&str, &str)| {
        assert!(text.contains(from), "{}: {from}", case.name);
        text.replacen(from, to, 1)
    };
    let text = edits.iter().fold(WELL.to_owned(), edit);
    let path = file(&format!("{name}-{}", case.name), &text);
    let (code, printed, found) =
        cloud(&[&[name, "--strict", "--config", &path], arguments].concat());
    assert!(!printed.is_empty(), "{}: {found}", case.name);
    (code, found)
}

#[test]
fn each_disagreement_is_found_and_what_is_written_mends_it() {
    for case in &CASES {
        for name in case.clouds {
            let (code, found) = examined(case, name, case.broken);
            for said in case.said {
                assert!(found.contains(said), "{name}, {}: {said}\n{found}", case.name);
            }
            let error = found.lines().any(|line| line.starts_with("error: "));
            assert_eq!(code, Some(i32::from(error)), "{name}, {}: {found}", case.name);
            assert_eq!(found.lines().count(), 2, "{name}, {}: one only\n{found}", case.name);
            let (code, found) = examined(case, name, case.mended);
            assert_eq!((code, &*found), (Some(0), ""), "{name}, {}", case.name);
        }
    }
}

#[test]
fn findings_alone_are_no_failure() {
    let path = file("well", WELL);
    for name in CLOUDS {
        let (code, _, found) = cloud(&[name, "--config", &path, "--health-port", "1"]);
        assert_eq!(code, Some(0), "{name}");
        assert!(found.starts_with("error: "), "{name}: {found}");
    }
}
