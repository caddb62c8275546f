//! How the system resolves names: its hosts file, and behind it the servers and the search list of
//! resolv.conf.

use std::{collections::BTreeSet, fs, net::SocketAddr};

use hickory_resolver::{
    Hosts,
    config::{ResolverConfig, ResolverOpts},
    net::NetError,
    proto::op::Query,
    system_conf::parse_resolv_conf,
};
use tokio::task::spawn_blocking;

use super::resolver::{Answer, Resolver, ip, kinds, parse};
use crate::config::Family;

/// Both files. They are read for each look-up, and taken apart where they have changed, since what
/// is odd in them is logged each time.
#[derive(Default)]
pub(super) struct System {
    files: [Vec<u8>; 2],
    hosts: Hosts,
    servers: Option<Result<(ResolverConfig, ResolverOpts), NetError>>,
}

impl System {
    /// Sees what the files say now. One that cannot be read is as good as empty.
    pub(super) async fn refresh(&mut self) {
        let read = || [HOSTS, RESOLV_CONF].map(|path| fs::read(path).unwrap_or_default());
        match spawn_blocking(read).await {
            Ok(files) if self.servers.is_none() || files != self.files => self.take(files),
            // As before, or the process is about to end.
            _ => {}
        }
    }

    fn take(&mut self, files: [Vec<u8>; 2]) {
        let [hosts, resolv_conf] = &files;
        self.hosts = Hosts::default();
        // Lines that cannot be read are passed over; a file of other bytes than text is.
        _ = self.hosts.read_hosts_conf(&hosts[..]);
        self.servers = Some(parse_resolv_conf(resolv_conf));
        self.files = files;
    }

    /// The addresses that the hosts file has for a name.
    pub(super) fn known(&self, name: &str, port: u16, family: Family) -> Option<Answer> {
        let name = parse(name).ok()?;
        let asked = kinds(family).iter().map(|kind| Query::query(name.clone(), *kind));
        let known = asked.filter_map(|query| self.hosts.lookup_static_host(&query));
        let records = known.flat_map(|lookup| lookup.answers().to_vec());
        let ips = records.filter_map(|record| ip(&record));
        let endpoints: BTreeSet<_> = ips.map(|ip| SocketAddr::new(ip, port).into()).collect();
        (!endpoints.is_empty()).then_some(Answer { endpoints, ttl: None })
    }

    /// One that asks the servers of resolv.conf.
    pub(super) fn resolver(&self) -> Result<Resolver, String> {
        match &self.servers {
            Some(Ok((config, options))) => Resolver::new(config.clone(), options.clone()),
            Some(Err(error)) => Err(format!("{RESOLV_CONF}: {error}")),
            None => Err(format!("{RESOLV_CONF} was not read")),
        }
    }
}

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_comes_first_and_needs_no_server() {
        let mut system = System::default();
        let hosts = "127.0.0.1 localhost tempo\n::1 localhost # both\nodd line\n10.0.0.9 Tempo\n";
        system.take([hosts.into(), Vec::new()]);
        let known = |name, family| {
            let answer = system.known(name, 1, family);
            answer.map(|it| it.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let list = |addresses: &[&str]| Some(addresses.iter().map(ToString::to_string).collect());
        assert_eq!(known("localhost", Family::Any), list(&["127.0.0.1:1", "[::1]:1"]));
        assert_eq!(known("localhost", Family::V6), list(&["[::1]:1"]));
        assert_eq!(known("tempo", Family::Any), list(&["10.0.0.9:1", "127.0.0.1:1"]));
        assert_eq!(known("other", Family::Any), None);
        let why = system.resolver().err().unwrap();
        assert_eq!(why, "/etc/resolv.conf: io error: no nameservers found in config");
    }

    #[test]
    fn resolv_conf_tells_the_search_list_and_the_dots() {
        let mut system = System::default();
        let text = "nameserver 10.96.0.10\nsearch a.local b.local\noptions ndots:5\n";
        system.take([Vec::new(), text.into()]);
        let names = system.resolver().unwrap().candidates("tempo.other").unwrap();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["tempo.other.a.local.", "tempo.other.b.local.", "tempo.other."]);
    }
}
