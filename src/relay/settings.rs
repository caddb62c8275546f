//! What a configuration says of a worker's calls.

use std::sync::Arc;

use super::Listener;
use crate::config;

/// What new calls go by.
#[derive(Debug)]
pub struct Settings {
    /// All listeners.
    pub listeners: Vec<Arc<Listener>>,
    /// Of these, what concerns endpoints.
    pub limits: config::Limits,
}

impl Settings {
    /// What is now the listener of this name; itself where it is not there any more.
    pub(super) fn current<'a>(&'a self, listener: &'a Arc<Listener>) -> &'a Arc<Listener> {
        self.listeners.iter().find(|other| other.name == listener.name).unwrap_or(listener)
    }
}
