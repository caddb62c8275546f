//! `upbeat cloud`: the load balancer's side of a configuration, and where the two disagree.
//!
//! `front` is all that is read of a configuration, `settings` what the balancer is told or was told
//! before; from these two, each balancer's module fills its templates and `doctor` finds what would
//! break. Nothing here touches a cloud.

mod aws;
mod azure;
mod codes;
mod doctor;
mod front;
mod gcp;
mod gke;
mod kubernetes;
mod settings;
mod text;

use std::{process::ExitCode, time::Duration};

use clap::ValueEnum;

use self::{codes::Codes, front::Front, settings::Settings};
use crate::config::Config;

/// Arguments of `upbeat cloud`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER)]
pub(super) struct Options {
    /// Whose side to print
    cloud: Cloud,
    #[command(flatten)]
    file: super::File,
    /// The language to print, where there is more than one
    #[arg(long = "as", value_name = "LANGUAGE")]
    language: Option<Language>,
    /// From one check of the balancer to the next
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = whole_seconds)]
    interval: Duration,
    /// Failed checks in a row that take an instance out
    #[arg(long, value_name = "COUNT", default_value = "2",
        value_parser = clap::value_parser!(u32).range(1..=10))]
    unhealthy_threshold: u32,
    /// The port that is checked; by default one that Upbeat answers on
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    health_port: Option<u16>,
    /// The target group's success codes, such as 0, 12 or 0-99 (aws)
    #[arg(long, value_name = "CODES")]
    success_codes: Option<Codes>,
    /// How long the process may take to stop; by default as long as its drain takes
    #[arg(long, value_name = "DURATION", value_parser = whole_seconds)]
    grace_period: Option<Duration>,
    /// The balancer speaks TLS to its backends
    #[arg(long)]
    backend_tls: bool,
    /// Exit 1 if there is a finding of severity error
    #[arg(long)]
    strict: bool,
}

const AFTER: &str = "\
Standard output has the balancer's side alone, so that it can be piped: YAML for kubectl, a shell
script, or Terraform. Findings go to standard error, each with what breaks and what to write:

  error    calls are lost, or a dead instance stays in, or a live one is taken out
  warning  it works, but less well than it could

Describe a balancer that is there already by --interval, --unhealthy-threshold, --health-port,
--success-codes, --grace-period and --backend-tls; they change what is printed and what is found.

  gke         yaml              Gateway: Service, HealthCheckPolicy, GCPBackendPolicy;
                                Ingress: BackendConfig
  gcp         shell, terraform  health check, backend service, firewall rule
  aws         yaml, terraform   Ingress of the AWS Load Balancer Controller; target group
  azure       yaml, shell       Application Gateway for Containers; Azure Load Balancer
  kubernetes  yaml              ConfigMap, Deployment, Services, disruption budget, autoscaler

Exit codes: 0; 1 with --strict, if there is an error; 2 usage; 78 bad configuration.";

/// Whose load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cloud {
    /// Google Kubernetes Engine: Gateway and Ingress
    Gke,
    /// Google Cloud's load balancers without Kubernetes
    Gcp,
    /// AWS Application Load Balancer
    Aws,
    /// Azure Application Gateway for Containers, Azure Load Balancer
    Azure,
    /// Kubernetes itself: the kubelet's probes, and everything to run Upbeat
    Kubernetes,
}

/// In which language the balancer's side is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    /// Kubernetes manifests
    Yaml,
    /// Commands of the cloud's own tool
    Shell,
    /// HCL
    Terraform,
}

impl Cloud {
    /// What it can be printed in; the first is the default.
    fn languages(self) -> &'static [Language] {
        match self {
            Self::Gke | Self::Kubernetes => &[Language::Yaml],
            Self::Gcp => &[Language::Shell, Language::Terraform],
            Self::Aws => &[Language::Yaml, Language::Terraform],
            Self::Azure => &[Language::Yaml, Language::Shell],
        }
    }
}

/// Prints the balancer's side, and what the doctor found.
pub(super) fn run(options: &Options) -> ExitCode {
    if let Some(misuse) = misuse(options) {
        eprintln!("error: {misuse}\n\nFor more information, try 'upbeat cloud --help'.");
        return ExitCode::from(2);
    }
    let path = &options.file.config;
    // Nothing that stands in files of credentials and certificates is asked for.
    let environment = |name: &str| std::env::var(name).ok();
    let read =
        Config::read(path).and_then(|source| Ok((Config::parse(&source, environment)?, source)));
    let (config, source) = match read {
        Ok(loaded) => loaded,
        Err(problems) => return super::bad_configuration(path, &problems),
    };
    let front = Front::of(&config);
    let settings = Settings::new(options, &front);
    let language = options.language.unwrap_or_else(|| options.cloud.languages()[0]);
    // As it was written: comments and `${NAME}` are part of it.
    let printed = print(options.cloud, language, &front, &settings, &source);
    super::say(&format!("{}\n{printed}", origin(options, language)));
    let findings = doctor::findings(options.cloud, &front, &settings);
    for finding in &findings {
        eprintln!("{finding}");
    }
    let strict = options.strict && findings.iter().any(doctor::Finding::is_error);
    if strict { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn print(
    cloud: Cloud,
    language: Language,
    front: &Front,
    settings: &Settings,
    source: &str,
) -> String {
    match (cloud, language) {
        (Cloud::Gke, _) => gke::manifests(front, settings),
        (Cloud::Gcp, Language::Terraform) => gcp::terraform(front, settings),
        (Cloud::Gcp, _) => gcp::commands(front, settings),
        (Cloud::Aws, Language::Terraform) => aws::terraform(front, settings),
        (Cloud::Aws, _) => aws::manifests(front, settings),
        (Cloud::Azure, Language::Shell) => azure::commands(front, settings),
        (Cloud::Azure, _) => azure::manifests(front, settings),
        (Cloud::Kubernetes, _) => kubernetes::manifests(front, settings, source),
    }
}

/// The first line: which command prints the rest.
fn origin(options: &Options, language: Language) -> String {
    let config = text::comment(&options.file.config.display().to_string());
    let cloud = name(&options.cloud);
    format!("# upbeat cloud {cloud} --as {} --config {config}", name(&language))
}

/// What no single argument shows to be wrong.
fn misuse(options: &Options) -> Option<String> {
    let languages = options.cloud.languages();
    if options.success_codes.is_some() && options.cloud != Cloud::Aws {
        return Some("--success-codes is for aws".to_owned());
    }
    match options.language {
        Some(language) if !languages.contains(&language) => {
            let known: Vec<_> = languages.iter().map(name).collect();
            Some(format!("--as: expected {} for {}", known.join(" or "), name(&options.cloud)))
        }
        _ => None,
    }
}

fn name(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value().expect("no value is hidden");
    value.get_name().to_owned()
}

/// Balancers count in whole seconds.
fn whole_seconds(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() || duration.subsec_nanos() > 0 {
        return Err("expected whole seconds, such as 5s".to_owned());
    }
    Ok(duration)
}
