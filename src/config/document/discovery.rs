//! Where endpoints are found that the configuration does not list, as the YAML has it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

/// A name whose addresses are the endpoints. It is looked up in the background: again when the
/// TTL of the answer has run out, but not before `min_refresh`, and at the latest after
/// `refresh_interval`, with up to 10 % of jitter. A look-up that fails is repeated after
/// `min_refresh`, then after twice as long, up to `refresh_interval`. Only an answer with addresses
/// changes the endpoints: after an error, NXDOMAIN and an empty answer among them, the last ones
/// stay, since their probes tell well enough whether they still serve. Of one answer at most 1000
/// endpoints are taken.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Dns {
    /// The name, such as `tempo-distributor-headless`. Required. One that ends in a dot is taken as
    /// it is; else the system's search list applies.
    pub(in crate::config) name: Option<String>,
    /// Which records tell the endpoints. Default: `address`.
    #[serde(rename = "type")]
    pub(in crate::config) records: Records,
    /// The port of every endpoint. Required, but for `srv`, where the answer tells it.
    pub(in crate::config) port: Option<u16>,
    /// The longest time between two look-ups. Default: 10s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) refresh_interval: Option<Duration>,
    /// The shortest time between two look-ups, whatever the TTL. Default: 1s, or
    /// `refresh_interval` where that is shorter.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) min_refresh: Option<Duration>,
    /// The servers that are asked, IP address and port each; they are asked for the name as it is,
    /// without a search list. Default: the system's, from `/etc/resolv.conf` with its search list
    /// and ndots, behind `/etc/hosts`.
    #[schemars(with = "Vec<String>")]
    pub(in crate::config) resolvers: Vec<SocketAddr>,
}

/// Which records of a name tell the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Records {
    /// A and AAAA. Where either cannot be asked for, the last endpoints stay.
    #[default]
    Address,
    /// A alone, such as where pods have addresses of both kinds and shall not count twice.
    A,
    /// AAAA alone.
    Aaaa,
    /// SRV, and the A and AAAA of their targets, each with the same weight. Targets of another
    /// priority than the first are backups.
    Srv,
}

/// A file that lists the endpoints: a YAML or JSON list such as `["10.0.0.1:4317"]`, at most 1000;
/// each may be written as `{ address: "10.0.0.1:4317", backup: true }` too. It is read every second,
/// so that a Kubernetes ConfigMap may be mounted there. A file that cannot be read, or that lists no
/// endpoint, leaves the last ones as they are.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct File {
    /// Where it is. Required.
    pub(in crate::config) path: Option<PathBuf>,
}
