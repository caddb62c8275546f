//! The rules of the `health` section.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    super::{
        checked::{Health, Service, Upstream},
        document::{self, AllDownPolicy},
        lines::join,
        view::{AtLeast, Part, Section, View},
    },
    Checker,
};

impl Checker<'_> {
    pub(super) fn health(&mut self, raw: document::Health, upstreams: &[Upstream]) -> Health {
        let mut services = BTreeMap::new();
        for (name, raw) in raw.services {
            let path = join("health.services", &name);
            self.at_most_a_year(&format!("{path}.hold"), raw.hold);
            let hold = raw.hold.unwrap_or_default();
            let view = self.view(&path, raw, upstreams);
            services.insert(name, Service { view, hold });
        }
        services.entry(String::new()).or_insert_with(|| {
            let all = upstreams.iter().map(|upstream| View::Upstream(upstream.name.clone()));
            Service { view: View::All(all.collect()), hold: Duration::ZERO }
        });
        let all_down = raw.all_down;
        self.positive("health.all_down.dwell", all_down.dwell);
        if all_down.dwell.is_some() && all_down.policy == AllDownPolicy::Withdraw {
            self.problem("health.all_down.dwell", "means nothing without policy: stay");
        }
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
        let details = raw.details.unwrap_or(true);
        Health { services, all_down, details, paths, reflection: raw.reflection }
    }

    /// The expression at `path`.
    fn view(&mut self, path: &str, raw: Section, upstreams: &[Upstream]) -> View<String> {
        let Section { all, any, not, at_least, hold: _ } = raw;
        let given = [all.is_some(), any.is_some(), not.is_some(), at_least.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            self.problem(path, "exactly one of all, any, not and at_least is required");
        }
        if let Some(parts) = all {
            View::All(self.views(&format!("{path}.all"), parts, upstreams))
        } else if let Some(parts) = any {
            View::Any(self.views(&format!("{path}.any"), parts, upstreams))
        } else if let Some(part) = not {
            View::Not(Box::new(self.part(&format!("{path}.not"), part, upstreams)))
        } else if let Some(AtLeast { count, of }) = at_least {
            let path = format!("{path}.at_least");
            if count as usize > of.len() {
                let words = format!("{count} of {} can never be: give more, or ask less", of.len());
                self.problem(&format!("{path}.count"), words);
            }
            self.at_least_one(&format!("{path}.count"), Some(count));
            View::AtLeast(count as usize, self.views(&format!("{path}.of"), of, upstreams))
        } else {
            View::All(Vec::new())
        }
    }

    fn views(&mut self, path: &str, parts: Vec<Part>, upstreams: &[Upstream]) -> Vec<View<String>> {
        if parts.is_empty() {
            self.problem(path, "at least one upstream is required");
        }
        let parts = parts.into_iter().enumerate();
        parts.map(|(index, part)| self.part(&format!("{path}[{index}]"), part, upstreams)).collect()
    }

    fn part(&mut self, path: &str, part: Part, upstreams: &[Upstream]) -> View<String> {
        match part {
            Part::Upstream(name) => {
                self.upstream_named(path, &name, upstreams);
                View::Upstream(name)
            }
            Part::View(section) => {
                if section.hold.is_some() {
                    self.problem(&format!("{path}.hold"), "belongs to the service as a whole");
                }
                self.view(path, *section, upstreams)
            }
        }
    }
}

const DEFAULT_PATHS: [&str; 3] = ["/healthz", "/readyz", "/ready"];
