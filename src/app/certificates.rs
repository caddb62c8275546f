//! What the configuration's files of certificates and keys have in them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tracing::warn;

use crate::{
    admin,
    config::{Config, ListenerTls, Problems, UpstreamTls},
    metrics::{CertificateLabels, Metrics, Text},
    tls::{Acceptor, Connector},
};

/// The certificates of one configuration, read and found to be of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates {
    /// Of each listener, where it speaks TLS.
    pub(super) listeners: Vec<Option<Arc<Acceptor>>>,
    /// Of each upstream that speaks TLS, by its name.
    pub(super) upstreams: BTreeMap<String, Arc<Connector>>,
    /// Of the admin server, where it speaks TLS.
    pub(super) admin: Option<Arc<Acceptor>>,
    /// Of each listener whose tokens' keys are fetched over TLS, by its name.
    pub(super) keys: BTreeMap<String, Arc<Connector>>,
}

impl Certificates {
    /// Reads the files that `config` names.
    ///
    /// # Errors
    /// Everything that is wrong with them, in the order of the configuration's lines.
    pub fn read(config: &Config) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let mut accepts = |tls: &Option<ListenerTls>| {
            let made = tls.as_ref().map(Acceptor::new).transpose();
            made.unwrap_or_else(|more| {
                problems.extend(more.into_iter().map(|it| config.locate(it)));
                None
            })
        };
        let listeners: Vec<_> = config.listeners.iter().map(|it| accepts(&it.tls)).collect();
        let admin = accepts(&config.admin.tls).map(|it| Arc::new(it.without_http2()));
        let mut connectors = |name: &String, tls: Option<&UpstreamTls>| match Connector::new(tls?) {
            Ok(made) => Some((name.clone(), Arc::new(made))),
            Err(more) => {
                problems.extend(more.into_iter().map(|it| config.locate(it)));
                None
            }
        };
        let upstreams = config.upstreams.iter();
        let upstreams = upstreams.filter_map(|it| connectors(&it.name, it.tls.as_ref())).collect();
        let keys = config.listeners.iter();
        let keys = keys.filter_map(|it| connectors(&it.name, it.keys_from()?.tls.as_ref()));
        let keys = keys.collect();
        if problems.is_empty() {
            let listeners = listeners.into_iter().map(|it| it.map(Arc::new)).collect();
            return Ok(Self { listeners, upstreams, admin, keys });
        }
        problems.sort_by_key(|problem| problem.line);
        Err(Problems(problems))
    }

    /// Keeps what was made for `old` where the same would be made again: with another key for their
    /// tickets, clients could not resume their sessions. `config` is what these were read for.
    pub(super) fn keep(&mut self, config: &Config, old: (&Config, &Self)) {
        let before = old.0.listeners.iter().map(|it| &it.name).zip(&old.1.listeners);
        let before: BTreeMap<_, _> = before.collect();
        for (it, tls) in config.listeners.iter().zip(&mut self.listeners) {
            if let Some(same) = before.get(&it.name).filter(|same| **same == tls) {
                tls.clone_from(same);
            }
        }
        if self.admin == old.1.admin {
            self.admin.clone_from(&old.1.admin);
        }
    }

    /// Tells when they end: the metrics, and the log where that is soon. `config` is what they were
    /// read for.
    pub(super) fn tell(&self, config: &Config, metrics: &Metrics) {
        let listeners = config.listeners.iter().zip(&self.listeners);
        let listeners =
            listeners.filter_map(|(it, tls)| Some((&*it.name, "", tls.as_ref()?.ends())));
        let upstreams = self.upstreams.iter().map(|(name, tls)| ("", &**name, tls.ends()));
        let admin = self.admin.iter().map(|tls| (admin::LISTENER, "", tls.ends()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let mut all = Vec::new();
        for (listener, upstream, ends) in listeners.chain(upstreams).chain(admin) {
            for (file, end) in ends {
                let file = file.display().to_string();
                let days = (end - now).div_euclid(DAY);
                if days < SOON {
                    warn!(listener, upstream, file, days, "a certificate ends soon, or has ended");
                }
                let [listener, upstream, file] = [listener, upstream, &file].map(Text::from);
                all.push((CertificateLabels { listener, upstream, file }, *end));
            }
        }
        metrics.shown(&all);
    }
}

/// In seconds.
const DAY: i64 = 24 * 3600;
/// How many days before its end a certificate is warned of.
const SOON: i64 = 14;
