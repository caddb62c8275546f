//! The rules of endpoints that are found elsewhere.

use std::{net::IpAddr, time::Duration};

use super::{
    super::{
        checked::{Discovery, Dns, Family, File, Lookup},
        document::{self, Records},
        lines::join,
    },
    Checker,
    upstream::PORT_0,
};

impl Checker<'_> {
    /// Where the endpoints of the upstream at `path` are found, where it does not list them.
    pub(super) fn discovery(
        &mut self,
        path: &str,
        listed: usize,
        dns: Option<document::Dns>,
        file: Option<document::File>,
    ) -> Option<Discovery> {
        match (listed, dns, file) {
            (0, Some(dns), None) => self.dns(&format!("{path}.dns"), dns).map(Discovery::Dns),
            (0, None, Some(file)) => {
                let wanted = "where the list is, such as /etc/upbeat/endpoints.yaml";
                let path = self.required(&format!("{path}.file.path"), file.path, wanted)?;
                Some(Discovery::File(File { path }))
            }
            // One that could not be read is not missing.
            (0, None, None) if ["dns", "file"].iter().any(|key| self.is_told(&join(path, key))) => {
                None
            }
            (0, None, None) => {
                let message = "at least one endpoint is required, or dns or file in their place";
                self.problem(&format!("{path}.endpoints"), message);
                None
            }
            (1.., None, None) => None,
            (_, dns, file) => {
                let given =
                    [("endpoints", listed > 0), ("dns", dns.is_some()), ("file", file.is_some())];
                let given = given.into_iter().filter_map(|(key, given)| given.then_some(key));
                let given = given.collect::<Vec<_>>().join(" and ");
                let message =
                    format!("has {given}: keep one of them, which says where the endpoints are");
                self.problem(path, message);
                None
            }
        }
    }

    fn dns(&mut self, path: &str, raw: document::Dns) -> Option<Dns> {
        let named = format!("{path}.name");
        let name = self.required(
            &named,
            raw.name,
            "what is looked up, such as tempo-distributor-headless",
        );
        let name = name.filter(|name| match fault(name) {
            Some(fault) => {
                self.problem(&named, format!("{name:?} {fault}"));
                false
            }
            None => true,
        });
        let lookup = self.lookup(&format!("{path}.port"), raw.records, raw.port);
        let refresh_interval = raw.refresh_interval.unwrap_or(Duration::from_secs(10));
        let min_refresh = raw.min_refresh.unwrap_or_else(|| SHORTEST.min(refresh_interval));
        self.positive(&format!("{path}.refresh_interval"), raw.refresh_interval);
        self.positive(&format!("{path}.min_refresh"), raw.min_refresh);
        if min_refresh > refresh_interval {
            let message = format!(
                "{} must not be longer than refresh_interval ({})",
                humantime::format_duration(min_refresh),
                humantime::format_duration(refresh_interval)
            );
            self.problem(&format!("{path}.min_refresh"), message);
        }
        for (index, resolver) in raw.resolvers.iter().enumerate() {
            if resolver.port() == 0 {
                self.problem(&format!("{path}.resolvers[{index}]"), PORT_0);
            }
        }
        let (name, lookup, resolvers) = (name?, lookup?, raw.resolvers);
        Some(Dns { name, lookup, refresh_interval, min_refresh, resolvers })
    }

    fn lookup(&mut self, path: &str, records: Records, port: Option<u16>) -> Option<Lookup> {
        let family = match records {
            Records::Address => Family::Any,
            Records::A => Family::V4,
            Records::Aaaa => Family::V6,
            Records::Srv if port.is_none() => return Some(Lookup::Srv),
            Records::Srv => {
                self.problem(path, "is told by each SRV record: leave it out");
                return None;
            }
        };
        if port == Some(0) {
            self.problem(path, PORT_0);
        }
        let port = self.required(path, port, "addresses have none")?;
        Some(Lookup::Address { port, family })
    }
}

/// What is wrong with a name. Underscores are right in those of SRV records (RFC 2782).
fn fault(name: &str) -> Option<&'static str> {
    if name.parse::<IpAddr>().is_ok() {
        return Some("is an address: list it under endpoints, with its port");
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let well_formed = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let valid = name.len() <= 253 && name.split('.').all(well_formed);
    (!valid).then_some("is not a host name, such as tempo-distributor-headless")
}

/// Between two look-ups where nothing is said.
const SHORTEST: Duration = Duration::from_secs(1);
