//! Who may connect to a listener.

use std::net::IpAddr;

use super::super::{document::ProxyProtocol, value::Range};

/// Who may connect to a listener.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// From where; none where everyone may.
    pub allow: Option<Vec<Range>>,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: ProxyProtocol,
    /// Whose headers are believed.
    pub proxy_protocol_from: Vec<Range>,
    /// Whether endpoints are told the client's address.
    pub x_forwarded_for: bool,
}

impl Access {
    /// Whether connections from an address are taken.
    pub fn allows(&self, client: IpAddr) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow.iter().any(|range| range.contains(client)))
    }

    /// Whether `sender` may say by a PROXY header for whom it connects.
    pub fn is_told_by(&self, sender: IpAddr) -> bool {
        self.proxy_protocol != ProxyProtocol::None
            && self.proxy_protocol_from.iter().any(|range| range.contains(sender))
    }
}
