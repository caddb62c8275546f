//! What the configuration's files of certificates and keys have in them.

use std::sync::Arc;

use crate::{
    config::{Config, Problems},
    tls::Acceptor,
};

/// The certificates of one configuration, read and found to be of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates {
    /// Of each listener, where it speaks TLS.
    pub(super) listeners: Vec<Option<Arc<Acceptor>>>,
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
        if problems.is_empty() {
            let listeners = listeners.into_iter().map(|it| it.map(Arc::new)).collect();
            return Ok(Self { listeners });
        }
        problems.sort_by_key(|problem| problem.line);
        Err(Problems(problems))
    }
}
