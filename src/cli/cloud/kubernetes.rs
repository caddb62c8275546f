//! Kubernetes itself: the kubelet's probes, and everything to run Upbeat.

use super::{
    front::{Front, Port},
    settings::{Settings, seconds},
    text::{comment, fill, yaml},
};

/// ConfigMap, Deployment, Services, PodDisruptionBudget and HorizontalPodAutoscaler. `source` is
/// the configuration as it was written.
pub(super) fn manifests(front: &Front, settings: &Settings, source: &str) -> String {
    let traffic = front.traffic();
    let container_port = |port: &&Port| {
        format!("            - {{ name: {}, containerPort: {} }}\n", port.name, port.number())
    };
    let service = |port: &&Port| {
        fill(
            include_str!("templates/kubernetes-service.yaml"),
            &[("name", &port.name), ("port", &port.number())],
        )
    };
    // The port that calls come in by, so that readiness proves it.
    let grpc_port = settings.check_port(traffic.first().copied().unwrap_or_else(|| front.health()));
    fill(
        include_str!("templates/kubernetes.yaml"),
        &[
            ("config", &block(source)),
            ("pre_stop", &seconds(settings.pre_stop)),
            ("drain_delay", &humantime::format_duration(front.drain.delay)),
            ("drain_timeout", &humantime::format_duration(front.drain.timeout)),
            ("grace", &seconds(settings.grace_period)),
            ("env", &environment(source)),
            ("container_ports", &front.ports().iter().map(container_port).collect::<String>()),
            ("http_port", &settings.check_port(front.health())),
            ("http_path", &yaml(&front.health_path)),
            ("grpc_port", &grpc_port),
            ("interval", &seconds(settings.interval)),
            ("timeout", &seconds(settings.timeout)),
            ("unhealthy", &settings.unhealthy_threshold),
            ("lifecycle", &lifecycle(settings)),
            ("services", &traffic.iter().map(service).collect::<String>()),
        ],
    )
}

/// A literal block at the place that the template has for it.
fn block(source: &str) -> String {
    // Where the first line is indented, its depth has to be told.
    let indicator = if source.starts_with([' ', '\n', '\r']) { "|2" } else { "|" };
    let line = |line: &str| match line {
        "" => "\n".to_owned(),
        line => format!("\n    {line}"),
    };
    indicator.to_owned() + &source.lines().map(line).collect::<String>()
}

/// What the configuration takes from the environment, for the reader to fill in.
fn environment(source: &str) -> String {
    // `$${` stands for `${`.
    let source = source.replace("$${", "");
    let lines = source.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut names: Vec<_> = lines
        .flat_map(|line| line.split("${").skip(1))
        .filter_map(|rest| rest.split([':', '}']).next())
        .collect();
    names.sort_unstable();
    names.dedup();
    let line = |name: &&str| format!("          #   - {{ name: {}, value: … }}\n", comment(name));
    match names.is_empty() {
        true => String::new(),
        false => ENVIRONMENT.to_owned() + &names.iter().map(line).collect::<String>(),
    }
}

/// SIGTERM alone is enough where `drain.delay` outlasts the removal of the pod: health says
/// NOT_SERVING meanwhile, which a hook that sleeps would put off.
fn lifecycle(settings: &Settings) -> String {
    match seconds(settings.pre_stop) {
        0 => NO_HOOK.to_owned(),
        sleep => fill(HOOK, &[("sleep", &sleep)]),
    }
}

const ENVIRONMENT: &str = concat!(
    "          # The configuration takes these from the environment:\n",
    "          # env:\n",
);

const NO_HOOK: &str = concat!(
    "          # No preStop hook: drain.delay, which says NOT_SERVING meanwhile, is long enough\n",
    "          # for the pod's removal to reach all who connect to it.\n",
);

/// The image has no shell to sleep in.
const HOOK: &str = concat!(
    "          # What drain.delay lacks until the pod's removal has reached all who connect to\n",
    "          # it. Kubernetes has this hook from 1.30 on.\n",
    "          lifecycle:\n",
    "            preStop:\n",
    "              sleep: { seconds: @sleep@ }\n",
);
