//! The rules of who may connect to a listener.

use super::{
    super::{checked::Access, document},
    Checker,
};

impl Checker<'_> {
    /// Who may connect to the listener at `path`.
    pub(super) fn access(&mut self, path: &str, raw: &document::Listener) -> Access {
        if raw.allow.as_ref().is_some_and(Vec::is_empty) {
            let words = "must not be empty, since nobody could connect: leave it out for everyone";
            self.problem(&format!("{path}.allow"), words);
        }
        Access { allow: raw.allow.clone() }
    }
}
