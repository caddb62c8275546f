//! The rules of who may connect to a listener.

use super::{
    super::{
        checked::Access,
        document::{self, ProxyProtocol},
    },
    Checker,
};

impl Checker<'_> {
    /// Who may connect to the listener at `path`.
    pub(super) fn access(&mut self, path: &str, raw: &document::Listener) -> Access {
        if raw.allow.as_ref().is_some_and(Vec::is_empty) {
            let words = "must not be empty, since nobody could connect: leave it out for everyone";
            self.problem(&format!("{path}.allow"), words);
        }
        let from = format!("{path}.proxy_protocol_from");
        let known = !self.is_told(&format!("{path}.proxy_protocol"));
        match (raw.proxy_protocol, raw.proxy_protocol_from.is_empty()) {
            (ProxyProtocol::None, false) if known => {
                self.problem(&from, "says nothing without proxy_protocol: optional, or required");
            }
            (ProxyProtocol::Optional | ProxyProtocol::Required, true) => {
                let words = "is required: the load balancers that are believed, such as 10.0.0.0/8";
                self.problem(&from, words);
            }
            _ => {}
        }
        Access {
            allow: raw.allow.clone(),
            proxy_protocol: raw.proxy_protocol,
            proxy_protocol_from: raw.proxy_protocol_from.clone(),
            x_forwarded_for: raw.x_forwarded_for,
        }
    }
}
