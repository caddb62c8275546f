//! AWS Application Load Balancer, by Ingress annotations and by Terraform.

use super::{
    codes::Codes,
    front::{Front, Port},
    settings::{Settings, seconds},
    text::{comment, fill, health_target},
};
use crate::config::NotServingAs;

/// Which path a target group checks, and what passes.
#[derive(Debug)]
pub(super) struct Recipe {
    /// The call's path.
    pub(super) path: &'static str,
    /// What passes.
    pub(super) codes: Codes,
    /// What Upbeat answers while it serves.
    pub(super) serving: u8,
    /// What Upbeat answers while it does not.
    pub(super) not_serving: u8,
}

impl Recipe {
    /// The one that tells the truth about `port`, unless success codes are given. 12 alone is what
    /// goes with the ALB's default path, anything else with Check.
    pub(super) fn of(port: &Port, settings: &Settings) -> Self {
        let by_status = port.to_an_alb == NotServingAs::Status;
        let own = || Codes::one(if by_status { OK } else { UNIMPLEMENTED });
        let codes = settings.success_codes.clone().unwrap_or_else(own);
        if codes == Codes::one(UNIMPLEMENTED) {
            return Self { path: ALB, codes, serving: UNIMPLEMENTED, not_serving: UNAVAILABLE };
        }
        let not_serving = if by_status { UNAVAILABLE } else { OK };
        Self { path: CHECK, codes, serving: OK, not_serving }
    }
}

/// An Ingress of the AWS Load Balancer Controller for each port that calls come in by.
pub(super) fn manifests(front: &Front, settings: &Settings) -> String {
    let port = |port| each(include_str!("templates/aws.yaml"), front, settings, port);
    why(front) + &front.traffic().into_iter().map(port).collect::<String>()
}

/// Target groups of the provider hashicorp/aws.
pub(super) fn terraform(front: &Front, settings: &Settings) -> String {
    let port = |port| each(include_str!("templates/aws.tf"), front, settings, port);
    let ports: String = front.traffic().into_iter().map(port).collect();
    format!("{}\nvariable \"upbeat_vpc_id\" {{\n  type = string\n}}\n{ports}", why(front))
}

fn why(front: &Front) -> String {
    let path = comment(&health_target(&front.health_path, ""));
    let values: [(_, &dyn std::fmt::Display); 2] =
        [("http_port", &front.health().number()), ("http_path", &path)];
    fill(include_str!("templates/aws-why.txt"), &values)
}

fn each(template: &str, front: &Front, settings: &Settings, port: &Port) -> String {
    let recipe = Recipe::of(port, settings);
    let checked = settings.health_port.map(|port| port.to_string());
    fill(
        template,
        &[
            ("listener", &comment(&port.listener)),
            ("name", &port.name),
            ("id", &port.name.replace('-', "_")),
            ("port", &port.number()),
            ("protocol", &if settings.tls { "HTTPS" } else { "HTTP" }),
            ("check_port", &checked.unwrap_or_else(|| "traffic-port".to_owned())),
            ("path", &recipe.path),
            ("codes", &recipe.codes),
            ("drain_delay", &humantime::format_duration(front.drain.delay)),
            ("interval", &seconds(settings.interval)),
            ("timeout", &seconds(settings.timeout)),
            ("healthy", &settings.healthy_threshold),
            ("unhealthy", &settings.unhealthy_threshold),
            ("draining", &seconds(front.drain.timeout)),
        ],
    )
}

const CHECK: &str = "/grpc.health.v1.Health/Check";
const ALB: &str = "/AWS.ALB/healthcheck";

const OK: u8 = 0;
const UNIMPLEMENTED: u8 = 12;
const UNAVAILABLE: u8 = 14;
