//! Who may connect to a listener.

use std::net::IpAddr;

use super::super::value::Range;

/// Who may connect to a listener.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// From where; none where everyone may.
    pub allow: Option<Vec<Range>>,
}

impl Access {
    /// Whether connections from an address are taken.
    pub fn allows(&self, client: IpAddr) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow.iter().any(|range| range.contains(client)))
    }
}
