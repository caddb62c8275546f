//! Azure: Application Gateway for Containers, and the plain Load Balancer.

use super::{
    front::{Front, Port},
    settings::{Settings, seconds},
    text::{comment, fill, health_target, shell},
};

/// A HealthCheckPolicy of Application Gateway for Containers for each port that calls come in by.
pub(super) fn manifests(front: &Front, settings: &Settings) -> String {
    let port = |port: &Port| {
        fill(
            include_str!("templates/azure.yaml"),
            &[
                ("listener", &comment(&port.listener)),
                ("name", &port.name),
                ("port", &port.number()),
                ("drain_delay", &humantime::format_duration(front.drain.delay)),
                ("interval", &seconds(settings.interval)),
                ("timeout", &seconds(settings.timeout)),
                ("healthy", &settings.healthy_threshold),
                ("unhealthy", &settings.unhealthy_threshold),
                ("check_port", &settings.check_port(port)),
                ("tls", &settings.tls),
            ],
        )
    };
    let ports: String = front.traffic().into_iter().map(port).collect();
    GATEWAY.to_owned() + &ports
}

/// Probes and rules of a Load Balancer.
pub(super) fn commands(front: &Front, settings: &Settings) -> String {
    let check_port = settings.check_port(front.health());
    let port = |port: &Port| {
        fill(
            include_str!("templates/azure.sh"),
            &[
                ("listener", &comment(&port.listener)),
                ("name", &port.name),
                ("port", &port.number()),
                ("drain_delay", &humantime::format_duration(front.drain.delay)),
                ("check_port", &check_port),
                ("path", &shell(&health_target(&front.health_path, &port.service))),
                ("interval", &seconds(settings.interval)),
                ("unhealthy", &settings.unhealthy_threshold),
            ],
        )
    };
    let ports: String = front.traffic().into_iter().map(port).collect();
    BALANCER.to_owned() + &ports
}

const GATEWAY: &str = "\
# Azure Application Gateway for Containers. Route to the Services, which `upbeat cloud kubernetes`
# prints, by GRPCRoutes. Application Gateway v2, the older product, speaks HTTP/1.1 to backends, so
# gRPC cannot pass it. The check asks for the overall state: it cannot name a service.
";

const BALANCER: &str = "\
# Azure Load Balancer: a probe and a rule for each port. The balancer, its frontend and its pool are
# yours; Standard SKU, which has --probe-threshold.
set -eu
: \"${RESOURCE_GROUP:?}\" \"${LB:?}\" \"${POOL:?}\"
";
