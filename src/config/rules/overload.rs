//! The rules of ejection and admission, and of what calls are hashed by.

use super::{
    super::document::{Admission, Ejection},
    Checker,
    upstream::is_reserved,
};

impl Checker<'_> {
    pub(super) fn ejection(&mut self, path: &str, ejection: &Ejection) {
        let path = format!("{path}.ejection");
        self.at_least_one(&format!("{path}.consecutive"), Some(ejection.consecutive));
        self.at_least_one(&format!("{path}.min_calls"), Some(ejection.min_calls));
        self.positive(&format!("{path}.base_time"), Some(ejection.base_time));
        self.positive(&format!("{path}.max_time"), Some(ejection.max_time));
        if ejection.max_time < ejection.base_time && !self.is_told(&format!("{path}.base_time")) {
            let message = format!(
                "{} must not be shorter than ejection.base_time ({})",
                humantime::format_duration(ejection.max_time),
                humantime::format_duration(ejection.base_time)
            );
            self.problem(&format!("{path}.max_time"), message);
        }
    }

    pub(super) fn admission(&mut self, path: &str, admission: &Admission) {
        self.positive(&format!("{path}.admission.queue_timeout"), Some(admission.queue_timeout));
    }

    pub(super) fn hash_by(&mut self, path: &str, name: Option<&str>) {
        let path = format!("{path}.hash_by");
        match name.map(|name| (name, http::HeaderName::from_lowercase(name.as_bytes()))) {
            Some((name, Ok(_))) if is_reserved(name) => {
                self.problem(&path, "is set by the protocol: name metadata of the callers");
            }
            Some((name, Err(_))) => {
                self.problem(&path, format!("{name:?} is not a lower-case header name"));
            }
            Some((_, Ok(_))) | None => {}
        }
    }
}
