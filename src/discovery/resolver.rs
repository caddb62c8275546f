//! One look-up in the DNS, on hickory-resolver.
//!
//! The search list is walked here, and A and AAAA are asked apart, since hickory takes what one of
//! them answers where the other fails, and goes on to the next name after any failure: a server in
//! trouble would take half of the endpoints away, or bring those of another name.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, future::try_join_all, stream};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, NoRecords, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, Record, RecordType},
    },
};

use crate::config::{Endpoint, Family};

/// What a look-up found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// At least one.
    pub(super) endpoints: BTreeSet<Endpoint>,
    /// For how long that holds; none where it is not said.
    pub(super) ttl: Option<Duration>,
}

/// Who is asked.
pub(super) struct Resolver {
    inner: TokioResolver,
    /// What is put behind a name.
    search: Vec<Name>,
    /// A name with fewer dots is tried behind the search list.
    ndots: usize,
}

/// Records of one kind, with the shortest TTL on the way to them. None where a name has none.
type Records<T> = Result<Option<(Vec<T>, Duration)>, String>;

impl Resolver {
    /// One that asks `servers`, without a search list.
    pub(super) fn of(servers: &[SocketAddr]) -> Result<Self, String> {
        let servers = servers.iter().map(|server| name_server(*server)).collect();
        let mut options = ResolverOpts::default();
        options.timeout = TRY;
        Self::new(ResolverConfig::from_name_servers(servers), options)
    }

    pub(super) fn new(config: ResolverConfig, mut options: ResolverOpts) -> Result<Self, String> {
        // What holds for how long is `dns`'s to say, and the hosts file `system`'s.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let search = match config.search() {
            // The host's own domain, where it has one.
            [] => config.domain().into_iter().cloned().collect(),
            search => search.to_vec(),
        };
        let ndots = options.ndots;
        let inner = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(|error| words(&error))?;
        Ok(Self { inner, search, ndots })
    }

    /// The addresses of `name`, each with `port`.
    pub(super) async fn addresses(
        &self,
        name: &str,
        port: u16,
        family: Family,
    ) -> Result<Answer, String> {
        for name in self.candidates(name)? {
            if let Some((addresses, ttl)) = self.ips(&name, family).await? {
                let endpoint = |ip| SocketAddr::new(ip, port).into();
                let endpoints = addresses.into_iter().map(endpoint).collect();
                return Ok(Answer { endpoints, ttl: Some(ttl) });
            }
        }
        Err("no such name, or it has no address".to_owned())
    }

    /// The addresses of the targets of `name`, each with its port; backups are those of another
    /// priority than the first. A target that has none, such as one that has just gone, is passed
    /// over.
    pub(super) async fn services(&self, name: &str) -> Result<Answer, String> {
        for name in self.candidates(name)? {
            let Some((services, ttl)) = self.ask(&name, RecordType::SRV, service).await? else {
                continue;
            };
            let first = services.iter().map(|(priority, ..)| *priority).min();
            let found = stream::iter(services)
                .map(async |(priority, target, port)| {
                    let ips = self.ips(&target, Family::Any).await?;
                    Ok::<_, String>((ips, port, Some(priority) != first))
                })
                .buffer_unordered(AT_ONCE);
            let found: Vec<_> = found.try_collect().await?;
            let ttls = found.iter().filter_map(|(ips, ..)| Some(ips.as_ref()?.1));
            let ttl = ttls.fold(ttl, Duration::min);
            let endpoints = found.into_iter().flat_map(|(ips, port, backup)| {
                let ips = ips.map(|(ips, _)| ips).unwrap_or_default();
                ips.into_iter().map(move |ip| Endpoint { backup, address: (ip, port).into() })
            });
            let endpoints: BTreeSet<_> = endpoints.collect();
            if endpoints.is_empty() {
                return Err("none of its targets has an address".to_owned());
            }
            return Ok(Answer { endpoints, ttl: Some(ttl) });
        }
        Err("no such name, or it has no SRV record".to_owned())
    }

    /// The whole names to ask for.
    pub(super) fn candidates(&self, name: &str) -> Result<Vec<Name>, String> {
        Ok(candidates(&parse(name)?, &self.search, self.ndots))
    }

    /// All addresses of a name that is whole; an error where only some of them may be known.
    async fn ips(&self, name: &Name, family: Family) -> Records<IpAddr> {
        let asked = kinds(family).iter().map(|kind| self.ask(name, *kind, ip));
        let found = try_join_all(asked).await?.into_iter().flatten();
        Ok(found.reduce(|(mut ips, ttl), (others, other)| {
            ips.extend(others);
            (ips, ttl.min(other))
        }))
    }

    async fn ask<T>(
        &self,
        name: &Name,
        kind: RecordType,
        read: impl Fn(&Record) -> Option<T>,
    ) -> Records<T> {
        let lookup = match self.inner.lookup(name.clone(), kind).await {
            Ok(lookup) => lookup,
            Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords {
                response_code: ResponseCode::NXDomain | ResponseCode::NoError,
                ..
            }))) => return Ok(None),
            Err(error) => return Err(format!("{kind} of {name}: {}", words(&error))),
        };
        let found: Vec<_> = lookup.answers().iter().filter_map(&read).collect();
        // Of aliases on the way too.
        let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
        Ok((!found.is_empty()).then(|| (found, Duration::from_secs(ttl.into()))))
    }
}

/// In the order of resolv.conf(5).
fn candidates(name: &Name, search: &[Name], ndots: usize) -> Vec<Name> {
    let mut whole = name.clone();
    whole.set_fqdn(true);
    if name.is_fqdn() {
        return vec![whole];
    }
    let dots = usize::from(name.num_labels()).saturating_sub(1);
    let mut names: Vec<_> =
        search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()).collect();
    let place = if dots >= ndots { 0 } else { names.len() };
    names.insert(place, whole);
    names
}

pub(super) fn parse(name: &str) -> Result<Name, String> {
    Name::from_ascii(name).map_err(|error| error.to_string())
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

pub(super) fn kinds(family: Family) -> &'static [RecordType] {
    match family {
        Family::Any => &[RecordType::A, RecordType::AAAA],
        Family::V4 => &[RecordType::A],
        Family::V6 => &[RecordType::AAAA],
    }
}

pub(super) fn ip(record: &Record) -> Option<IpAddr> {
    record.data.ip_addr()
}

/// Priority, target and port; the root as a target says that there is no such service (RFC 2782).
fn service(record: &Record) -> Option<(u16, Name, u16)> {
    match &record.data {
        RData::SRV(srv) if !srv.target.is_root() && srv.port > 0 => {
            Some((srv.priority, srv.target.clone(), srv.port))
        }
        _ => None,
    }
}

fn words(error: &NetError) -> String {
    match error {
        NetError::Timeout => "no answer".to_owned(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("{code:?}").to_uppercase(),
        error => error.to_string(),
    }
}

/// How long one try may take, where the system does not say.
const TRY: Duration = Duration::from_secs(1);
/// Targets that are looked up at the same time.
const AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(name: &str) -> Vec<String> {
        let search = ["ns.svc.cluster.local", "cluster.local."].map(|name| parse(name).unwrap());
        let names = candidates(&parse(name).unwrap(), &search, 5);
        names.iter().map(Name::to_string).collect()
    }

    #[test]
    fn the_search_list_is_walked_as_the_system_walks_it() {
        assert_eq!(tried("tempo."), ["tempo."]);
        assert_eq!(
            tried("tempo.other"),
            ["tempo.other.ns.svc.cluster.local.", "tempo.other.cluster.local.", "tempo.other."]
        );
        assert_eq!(tried("a.b.c.d.e.f")[0], "a.b.c.d.e.f.");
        assert_eq!(tried("_grpc._tcp.tempo")[0], "_grpc._tcp.tempo.ns.svc.cluster.local.");
    }
}
