//! What would be answered, beside what then is answered; and what changed, with its evidence.

use upbeat::admin::{Simulation, Status};

use crate::fixture::{
    caller::{Caller, get},
    echo::Echo,
    eventually, program,
    proxy::{CHECK, Proxy},
    refusing,
};

async fn proxy(up: &Echo) -> Proxy {
    let probe = "probe: { interval: 300ms, timeout: 290ms, checks: [{ tcp: {} }] }";
    let config = format!(
        r#"
listeners:
  - {{ name: otlp, address: "127.0.0.1:0", upstream: one }}
  - {{ name: strict, address: "127.0.0.1:0", health: {{ not_serving_as: status }} }}
upstreams:
  one: {{ endpoints: ["{}"], {probe} }}
  dead: {{ endpoints: ["{}"], {probe} }}
health:
  services:
    "": {{ all: [one] }}
    either: {{ any: [one, dead] }}
    without: {{ not: one }}
admin: {{ address: "127.0.0.1:0" }}
drain: {{ delay: 0s, timeout: 2s }}
"#,
        up.address(),
        refusing()
    );
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    proxy
}

async fn simulate(proxy: &Proxy, query: &str) -> Simulation {
    let (status, body) = get(proxy.admin(), &format!("/simulate?{query}")).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// What the listeners say of every service, in the words of a simulation.
async fn said(proxy: &Proxy, simulation: &Simulation) -> Vec<[String; 3]> {
    let mut said = Vec::new();
    for answered in &simulation.answers {
        let address = proxy.address(&answered.listener);
        let service = upbeat::grpc::HealthCheckRequest { service: answered.service.clone() };
        let mut caller = Caller::connect(address).await;
        let check = caller.unary(CHECK, &upbeat::grpc::encode(&service)).await.unwrap();
        let message = match check.body.last() {
            Some(1) => " SERVING",
            Some(2) => " NOT_SERVING",
            _ => "",
        };
        let (status, text) = get(address, &format!("/?service={}", answered.service)).await;
        let alb = match answered.service.as_str() {
            "" => caller.unary("/AWS.ALB/healthcheck", &[]).await.unwrap().code().to_string(),
            _ => String::new(),
        };
        let check = format!("{}{message}", check.code());
        said.push([check, format!("{} {text}", status.as_u16()), alb]);
    }
    said
}

fn simulated(simulation: &Simulation) -> Vec<[String; 3]> {
    let answers = simulation.answers.iter();
    answers.map(|it| [it.check.clone(), it.get.clone(), it.alb.clone()]).collect()
}

#[tokio::test]
async fn what_is_simulated_is_what_is_then_answered() {
    let up = Echo::start().await;
    let proxy = proxy(&up).await;
    let now = simulate(&proxy, "").await;
    assert_eq!(now.answers.len(), 2 * 3, "each service by each listener");
    assert_eq!(said(&proxy, &now).await, simulated(&now), "nothing is down");

    let address = up.address();
    let then = simulate(&proxy, &format!("down=one/{address}")).await;
    assert_eq!(simulated(&then), simulated(&simulate(&proxy, "down=one").await));
    assert_ne!(simulated(&then), simulated(&now));
    let reason = &then.services[0].reason;
    assert_eq!(*reason, format!("one: 0 of 1 endpoints healthy, 1 needed ({address}: down)"));
    assert_eq!(said(&proxy, &now).await, simulated(&now), "it was a question only");

    drop(up);
    proxy.wait_not_serving().await;
    assert_eq!(said(&proxy, &then).await, simulated(&then));

    for (query, words) in [
        ("down=two", "two: no such upstream"),
        ("down=one/127.0.0.1:1", "127.0.0.1:1: no endpoint of one"),
        ("down=one/here", "here: no IP address and port"),
        ("up=one", "up=one: expected down=UPSTREAM/ADDRESS or down=UPSTREAM"),
    ] {
        let (status, body) = get(proxy.admin(), &format!("/simulate?{query}")).await;
        assert_eq!((status.as_u16(), body.trim()), (400, words));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn the_last_changes_are_told_with_their_time_and_evidence() {
    let up = Echo::start().await;
    let address = up.address();
    let proxy = proxy(&up).await;
    drop(up);
    proxy.wait_not_serving().await;
    let Status { services, upstreams, .. } = proxy.status().await;
    let changes: Vec<_> = services[0].history.iter().map(|it| (&*it.from, &*it.to)).collect();
    assert_eq!(changes, [("SERVING", "NOT_SERVING"), ("NOT_SERVING", "SERVING")]);
    assert_eq!(services[0].history[0].at, services[0].since);
    assert_eq!(services[0].history[0].evidence, services[0].reason);
    let endpoint = upstreams.iter().find(|it| it.upstream == "one").unwrap().endpoints.first();
    let history = &endpoint.unwrap().history;
    let changes: Vec<_> = history.iter().map(|it| (&*it.from, &*it.to)).collect();
    assert_eq!(changes, [("healthy", "unhealthy"), ("unknown", "healthy")]);
    assert!(history[0].evidence.contains("connection refused"), "{}", history[0].evidence);

    let admin = proxy.admin().to_string();
    let table = program::upbeat(&["status", "--admin", &admin]).await.stdout;
    let change = format!("one/{address} healthy -> unhealthy");
    let words = table.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("CHANGED WHAT HOW EVIDENCE") && words.contains(&change), "{table}");
    let told = async |down: &str| {
        program::upbeat(&["status", "--admin", &admin, "--simulate", down]).await
    };
    let table = told("down=dead").await.stdout;
    let row = table.lines().find(|line| line.starts_with("strict") && line.contains("overall"));
    let cells: Vec<_> = row.unwrap().split_whitespace().collect();
    let expected =
        ["strict", "\"\"", "(overall)", "14", "14", "NOT_SERVING", "503", "NOT_SERVING", "14"];
    assert_eq!(cells, expected, "{table}");
    assert_eq!(told("dead").await.code, Some(2));
    let ended = told("down=two").await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("two: no such upstream"), "{}", ended.stderr);
    eventually("probes go on", async || proxy.check().await == 2).await;
    proxy.stop().await;
}
