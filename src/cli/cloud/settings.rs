//! What the balancer is told, or was told before.

use std::time::Duration;

use super::{Cloud, Options, codes::Codes, front::Front, front::Port};

/// A balancer's settings, in its units: whole seconds.
#[derive(Debug)]
pub(super) struct Settings {
    /// From one check to the next.
    pub(super) interval: Duration,
    /// How long a check may take.
    pub(super) timeout: Duration,
    /// Passed checks in a row that bring an instance back.
    pub(super) healthy_threshold: u32,
    /// Failed checks in a row that take it out.
    pub(super) unhealthy_threshold: u32,
    /// The port that is checked, where it is not Upbeat's to choose.
    pub(super) health_port: Option<u16>,
    /// A target group's success codes, where they are not Upbeat's to choose.
    pub(super) success_codes: Option<Codes>,
    /// How long Kubernetes waits before SIGTERM, for what `drain.delay` lacks.
    pub(super) pre_stop: Duration,
    /// From the decision to stop until the process is killed.
    pub(super) grace_period: Duration,
    /// Whether the balancer speaks TLS to its backends.
    pub(super) tls: bool,
}

impl Settings {
    /// What was asked for, and what follows from it and the proxy's front.
    pub(super) fn new(options: &Options, front: &Front) -> Self {
        let mut settings = Self {
            interval: options.interval,
            timeout: CHECK_TIMEOUT.min(options.interval),
            healthy_threshold: HEALTHY_THRESHOLD,
            unhealthy_threshold: options.unhealthy_threshold,
            health_port: options.health_port,
            success_codes: options.success_codes.clone(),
            pre_stop: Duration::ZERO,
            grace_period: Duration::ZERO,
            tls: options.backend_tls,
        };
        if options.cloud == Cloud::Kubernetes {
            let lacking = settings.removal().saturating_sub(front.drain.delay);
            settings.pre_stop = Duration::from_secs(seconds(lacking));
        }
        let whole = Duration::from_secs(seconds(settings.stopping(front) + GRACE_MARGIN));
        settings.grace_period = options.grace_period.unwrap_or(whole);
        settings
    }

    /// How long after the first NOT_SERVING the balancer may still send calls.
    pub(super) fn removal(&self) -> Duration {
        self.interval * self.unhealthy_threshold
    }

    /// How long stopping may take.
    pub(super) fn stopping(&self, front: &Front) -> Duration {
        self.pre_stop + front.drain.delay + front.drain.timeout
    }

    /// The port that is checked by a balancer that could check `port`.
    pub(super) fn check_port(&self, port: &Port) -> u16 {
        self.health_port.unwrap_or_else(|| port.number())
    }
}

/// A duration in whole seconds, rounded up.
pub(super) fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// Upbeat answers from memory: what takes longer is a process that hangs. An ALB takes no less than
/// 2 s (Elastic Load Balancing, `HealthCheckTimeoutSeconds`), Google Cloud no more than the
/// interval.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// An ALB takes 2 to 10, Google Cloud 1 to 10; its own default is 2.
const HEALTHY_THRESHOLD: u32 = 2;

/// What the grace period has above the drain, for the process to start stopping and to end.
pub(super) const GRACE_MARGIN: Duration = Duration::from_secs(5);
