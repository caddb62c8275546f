//! Google Kubernetes Engine: Gateway and Ingress.

use super::{
    front::{Front, Port},
    gcp::BACKEND_TIMEOUT,
    settings::{Settings, seconds},
    text::{comment, fill, health_target, yaml},
};

/// A Service for each port that calls come in by, and how Google checks and drains it.
pub(super) fn manifests(front: &Front, settings: &Settings) -> String {
    let ports = front.traffic().into_iter().map(|port| manifest(front, settings, port));
    HEADER.to_owned() + &ports.collect::<String>()
}

fn manifest(front: &Front, settings: &Settings, port: &Port) -> String {
    let health = front.health();
    // The state of this port's upstream alone, so that an ill neighbour does not take it out.
    let service = match &*port.service {
        "" => String::new(),
        service => format!("        grpcServiceName: {}\n", yaml(service)),
    };
    fill(
        include_str!("templates/gke.yaml"),
        &[
            ("listener", &comment(&port.listener)),
            ("name", &port.name),
            ("port", &port.number()),
            ("app_protocol", &if settings.tls { "HTTP2" } else { "kubernetes.io/h2c" }),
            ("drain_delay", &humantime::format_duration(front.drain.delay)),
            ("interval", &seconds(settings.interval)),
            ("timeout", &seconds(settings.timeout)),
            ("healthy", &settings.healthy_threshold),
            ("unhealthy", &settings.unhealthy_threshold),
            ("check_port", &settings.check_port(port)),
            ("service", &service),
            ("backend_timeout", &seconds(BACKEND_TIMEOUT)),
            ("draining", &seconds(front.drain.timeout)),
            ("http_port", &settings.check_port(health)),
            ("http_path", &yaml(&health_target(&front.health_path, &port.service))),
        ],
    )
}

const HEADER: &str = "\
# Google Kubernetes Engine. Gateway reads Service, HealthCheckPolicy and GCPBackendPolicy, Ingress
# reads Service and BackendConfig. The Deployment is printed by `upbeat cloud kubernetes`; the
# Services here take the place of those there. Route to them by HTTPRoutes.
";
