//! The rules of the `health` section.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        checked::{Health, Upstream},
        document,
        lines::join,
    },
    Checker,
};

impl Checker<'_> {
    pub(super) fn health(&mut self, raw: document::Health, upstreams: &[Upstream]) -> Health {
        let mut services = BTreeMap::new();
        for (service, raw) in raw.services {
            let path = format!("{}.all", join("health.services", &service));
            if raw.all.is_empty() {
                self.problem(&path, "at least one upstream is required");
            }
            for (index, name) in raw.all.iter().enumerate() {
                self.upstream_named(&format!("{path}[{index}]"), name, upstreams);
            }
            services.insert(service, raw.all);
        }
        services
            .entry(String::new())
            .or_insert_with(|| upstreams.iter().map(|upstream| upstream.name.clone()).collect());
        let paths = raw.paths.unwrap_or_else(|| DEFAULT_PATHS.map(str::to_owned).to_vec());
        let mut seen = BTreeSet::new();
        for (index, path) in paths.iter().enumerate() {
            let at = format!("health.paths[{index}]");
            if !path.starts_with('/') || path.contains(['?', '#', ' ']) {
                self.problem(
                    &at,
                    format!("{path:?} is not a path without a query, such as /healthz"),
                );
            } else if path == "/livez" {
                self.problem(
                    &at,
                    "/livez says whether the process runs, not whether it serves: leave it out",
                );
            } else if !seen.insert(path) {
                self.problem(&at, format!("{path:?} is listed twice"));
            }
        }
        Health { services, paths }
    }
}

const DEFAULT_PATHS: [&str; 3] = ["/healthz", "/readyz", "/ready"];
