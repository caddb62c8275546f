//! What the configuration's files of certificates and keys have in them.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    config::{Config, Problems},
    tls::{Acceptor, Connector},
};

/// The certificates of one configuration, read and found to be of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates {
    /// Of each listener, where it speaks TLS.
    pub(super) listeners: Vec<Option<Arc<Acceptor>>>,
    /// Of each upstream that speaks TLS, by its name.
    pub(super) upstreams: BTreeMap<String, Arc<Connector>>,
}

impl Certificates {
    /// Reads the files that `config` names.
    ///
    /// # Errors
    /// Everything that is wrong with them, in the order of the configuration's lines.
    pub fn read(config: &Config) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let mut listeners = Vec::new();
        for listener in &config.listeners {
            let made = listener.tls.as_ref().map(Acceptor::new).transpose();
            listeners.push(made.unwrap_or_else(|more| {
                problems.extend(more.into_iter().map(|it| config.locate(it)));
                None
            }));
        }
        let mut upstreams = BTreeMap::new();
        for upstream in &config.upstreams {
            match upstream.tls.as_ref().map(Connector::new) {
                None => {}
                Some(Ok(made)) => drop(upstreams.insert(upstream.name.clone(), Arc::new(made))),
                Some(Err(more)) => problems.extend(more.into_iter().map(|it| config.locate(it))),
            }
        }
        if problems.is_empty() {
            let listeners = listeners.into_iter().map(|it| it.map(Arc::new)).collect();
            return Ok(Self { listeners, upstreams });
        }
        problems.sort_by_key(|problem| problem.line);
        Err(Problems(problems))
    }
}
