//! Where a configuration and a load balancer disagree: what breaks, and what to write.

use std::{fmt, time::Duration};

use super::{
    Cloud,
    aws::Recipe,
    front::{Front, Port},
    settings::{GRACE_MARGIN, Settings, seconds},
    text::{label, yaml},
};

/// One disagreement.
#[derive(Debug)]
pub(super) struct Finding {
    severity: Severity,
    breaks: String,
    write: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    /// Calls are lost, or a dead instance stays in, or a live one is taken out.
    Error,
    /// It works, but less well than it could.
    Warning,
}

impl Finding {
    fn error(breaks: String, write: String) -> Self {
        Self { severity: Severity::Error, breaks, write }
    }

    fn warning(breaks: String, write: String) -> Self {
        Self { severity: Severity::Warning, breaks, write }
    }

    /// Whether it is worse than a warning.
    pub(super) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.is_error() { "error" } else { "warning" };
        write!(f, "{severity}: {}\n  write: {}", self.breaks, self.write)
    }
}

/// Everything that would break, in the order of the configuration's sections.
pub(super) fn findings(cloud: Cloud, front: &Front, settings: &Settings) -> Vec<Finding> {
    let mut found = Vec::new();
    for port in &front.listeners {
        found.extend(address(port));
    }
    for port in front.traffic() {
        found.extend(tls(port, settings));
        found.extend(idle_timeout(cloud, port));
        found.extend(max_connections(cloud, port));
        found.extend(success_codes(cloud, port, settings));
        found.extend(shared_state(cloud, port));
    }
    found.extend(no_traffic(front));
    found.extend(health_port(front, settings));
    found.extend(endpoints(cloud, front));
    found.extend(interval(cloud, settings));
    found.extend(drain_delay(cloud, front, settings));
    found.extend(grace_period(front, settings));
    found
}

fn address(port: &Port) -> Option<Finding> {
    let Port { listener, address, .. } = port;
    let number = port.number();
    if number == 0 {
        return Some(Finding::error(
            format!(
                "listener {listener:?} is on {address}, another port at every start, which no \
                 balancer can be told"
            ),
            format!("address: \"{}:4317\", or whichever port it is", any(port)),
        ));
    }
    (!port.is_reachable()).then(|| {
        Finding::error(
            format!(
                "listener {listener:?} is on {address}, where no other host connects, so it \
                 is left out and its checks would fail"
            ),
            format!("address: \"{}:{number}\"", any(port)),
        )
    })
}

/// The unspecified address of a port's family.
fn any(port: &Port) -> &'static str {
    if port.address.is_ipv6() { "[::]" } else { "0.0.0.0" }
}

fn tls(port: &Port, settings: &Settings) -> Option<Finding> {
    (settings.tls && !port.speaks_tls()).then(|| {
        Finding::error(
            format!(
                "the balancer speaks TLS to listener {:?}, which speaks cleartext: every \
                 call and every check fails",
                port.listener
            ),
            "cleartext on the balancer's side: protocol H2C for Google Cloud, appProtocol \
             kubernetes.io/h2c for GKE Gateway, HTTP with protocol version GRPC for an ALB; \
             without --backend-tls they are printed so"
                .to_owned(),
        )
    })
}

fn idle_timeout(cloud: Cloud, port: &Port) -> Option<Finding> {
    let keepalive = keepalive(cloud)?;
    (port.idle_timeout <= keepalive).then(|| {
        Finding::error(
            format!(
                "listener {:?} closes connections after {} without a call, but the balancer \
                 keeps them for {}: calls that it sends meanwhile are lost, now and then a 502 \
                 or UNAVAILABLE",
                port.listener,
                show(port.idle_timeout),
                show(keepalive),
            ),
            format!("idle_timeout: {}s", seconds(keepalive + KEEPALIVE_MARGIN)),
        )
    })
}

fn max_connections(cloud: Cloud, port: &Port) -> Option<Finding> {
    let google = matches!(cloud, Cloud::Gke | Cloud::Gcp);
    (google && port.max_connections < FEW_CONNECTIONS).then(|| {
        Finding::warning(
            format!(
                "listener {:?} takes {} connections, but each of Google's many front ends \
                 and probers opens its own: further ones wait unanswered, health checks among \
                 them",
                port.listener, port.max_connections
            ),
            format!("max_connections: {FEW_CONNECTIONS}, or more"),
        )
    })
}

fn success_codes(cloud: Cloud, port: &Port, settings: &Settings) -> Option<Finding> {
    if cloud != Cloud::Aws {
        return None;
    }
    let Recipe { path, codes, serving, not_serving } = Recipe::of(port, settings);
    let listener = &port.listener;
    if !codes.pass(serving) {
        // UNKNOWN is what Tempo itself says to a check without a tenant, whatever its state.
        let tempo =
            if codes.pass(2) { "; 2 passes for any Tempo that lives, well or not" } else { "" };
        return Some(Finding::error(
            format!(
                "listener {listener:?} answers {path} with {serving} while it serves, which \
                 success codes {codes} fail{tempo}: no target is healthy, so the ALB sends to \
                 all, dead ones too"
            ),
            "--success-codes 0 with health: { not_serving_as_for: { ELB-HealthChecker: status } } \
             on the listener, as by default, or --success-codes 12"
                .to_owned(),
        ));
    }
    if !codes.pass(not_serving) {
        return None;
    }
    Some(if not_serving == serving {
        Finding::error(
            format!(
                "listener {listener:?} answers {path} with {serving} and the message \
                 NOT_SERVING while its backends are down, and an ALB reads the code alone: dead \
                 instances stay healthy"
            ),
            "health: { not_serving_as_for: { ELB-HealthChecker: status } } on the listener, as by \
             default, or --success-codes 12, for the ALB's default path"
                .to_owned(),
        )
    } else {
        Finding::error(
            format!(
                "listener {listener:?} answers {path} with {not_serving} while its backends are \
                 down, which success codes {codes} pass: dead instances stay healthy"
            ),
            format!("--success-codes {serving}"),
        )
    })
}

fn shared_state(cloud: Cloud, port: &Port) -> Option<Finding> {
    let upstream = port.upstream.as_deref()?;
    if cloud == Cloud::Kubernetes || !port.overall_is_shared {
        return None;
    }
    let breaks = |why: &str| {
        format!(
            "listener {:?} is judged by the overall state{why}: while another upstream is down, \
             its calls are turned away too, although {upstream:?} is well",
            port.listener
        )
    };
    if matches!(cloud, Cloud::Aws | Cloud::Azure) {
        let why = ", since the balancer's gRPC check names no service";
        return Some(Finding::warning(breaks(why), "one Upbeat for each upstream".to_owned()));
    }
    port.service.is_empty().then(|| {
        let service = label(upstream).unwrap_or_else(|| yaml(upstream));
        let all = yaml(upstream);
        Finding::warning(
            breaks(""),
            format!("health: {{ services: {{ {service}: {{ all: [{all}] }} }} }}"),
        )
    })
}

fn no_traffic(front: &Front) -> Option<Finding> {
    front.listeners.iter().all(|port| port.upstream.is_none()).then(|| {
        Finding::warning(
            "no listener has an upstream: there is health to check, \
             but nothing to balance"
                .to_owned(),
            "listeners: [{ name: otlp, address: \"0.0.0.0:4317\", upstream: … }]".to_owned(),
        )
    })
}

fn health_port(front: &Front, settings: &Settings) -> Option<Finding> {
    let number = settings.health_port?;
    let ports = front.ports();
    if ports.iter().any(|port| port.number() == number) {
        return None;
    }
    let known: Vec<_> = ports.iter().map(|port| port.number().to_string()).collect();
    let write = format!("--health-port {}; all listeners answer checks", known.join(" or "));
    let behind = front.endpoints.iter().find(|endpoint| endpoint.ports.contains(&number));
    Some(Finding::error(
        match behind {
            Some(endpoint) => format!(
                "port {number} is checked, which is upstream {:?}'s and not Upbeat's: an \
                 OpenTelemetry receiver answers UNIMPLEMENTED, which Google Cloud takes for \
                 health, and nobody notices that it is dead",
                endpoint.upstream
            ),
            None => format!(
                "port {number} is checked, but no listener that the balancer reaches is on it: \
                 every check fails"
            ),
        },
        write,
    ))
}

fn endpoints(cloud: Cloud, front: &Front) -> Option<Finding> {
    let pods = matches!(cloud, Cloud::Gke | Cloud::Kubernetes);
    let local = front.endpoints.iter().find(|it| it.address.ip().to_canonical().is_loopback())?;
    pods.then(|| {
        Finding::warning(
            format!(
                "upstream {:?} has the endpoint {}, which in a pod is the pod itself: unless \
                 Tempo is a container beside Upbeat, nothing is there",
                local.upstream, local.address
            ),
            "the addresses of the distributors".to_owned(),
        )
    })
}

fn interval(cloud: Cloud, settings: &Settings) -> Option<Finding> {
    let shortest = matches!(cloud, Cloud::Aws | Cloud::Azure) && settings.interval < SHORTEST;
    shortest.then(|| {
        Finding::error(
            format!(
                "the balancer is told to check every {}, but takes no less than {}: it \
                 refuses the setting",
                show(settings.interval),
                show(SHORTEST)
            ),
            format!("--interval {}", show(SHORTEST)),
        )
    })
}

fn drain_delay(cloud: Cloud, front: &Front, settings: &Settings) -> Option<Finding> {
    let (delay, removal) = (front.drain.delay, settings.removal());
    if delay >= removal {
        return None;
    }
    let short = format!(
        "drain.delay is {}, shorter than the {} × {} until the balancer has taken the instance out",
        show(delay),
        show(settings.interval),
        settings.unhealthy_threshold,
    );
    let write = format!(
        "drain: {{ delay: {}s, timeout: {} }}",
        seconds(removal),
        show(front.drain.timeout)
    );
    Some(if cloud == Cloud::Kubernetes {
        let hook = "a preStop hook has to sleep for the rest, while health still says SERVING";
        Finding::warning(format!("{short}: {hook}"), write)
    } else {
        Finding::error(format!("{short}: it sends calls to a closed port at every restart"), write)
    })
}

fn grace_period(front: &Front, settings: &Settings) -> Option<Finding> {
    let (grace, stopping) = (settings.grace_period, settings.stopping(front));
    (grace < stopping).then(|| {
        let timeout = grace.checked_sub(settings.pre_stop + front.drain.delay);
        let shorter = timeout.filter(|it| !it.is_zero()).map_or_else(String::new, |timeout| {
            format!(
                ", or drain: {{ delay: {}, timeout: {} }}",
                show(front.drain.delay),
                show(timeout)
            )
        });
        Finding::error(
            format!(
                "the process is killed {} after it is told to stop, but stopping may take {} \
                 (preStop, drain.delay and drain.timeout): calls in flight are cut",
                show(grace),
                show(stopping)
            ),
            format!("--grace-period {}s{shorter}", seconds(stopping + GRACE_MARGIN)),
        )
    })
}

/// How long a balancer keeps a connection to a backend without calls: Google's front ends 600 s
/// (cloud.google.com/load-balancing/docs/https, "HTTP keepalive timeout"), an ALB its idle timeout,
/// 60 s by default. The others pass connections through, or do not say.
fn keepalive(cloud: Cloud) -> Option<Duration> {
    match cloud {
        Cloud::Gke | Cloud::Gcp => Some(Duration::from_secs(600)),
        Cloud::Aws => Some(Duration::from_secs(60)),
        Cloud::Azure | Cloud::Kubernetes => None,
    }
}

fn show(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Google's own advice is 620 s for its 600 s.
const KEEPALIVE_MARGIN: Duration = Duration::from_secs(20);

/// The shortest interval of an ALB's target group and of Azure Load Balancer's probe.
const SHORTEST: Duration = Duration::from_secs(5);

/// A judgement, not a documented bound: fewer than a region's front ends and probers may open.
const FEW_CONNECTIONS: u32 = 256;
