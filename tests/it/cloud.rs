//! `upbeat cloud`: what it prints parses and says what the configuration says, and `config/deploy`
//! is what it prints.

mod doctor;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde::Deserialize;
use serde_json::Value;

/// Runs `upbeat cloud`: exit code, standard output, standard error.
fn cloud(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upbeat"));
    let output = command.arg("cloud").args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A configuration file; each test has a name of its own for it.
fn file(name: &str, text: &str) -> String {
    let path = format!("{}/cloud-{name}.yaml", env!("CARGO_TARGET_TMPDIR"));
    fs::write(&path, text).unwrap();
    path
}

/// Manifests by kind and name.
fn manifests(text: &str) -> BTreeMap<String, Value> {
    let documents = serde_yaml::Deserializer::from_str(text);
    let documents = documents.map(|document| Value::deserialize(document).unwrap());
    // A comment before the first `---` is a document to some.
    let documents = documents.filter(|document| !document.is_null());
    let name = |it: &Value| {
        assert!(it["apiVersion"].is_string(), "{it}");
        format!("{}/{}", it["kind"].as_str().unwrap(), it["metadata"]["name"].as_str().unwrap())
    };
    documents.map(|document| (name(&document), document)).collect()
}

fn printed(arguments: &[&str]) -> BTreeMap<String, Value> {
    manifests(&cloud(arguments).1)
}

/// Nothing in it disagrees with any balancer.
const WELL: &str = r#"
listeners:
  - { name: otlp, address: "0.0.0.0:4317", upstream: otlp, health: { not_serving_as_for: { ELB-HealthChecker: message } } }
  - { name: health, address: "0.0.0.0:8080" }
upstreams:
  otlp:
    endpoints: ["10.0.0.1:14317"]
    probe: { checks: [{ http: { port: 3200 } }] }
health: { services: { "": { all: [otlp] } } }
limits: { idle_timeout: 620s, max_connections: 10000 }
drain: { delay: 15s, timeout: 30s }
"#;

const CLOUDS: [&str; 5] = ["gke", "gcp", "aws", "azure", "kubernetes"];

/// Every language of every cloud, and the configuration that its example is made of.
const DEPLOY: [(&str, &str, &str, &str); 8] = [
    ("gke.yaml", "gke", "yaml", "config/examples/gcp-load-balancer.yaml"),
    ("gcp.sh", "gcp", "shell", "config/examples/gcp-load-balancer.yaml"),
    ("gcp.tf", "gcp", "terraform", "config/examples/gcp-load-balancer.yaml"),
    ("aws.yaml", "aws", "yaml", "config/examples/aws-alb.yaml"),
    ("aws.tf", "aws", "terraform", "config/examples/aws-alb.yaml"),
    ("azure.yaml", "azure", "yaml", "config/upbeat.yaml"),
    ("azure.sh", "azure", "shell", "config/upbeat.yaml"),
    ("kubernetes.yaml", "kubernetes", "yaml", "config/upbeat.yaml"),
];

#[test]
fn deploy_examples_are_what_the_command_prints() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/deploy");
    for (name, cloud_name, language, config) in DEPLOY {
        let (code, printed, found) = cloud(&[cloud_name, "--as", language, "--config", config]);
        assert_eq!(code, Some(0), "{name}");
        assert!(found.is_empty() || config == "config/upbeat.yaml", "{name}: {found}");
        let shipped = fs::read_to_string(folder.join(name)).unwrap();
        let command = printed.lines().next().unwrap().trim_start_matches("# ");
        assert!(shipped == printed, "write: {command} > config/deploy/{name}");
    }
    assert_eq!(fs::read_dir(folder).unwrap().count(), DEPLOY.len(), "no example goes untested");
}

#[test]
fn no_placeholder_is_left_and_the_first_language_is_the_default() {
    for (name, cloud_name, language, config) in DEPLOY {
        let (_, printed, _) = cloud(&[cloud_name, "--as", language, "--config", config]);
        assert!(!printed.contains('@'), "{name}");
        let (_, default, _) = cloud(&[cloud_name, "--config", config]);
        let first = ["gke.yaml", "gcp.sh", "aws.yaml", "azure.yaml", "kubernetes.yaml"];
        assert_eq!(default == printed, first.contains(&name), "{name}");
    }
}

#[test]
fn gke_checks_each_port_by_its_own_service() {
    let printed = printed(&["gke", "--config", "config/examples/gcp-load-balancer.yaml"]);
    assert_eq!(printed.len(), 8, "{:?}", printed.keys());
    for (name, port) in [("otlp", 4317), ("tempo", 9095)] {
        let service = &printed[&format!("Service/upbeat-{name}")]["spec"]["ports"][0];
        assert_eq!(service["port"], port);
        assert_eq!(service["appProtocol"], "kubernetes.io/h2c");
        let policy = &printed[&format!("HealthCheckPolicy/upbeat-{name}")]["spec"];
        assert_eq!(policy["targetRef"]["name"], format!("upbeat-{name}"));
        let check = &policy["default"]["config"];
        assert_eq!(check["type"], "GRPC");
        assert_eq!(check["grpcHealthCheck"]["portSpecification"], "USE_FIXED_PORT");
        assert_eq!(check["grpcHealthCheck"]["port"], port);
        assert_eq!(check["grpcHealthCheck"]["grpcServiceName"], name);
        let backend = &printed[&format!("GCPBackendPolicy/upbeat-{name}")]["spec"]["default"];
        assert_eq!(backend["connectionDraining"]["drainingTimeoutSec"], 30);
        let ingress = &printed[&format!("BackendConfig/upbeat-{name}")]["spec"];
        assert_eq!(ingress["healthCheck"]["requestPath"], format!("/readyz?service={name}"));
        assert_eq!(ingress["healthCheck"]["port"], 4317, "there is no port for health alone");
    }
}

#[test]
fn gcp_opens_the_firewall_to_probers_and_speaks_h2c() {
    let path = file("gcp", WELL);
    let (_, shell, _) = cloud(&["gcp", "--config", &path, "--interval", "7s"]);
    let parsed = Command::new("sh").args(["-n", "-c", &shell]).status().unwrap();
    assert!(parsed.success());
    for flag in [
        "--source-ranges=35.191.0.0/16,130.211.0.0/22",
        "--rules=tcp:4317 ",
        "health-checks create grpc upbeat-otlp",
        "--port=4317 ",
        "--check-interval=7s",
        "--unhealthy-threshold=2",
        "--protocol=H2C",
        "--connection-draining-timeout=30s",
    ] {
        assert!(format!("{shell} ").replace('\n', " ").contains(flag), "{flag}\n{shell}");
    }
    assert!(!shell.contains("grpc-service-name"), "the overall state is otlp's own");
    let (_, hcl, _) = cloud(&["gcp", "--as", "terraform", "--config", &path]);
    for line in [
        "source_ranges = [\"35.191.0.0/16\", \"130.211.0.0/22\"]",
        "resource \"google_compute_health_check\" \"upbeat_otlp\"",
        "protocol                        = \"H2C\"",
        "port               = 4317",
    ] {
        assert!(hcl.contains(line), "{line}\n{hcl}");
    }
    assert_eq!(hcl.matches('{').count(), hcl.matches('}').count());
}

#[test]
fn aws_prints_the_recipe_that_tells_the_truth() {
    let by_status = WELL.replace("ELB-HealthChecker: message", "ELB-HealthChecker: status");
    for (name, config, path, codes) in [
        ("status", &*by_status, "/grpc.health.v1.Health/Check", "0"),
        ("message", WELL, "/AWS.ALB/healthcheck", "12"),
    ] {
        let config = file(&format!("aws-{name}"), config);
        let (_, text, findings) = cloud(&["aws", "--config", &config]);
        assert_eq!(findings, "", "{name}");
        assert!(text.contains("success code 2") && text.contains("status by default"));
        let ingress = &manifests(&text)["Ingress/upbeat-otlp"];
        let annotation = |key: &str| {
            let annotations = &ingress["metadata"]["annotations"];
            annotations[format!("alb.ingress.kubernetes.io/{key}")].as_str().unwrap().to_owned()
        };
        assert_eq!(annotation("backend-protocol"), "HTTP");
        assert_eq!(annotation("backend-protocol-version"), "GRPC");
        assert_eq!(annotation("healthcheck-port"), "traffic-port");
        assert_eq!(annotation("healthcheck-path"), path);
        assert_eq!(annotation("success-codes"), codes);
        assert_eq!(annotation("healthcheck-interval-seconds"), "5");
        assert_eq!(annotation("unhealthy-threshold-count"), "2");
        let (_, hcl, _) = cloud(&["aws", "--as", "terraform", "--config", &config]);
        assert!(hcl.contains(&format!("path                = \"{path}\"")), "{hcl}");
        assert!(hcl.contains(&format!("matcher             = \"{codes}\"")), "{hcl}");
        assert!(hcl.contains("protocol_version     = \"GRPC\""), "{hcl}");
    }
}

#[test]
fn azure_gets_what_its_two_balancers_can_speak() {
    let path = file("azure", WELL);
    let printed = printed(&["azure", "--config", &path]);
    let policy = &printed["HealthCheckPolicy/upbeat-otlp"]["spec"]["default"];
    assert_eq!((&policy["port"], &policy["grpc"]), (&4317.into(), &serde_json::json!({})));
    assert_eq!((&policy["interval"], &policy["useTLS"]), (&"5s".into(), &false.into()));
    let (_, shell, _) = cloud(&["azure", "--as", "shell", "--config", &path]);
    assert!(Command::new("sh").args(["-n", "-c", &shell]).status().unwrap().success());
    for flag in ["--protocol Http ", "--port 8080 ", "--path '/readyz' ", "--probe-threshold 2"] {
        assert!(shell.contains(flag), "{flag}\n{shell}");
    }
}

#[test]
fn kubernetes_gives_the_drain_its_time() {
    let path = file("kubernetes", WELL);
    let printed = printed(&["kubernetes", "--config", &path]);
    for kind in ["PodDisruptionBudget/upbeat", "HorizontalPodAutoscaler/upbeat"] {
        assert!(printed.contains_key(kind), "{kind}");
    }
    assert_eq!(printed["ConfigMap/upbeat"]["data"]["upbeat.yaml"], WELL, "as it was written");
    assert_eq!(printed["Service/upbeat-otlp"]["spec"]["ports"][0]["targetPort"], 4317);
    let pod = &printed["Deployment/upbeat"]["spec"]["template"]["spec"];
    assert_eq!(pod["terminationGracePeriodSeconds"], 15 + 30 + 5);
    let container = &pod["containers"][0];
    assert_eq!(container["lifecycle"], Value::Null, "drain.delay is enough");
    for probe in ["startupProbe", "livenessProbe"] {
        assert_eq!(container[probe]["httpGet"]["path"], "/livez", "a restart mends no backend");
    }
    assert_eq!(container["readinessProbe"]["grpc"]["port"], 4317);

    let short = file("kubernetes-short", &WELL.replace("delay: 15s", "delay: 1500ms"));
    let pod = &self::printed(&["kubernetes", "--config", &short])["Deployment/upbeat"]["spec"]["template"]
        ["spec"];
    assert_eq!(pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"], 9);
    assert_eq!(pod["terminationGracePeriodSeconds"], 9 + 32 + 5, "1.5 s count as 2");
}

#[test]
fn names_and_texts_cannot_break_out() {
    let name = r#"a\nkind: \"x' ${y} $(z)"#;
    let config = WELL.replace("name: otlp", &format!("name: \"{name}\""));
    let services =
        format!("services: {{ \"{name}\": {{ all: [otlp] }}, \"\": {{ all: [otlp, b] }} }}");
    let config = config.replace("services: { \"\": { all: [otlp] } }", &services);
    let upstream =
        "upstreams:\n  b: { endpoints: [\"10.0.0.2:1\"], probe: { checks: [{ tcp: {} }] } }";
    let config = config.replace("upstreams:", upstream).replace("${", "$${");
    let path = file("hostile", &config);
    let (code, text, findings) = cloud(&["gke", "--config", &path]);
    assert_eq!(code, Some(0), "{findings}");
    let policy = &manifests(&text)["HealthCheckPolicy/upbeat-a-kind-x-y-z"]["spec"]["default"];
    let service = &policy["config"]["grpcHealthCheck"]["grpcServiceName"];
    assert_eq!(service, "a\nkind: \"x' ${y} $(z)");
    manifests(&cloud(&["kubernetes", "--config", &path]).1);
    let (_, shell, _) = cloud(&["gcp", "--config", &path]);
    assert!(Command::new("sh").args(["-n", "-c", &shell]).status().unwrap().success());
    assert!(shell.contains(r"x'\'' ${y} $(z)'"), "{shell}");
    let (_, hcl, _) = cloud(&["gcp", "--as", "terraform", "--config", &path]);
    assert!(hcl.contains(r#""a\nkind: \"x' $${y} $(z)""#), "{hcl}");
}

#[test]
fn misuse_exits_2_and_a_bad_configuration_78() {
    for arguments in [
        &["gke", "--as", "shell"][..],
        &["gke", "--success-codes", "0"],
        &["aws", "--success-codes", "100"],
        &["gcp", "--interval", "0s"],
        &["gcp", "--interval", "1500ms"],
        &["oracle"],
    ] {
        let (code, printed, _) = cloud(arguments);
        assert_eq!((code, &*printed), (Some(2), ""), "{arguments:?}");
    }
    for path in ["/nowhere.yaml", "tests/it/bad/many.yaml"] {
        let (code, printed, _) = cloud(&["aws", "--config", path]);
        assert_eq!((code, &*printed), (Some(78), ""), "{path}");
    }
}

#[test]
fn files_of_secrets_need_not_be_where_a_configuration_is_looked_at() {
    let keys = "upstream: otlp, tls: { cert_file: /nowhere/cert.pem, key_file: /nowhere/key.pem }, \
        auth: { bearer: { tokens_file: /nowhere/tokens.yaml } },";
    let admin = "admin: { address: '0.0.0.0:9901', token_file: /nowhere/token }\n";
    let config = file("secrets", &(WELL.replace("upstream: otlp,", keys) + admin));
    let (code, stdout, stderr) = cloud(&["kubernetes", "--config", &config]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("tokens_file: /nowhere/tokens.yaml"), "{stdout}");
}
