//! Google Cloud's load balancers, by gcloud and by Terraform.

use std::{collections::BTreeSet, time::Duration};

use super::{
    front::{Front, Port},
    settings::{Settings, seconds},
    text::{comment, fill, hcl, shell},
};

/// Commands of gcloud.
pub(super) fn commands(front: &Front, settings: &Settings) -> String {
    let rules: Vec<_> = open(front, settings).iter().map(|port| format!("tcp:{port}")).collect();
    let firewall = fill(
        include_str!("templates/gcp-firewall.sh"),
        &[("ranges", &RANGES.join(",")), ("rules", &rules.join(","))],
    );
    let port = |port| {
        let service = |name: &str| format!("  --grpc-service-name={} \\\n", shell(name));
        each(include_str!("templates/gcp.sh"), front, settings, port, &service)
    };
    firewall + &front.traffic().into_iter().map(port).collect::<String>()
}

/// The same as resources of the provider hashicorp/google.
pub(super) fn terraform(front: &Front, settings: &Settings) -> String {
    let quoted = |text: &dyn ToString| hcl(&text.to_string());
    let ranges: Vec<_> = RANGES.iter().map(|range| quoted(range)).collect();
    let ports: Vec<_> = open(front, settings).iter().map(|port| quoted(port)).collect();
    let firewall = fill(
        include_str!("templates/gcp-firewall.tf"),
        &[("ranges", &ranges.join(", ")), ("ports", &ports.join(", "))],
    );
    let port = |port| {
        let service = |name: &str| format!("    grpc_service_name  = {}\n", hcl(name));
        each(include_str!("templates/gcp.tf"), front, settings, port, &service)
    };
    firewall + &front.traffic().into_iter().map(port).collect::<String>()
}

fn each(
    template: &str,
    front: &Front,
    settings: &Settings,
    port: &Port,
    service: &dyn Fn(&str) -> String,
) -> String {
    let service = if port.service.is_empty() { String::new() } else { service(&port.service) };
    fill(
        template,
        &[
            ("listener", &comment(&port.listener)),
            ("name", &port.name),
            ("id", &port.name.replace('-', "_")),
            ("port", &port.number()),
            ("drain_delay", &humantime::format_duration(front.drain.delay)),
            ("check_port", &settings.check_port(port)),
            ("service", &service),
            ("interval", &seconds(settings.interval)),
            ("timeout", &seconds(settings.timeout)),
            ("healthy", &settings.healthy_threshold),
            ("unhealthy", &settings.unhealthy_threshold),
            ("protocol", &if settings.tls { "HTTP2" } else { "H2C" }),
            ("backend_timeout", &seconds(BACKEND_TIMEOUT)),
            ("draining", &seconds(front.drain.timeout)),
        ],
    )
}

/// The ports that have to be open: those of calls and those of checks.
fn open(front: &Front, settings: &Settings) -> BTreeSet<u16> {
    let ports = front.traffic();
    ports.iter().flat_map(|port| [port.number(), settings.check_port(port)]).collect()
}

/// Where health checks come from (cloud.google.com/load-balancing/docs/health-check-concepts).
const RANGES: [&str; 2] = ["35.191.0.0/16", "130.211.0.0/22"];

/// Google's own default for a backend service. An Export is one short call.
pub(super) const BACKEND_TIMEOUT: Duration = Duration::from_secs(30);
