//! Listeners, as the YAML has them.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    super::{
        limits::LimitsPer,
        value::{Cap, Range},
    },
    Auth, NotServingAs, Tenant,
    route::{Retry, Route, Timeouts},
    tls::{ListenerTls, given},
};

/// One address where clients connect.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Listener {
    /// The listener's name in logs and metrics. Required, unique.
    pub(in crate::config) name: Option<String>,
    /// IP address and port, such as `0.0.0.0:4317`. Required.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) address: Option<SocketAddr>,
    /// TLS on this port. Default: none.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<ListenerTls>")]
    pub(in crate::config) tls: Option<ListenerTls>,
    /// The upstream that calls are forwarded to. Default: none, the listener answers health only.
    pub(in crate::config) upstream: Option<String>,
    /// Where calls go instead, by the first route that fits. Default: none.
    pub(in crate::config) routes: Vec<Route>,
    /// How long calls may take, beside what their clients say by grpc-timeout.
    pub(in crate::config) timeouts: Timeouts,
    /// When a call that a backend may have seen is placed again. Default: never.
    pub(in crate::config) retry: Option<Retry>,
    /// Default: `limits.max_connections`.
    pub(in crate::config) max_connections: Option<u32>,
    /// Default: `limits.max_connections_per_address`.
    pub(in crate::config) max_connections_per_address: Option<Cap>,
    /// Default: `limits.max_concurrent_streams`.
    pub(in crate::config) max_concurrent_streams: Option<u32>,
    /// Default: `limits.idle_timeout`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) idle_timeout: Option<Duration>,
    /// Default: `limits.max_connection_age`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) max_connection_age: Option<Duration>,
    /// Where connections may come from, such as `10.0.0.0/8`, `2001:db8::/32` or
    /// `gcp-health-checks`, which are 35.191.0.0/16 and 130.211.0.0/22; any other one is closed at
    /// once, unread. Default: anywhere.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<Vec<Range>>")]
    pub(in crate::config) allow: Option<Vec<Range>>,
    /// Whether connections begin with a PROXY header, version 1 or 2, which says who the client is:
    /// for `allow`, `max_connections_per_address` and the log. Default: `none`.
    pub(in crate::config) proxy_protocol: ProxyProtocol,
    /// Who is believed so, as in `allow`: the load balancers. Required with `proxy_protocol`. From
    /// anyone else a header is never read, and where it is `required` the connection is closed.
    pub(in crate::config) proxy_protocol_from: Vec<Range>,
    /// Whether endpoints are told the client's address by `x-forwarded-for`. What a client sends
    /// under that name is taken out, since anybody can write it. Default: false.
    pub(in crate::config) x_forwarded_for: bool,
    /// What calls must prove. Default: nothing.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<Auth>")]
    pub(in crate::config) auth: Option<Auth>,
    /// Which tenants may call. Default: all, and one without too; with `auth` the ones that it
    /// sets.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<Tenant>")]
    pub(in crate::config) tenant: Option<Tenant>,
    /// How much one tenant, or one client address, may ask for. Default: no bound.
    pub(in crate::config) limits_per: LimitsPer,
    /// The largest gRPC message in either direction. Default: what the backend takes, 4 MiB where
    /// the upstream is probed by `otlp`, else 16 MiB.
    #[schemars(with = "Option<String>")]
    pub(in crate::config) max_message_size: Option<ByteSize>,
    /// Overrides of the `health` section for this listener.
    pub(in crate::config) health: ListenerHealth,
}

/// Whether connections begin with a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// They do not.
    #[default]
    None,
    /// They may; one without is its sender's own.
    Optional,
    /// They do; one without is closed.
    Required,
}

/// A listener's own way to answer health checks.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct ListenerHealth {
    /// Default: `health.not_serving_as`.
    pub(in crate::config) not_serving_as: Option<NotServingAs>,
    /// Beside those of `health.not_serving_as_for`, or in the place of those of the same name.
    pub(in crate::config) not_serving_as_for: BTreeMap<String, NotServingAs>,
}
