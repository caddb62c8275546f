//! Upstreams and their probes, as the YAML has them.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    super::value::{Quorum, Share, Watch},
    discovery::{Dns, File},
    endpoint::Endpoint,
    overload::{Admission, Ejection},
    tls::{UpstreamTls, given},
};

/// A named set of endpoints that serve the same thing.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Upstream {
    /// The endpoints: IP address and port each, or `{ address: "10.0.1.1:4317", backup: true }`. At
    /// least one that is no backup. Exactly one of `endpoints`, `dns` and `file` says where they are.
    pub(in crate::config) endpoints: Vec<Endpoint>,
    /// The endpoints are what a name resolves to.
    pub(in crate::config) dns: Option<Dns>,
    /// The endpoints are listed in a file of their own.
    pub(in crate::config) file: Option<File>,
    /// How the endpoints are probed. Required: without it nothing could be said of them.
    pub(in crate::config) probe: Option<Probe>,
    /// How many endpoints must be healthy, backups among them: a count, or a share such as `"50%"`.
    /// Default: 1.
    pub(in crate::config) min_healthy: Quorum,
    /// Below this share of available endpoints, which are healthy and not ejected, calls go to all of
    /// them. Default: `"0%"`, never.
    pub(in crate::config) panic_threshold: Share,
    /// How an endpoint is picked for a call. Default: `least_request`.
    pub(in crate::config) load_balancing: LoadBalancing,
    /// Metadata whose value picks the endpoint, such as `x-scope-orgid`: calls with the same one go
    /// to the same endpoint while it is available and has no more than 1.25 times its share of
    /// calls. Calls without it are balanced as `load_balancing` says. Not for tenants of a Tempo
    /// whose limits are `local`, as they are by default: each distributor then grants its part of a
    /// tenant's rate, and one that has the whole tenant answers RESOURCE_EXHAUSTED too early.
    /// Default: none.
    pub(in crate::config) hash_by: Option<String>,
    /// How long an endpoint that becomes available takes to have its whole share of calls, from a
    /// tenth of it on, while there are others. Default: 0s, at once.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub(in crate::config) slow_start: Duration,
    /// When an endpoint that fails calls takes none for a while.
    pub(in crate::config) ejection: Ejection,
    /// How many calls it takes at a time.
    pub(in crate::config) admission: Admission,
    /// How long a connection may take to be made: TCP, TLS, and HTTP/2's SETTINGS. Default: 1s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) connect_timeout: Option<Duration>,
    /// TLS to the endpoints, of calls and of checks. Default: none.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<UpstreamTls>")]
    pub(in crate::config) tls: Option<UpstreamTls>,
    /// Which version of the PROXY protocol connections begin with, `v1` or `v2`: endpoints hear by it
    /// where the client comes from, and what it connected to. Connections are made for one client
    /// connection each then, instead of being shared by all. Probes on an endpoint's own port say
    /// that they are of nobody else. Default: none.
    pub(in crate::config) proxy_protocol: Option<ProxyVersion>,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// In binary.
    V2,
}

/// How an endpoint is picked for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalancing {
    /// The better of two random endpoints, by calls in flight.
    #[default]
    LeastRequest,
    /// Each endpoint in turn.
    RoundRobin,
}

/// How endpoints are probed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Probe {
    /// From one probe's start to the next, with up to 10 % of jitter. An endpoint that has become
    /// unhealthy is probed sooner, since mostly it is back soon: after 250 ms, and twice as long with
    /// each failure up to this; once it passes, again after 250 ms. While its port refuses
    /// connections it is tried each 100 ms for ten seconds, and once it listens again, or says itself
    /// that it serves, the passes that it needs are 30 ms apart: four times in a row, and once more
    /// every 15 s, so that one that comes and goes is not hurried. Default: 5s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) interval: Option<Duration>,
    /// How long all checks of one probe may take; shorter than the interval. Default: 2s, or half
    /// of the interval where that is shorter.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) timeout: Option<Duration>,
    /// Passed probes in a row that make an unhealthy endpoint healthy; how far they are apart stands
    /// at `interval`. Default: 2.
    pub(in crate::config) healthy_threshold: Option<u32>,
    /// Failed probes in a row that make a healthy endpoint unhealthy. One that answers a `grpc`
    /// check with NOT_SERVING is unhealthy at once. Where a connection that a check keeps, or a
    /// Watch, has broken, probes follow each other at once until one passes or there are enough
    /// of them (up to 10); else they are an interval apart. Default: 3.
    pub(in crate::config) unhealthy_threshold: Option<u32>,
    /// An endpoint that could not be probed for this long, for a cause on Upbeat's own side such
    /// as a lack of file descriptors, is unknown, which counts as not healthy; longer than
    /// the interval, its jitter and the timeout together. Default: three intervals and the timeout.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) stale_after: Option<Duration>,
    /// A probe passes when every check passes. At least one.
    pub(in crate::config) checks: Vec<Check>,
}

/// One part of a probe: exactly one of the keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Check {
    /// An empty OTLP Export, which every OpenTelemetry receiver answers with success.
    pub(in crate::config) otlp: Option<Otlp>,
    /// A call of `grpc.health.v1.Health/Check` that must answer SERVING.
    pub(in crate::config) grpc: Option<Grpc>,
    /// An HTTP/1.1 GET.
    pub(in crate::config) http: Option<Http>,
    /// A TCP connect. The only kind that keeps no connection, so that a death is seen at the next
    /// interval only.
    pub(in crate::config) tcp: Option<PortOnly>,
}

impl Check {
    /// Whether it is to go over TLS whatever the upstream says.
    pub(in crate::config) fn wants_tls(&self) -> bool {
        let all = [
            self.otlp.as_ref().and_then(|it| it.tls),
            self.grpc.as_ref().and_then(|it| it.tls),
            self.http.as_ref().and_then(|it| it.tls),
        ];
        all.contains(&Some(true))
    }
}

/// An empty OTLP Export.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Otlp {
    /// Default: the endpoint's own port.
    pub(in crate::config) port: Option<u16>,
    /// Whether it goes over TLS. Default: as the upstream's `tls` says.
    pub(in crate::config) tls: Option<bool>,
}

/// A check that has only a port to choose.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct PortOnly {
    /// Default: the endpoint's own port.
    pub(in crate::config) port: Option<u16>,
}

/// A call of `grpc.health.v1.Health/Check`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Grpc {
    /// Default: the endpoint's own port.
    pub(in crate::config) port: Option<u16>,
    /// The service asked for. Default: "", the server as a whole.
    pub(in crate::config) service: String,
    /// Metadata sent along, such as `x-scope-orgid` for a multi-tenant Tempo.
    pub(in crate::config) metadata: BTreeMap<String, String>,
    /// The `:authority` sent. Default: the endpoint's address.
    pub(in crate::config) authority: Option<String>,
    /// Hold a `Health/Watch` beside the calls of Check, so that NOT_SERVING is known when the
    /// endpoint says it: `auto`, `true` or `false`. Where it has no Watch (UNIMPLEMENTED), Check
    /// alone decides, until the endpoint comes back or its connections end; `true` says so in the
    /// log and in `/status`. Default: `auto`.
    pub(in crate::config) watch: Watch,
    /// Whether it goes over TLS. Default: as the upstream's `tls` says.
    pub(in crate::config) tls: Option<bool>,
}

/// An HTTP/1.1 GET.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Http {
    /// Default: the endpoint's own port.
    pub(in crate::config) port: Option<u16>,
    /// Default: `/ready`.
    pub(in crate::config) path: Option<String>,
    /// The status that passes. Default: 200.
    pub(in crate::config) status: Option<u16>,
    /// Whether it goes over TLS. Default: as the upstream's `tls` says.
    pub(in crate::config) tls: Option<bool>,
}
