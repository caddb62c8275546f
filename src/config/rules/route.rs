//! The rules of routes, timeouts and retries.

use std::{collections::BTreeMap, time::Duration};

use super::{
    super::{
        checked::{Match, Policy, Retry, Route, Upstream},
        document::{self, RetryStatus},
        lines::join,
        value::Share,
    },
    Checker,
};

impl Checker<'_> {
    /// The routes of the listener at `path`, whose own policy is the default of theirs.
    pub(super) fn routes(
        &mut self,
        path: &str,
        raw: Vec<document::Route>,
        default: &Policy,
        upstreams: &[Upstream],
    ) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::new();
        if raw.len() > MOST_ROUTES {
            let message = format!("a listener has at most {MOST_ROUTES} routes");
            self.problem(&format!("{path}.routes"), message);
        }
        for (index, raw) in raw.into_iter().enumerate() {
            let path = format!("{path}.routes[{index}]");
            let matches = self.matches(&format!("{path}.match"), raw.matches);
            if routes.iter().any(|route| route.matches == Match::default()) {
                self.problem(&path, "is never reached: a route before it takes every call");
            }
            let upstreams = self.targets(&path, raw.upstream, raw.upstreams, upstreams);
            let policy = self.policy(&path, raw.timeouts, raw.retry, default);
            routes.push(Route { matches, upstreams, policy });
        }
        routes
    }

    fn matches(&mut self, path: &str, raw: document::Match) -> Match {
        let document::Match { service, prefix, authority, metadata } = raw;
        if service.is_some() && prefix.is_some() {
            self.problem(path, "service and prefix exclude each other");
        }
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
        if let Some(service) = &service
            && (service.is_empty() || !service.bytes().all(word))
        {
            let message = format!("{service:?} is not a service's name, such as tempopb.Pusher");
            self.problem(&format!("{path}.service"), message);
        }
        if let Some(prefix) = &prefix
            && (!prefix.starts_with('/') || prefix.bytes().any(|byte| !word(byte) && byte != b'/'))
        {
            let message = format!("{prefix:?} is no path's beginning, such as /tempopb.Pusher/");
            self.problem(&format!("{path}.prefix"), message);
        }
        if let Some(authority) = &authority
            && authority.parse::<http::uri::Authority>().is_err()
        {
            let message = format!("{authority:?} is not a host, or host and port");
            self.problem(&format!("{path}.authority"), message);
        }
        for name in metadata.keys() {
            let path = join(&format!("{path}.metadata"), name);
            if name.ends_with("-bin") {
                self.problem(&path, "is binary, which has more than one form: it fits nothing");
            } else if http::HeaderName::from_lowercase(name.as_bytes()).is_err() {
                self.problem(&path, "is not a lower-case header name");
            }
        }
        let authority = authority.map(|authority| authority.to_ascii_lowercase());
        Match { service, prefix, authority, metadata }
    }

    fn targets(
        &mut self,
        path: &str,
        one: Option<String>,
        many: BTreeMap<String, u32>,
        upstreams: &[Upstream],
    ) -> Vec<(String, u32)> {
        if let Some(name) = &one {
            self.upstream_named(&format!("{path}.upstream"), name, upstreams);
        }
        for name in many.keys() {
            self.upstream_named(&join(&format!("{path}.upstreams"), name), name, upstreams);
        }
        match (&one, many.is_empty()) {
            (Some(_), false) => {
                let message = "upstream and upstreams exclude each other";
                self.problem(&format!("{path}.upstreams"), message);
            }
            (None, true) => self.problem(path, "upstream is required, or upstreams with weights"),
            (None, false) if many.values().all(|weight| *weight == 0) => {
                self.problem(&format!("{path}.upstreams"), "one must weigh more than 0");
            }
            _ => {}
        }
        if many.values().any(|weight| *weight > HEAVIEST) {
            let message = format!("a weight is at most {HEAVIEST}");
            self.problem(&format!("{path}.upstreams"), message);
        }
        one.map(|name| (name, 1)).into_iter().chain(many).collect()
    }

    /// What is said at `path` of timeouts and retries; what is not is `default`'s.
    pub(super) fn policy(
        &mut self,
        path: &str,
        timeouts: document::Timeouts,
        retry: Option<document::Retry>,
        default: &Policy,
    ) -> Policy {
        let document::Timeouts { connect, response, idle, call } = timeouts;
        let all = [("connect", connect), ("response", response), ("idle", idle), ("call", call)];
        for (name, value) in all {
            self.positive(&format!("{path}.timeouts.{name}"), value);
        }
        let retry = match retry {
            Some(retry) => self.retry(&format!("{path}.retry"), retry),
            None => default.retry.clone(),
        };
        Policy {
            connect_timeout: connect.or(default.connect_timeout),
            response_timeout: response.or(default.response_timeout),
            idle_timeout: idle.or(default.idle_timeout),
            call_timeout: call.or(default.call_timeout),
            retry,
        }
    }

    /// None where it lets nothing be placed again.
    fn retry(&mut self, path: &str, raw: document::Retry) -> Option<Retry> {
        let document::Retry { statuses, idempotent, attempts, budget, max_delay } = raw;
        let refused = [RetryStatus::Unavailable, RetryStatus::ResourceExhausted];
        if let Some(index) = statuses.iter().position(|status| !refused.contains(status))
            && !idempotent
        {
            let message = "needs `idempotent: true`: the backend may have processed such a call";
            self.problem(&format!("{path}.statuses[{index}]"), message);
        }
        self.at_least_one(&format!("{path}.attempts"), attempts);
        if attempts.is_some_and(|attempts| attempts > MOST_ATTEMPTS) {
            let message = format!("must be at most {MOST_ATTEMPTS}");
            self.problem(&format!("{path}.attempts"), message);
        }
        self.at_most_a_year(&format!("{path}.max_delay"), max_delay);
        let retry = Retry {
            statuses,
            idempotent,
            attempts: attempts.unwrap_or(3),
            budget: budget.unwrap_or(Share(20)),
            max_delay: max_delay.unwrap_or(Duration::from_secs(3)),
        };
        (!retry.statuses.is_empty() || idempotent).then_some(retry)
    }
}

/// A bound that keeps the sum of weights small.
const HEAVIEST: u32 = 1_000_000;
/// So that 16 bits number them.
const MOST_ROUTES: usize = 10_000;
const MOST_ATTEMPTS: u32 = 10;
