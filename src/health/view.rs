//! What a view comes to, and why.

use std::{collections::HashMap, fmt::Display, sync::Arc, time::Duration};

use super::Snapshot;
use crate::{
    config::{self, AllDown, AllDownPolicy, View},
    grpc::ServingStatus,
    upstream::{Endpoint, Health, Upstream},
};

/// What each service stands for, in the order of their names. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Views {
    services: Arc<[Named]>,
    upstreams: Arc<[Arc<Upstream>]>,
    all_down: AllDown,
}

/// A service's name, its view, and how long a change must last.
type Named = (Arc<str>, View<Arc<Upstream>>, Duration);

impl Views {
    /// What `config` says of `upstreams`.
    ///
    /// # Panics
    /// A service names an upstream that is not among them; a checked configuration has none.
    pub fn new(config: &config::Health, upstreams: &[Arc<Upstream>]) -> Self {
        let find = |name: &String| {
            let found = upstreams.iter().find(|upstream| **upstream.name() == **name);
            Arc::clone(found.expect("a checked configuration names upstreams that exist"))
        };
        let services = config.services.iter();
        let services =
            services.map(|(name, it)| (name.as_str().into(), it.view.map(&find), it.hold));
        let services = services.collect();
        Self { services, upstreams: upstreams.into(), all_down: config.all_down }
    }

    /// The services, and how long a change of each must last.
    pub(super) fn holds(&self) -> impl Iterator<Item = (&Arc<str>, Duration)> {
        self.services.iter().map(|(name, _, hold)| (name, *hold))
    }

    /// What is said when every endpoint is down.
    pub(super) fn all_down(&self) -> AllDown {
        self.all_down
    }

    /// The snapshot that would be told, after `now` and in the end, if the endpoints that `down`
    /// names were ill.
    pub fn simulate(
        &self,
        now: &Snapshot,
        down: impl Fn(&Upstream, &Endpoint) -> bool,
    ) -> Snapshot {
        let services = self.judge(down).filter_map(|(name, verdict)| {
            let mut service = now.service(name)?.clone();
            let stays = verdict.all_down
                && service.status == ServingStatus::Serving
                && self.all_down.policy == AllDownPolicy::Stay
                && self.all_down.dwell.is_none();
            service.status = match verdict.state {
                _ if now.is_draining() || now.withheld.is_some() => ServingStatus::NotServing,
                _ if stays => ServingStatus::Serving,
                State::Serving => ServingStatus::Serving,
                State::NotServing | State::Unknown => ServingStatus::NotServing,
            };
            service.reason = now.withheld.map_or_else(|| verdict.reason.into(), Into::into);
            Some((Arc::clone(name), service))
        });
        Snapshot { services: services.collect(), ..now.clone() }
    }

    /// Each service's verdict, with the endpoints that `down` names taken for ill. Each upstream is
    /// looked at once, however many services it is in.
    pub(super) fn judge(
        &self,
        down: impl Fn(&Upstream, &Endpoint) -> bool,
    ) -> impl Iterator<Item = (&Arc<str>, Verdict)> {
        let looks = self.upstreams.iter().map(|it| (&**it.name(), look(it, &down)));
        let looks: HashMap<&str, Verdict> = looks.collect();
        self.services.iter().map(move |(name, view, _)| {
            let look = |upstream: &Arc<Upstream>| &looks[&**upstream.name()];
            let mut verdict = judge(view, &|upstream| look(upstream).clone());
            verdict.all_down = view.upstreams().into_iter().all(|it| look(it).all_down);
            (name, verdict)
        })
    }
}

/// An upstream's verdict, naming the endpoints that are not healthy.
fn look(upstream: &Upstream, down: &impl Fn(&Upstream, &Endpoint) -> bool) -> Verdict {
    let endpoints = upstream.endpoints();
    let (mut healthy, mut unknown, mut ill) = (0, 0, Vec::new());
    for endpoint in endpoints.iter() {
        let state = endpoint.state();
        match state.health {
            _ if down(upstream, endpoint) => ill.push((endpoint.address(), "down".into())),
            Health::Healthy => healthy += 1,
            health => {
                unknown += usize::from(health == Health::Unknown);
                ill.push((endpoint.address(), state.reason));
            }
        }
    }
    let needed = upstream.needed(endpoints.len());
    if healthy >= needed {
        return Verdict::SERVING;
    }
    let all_down = healthy == 0;
    if endpoints.is_empty() {
        // Nothing was found so far: what comes of it is not known.
        let note = upstream.note();
        let why = if note.is_empty() { "none was found yet" } else { &*note };
        let reason = format!("{upstream}: no endpoints ({why})");
        return Verdict { state: State::Unknown, reason, all_down };
    }
    let state = if healthy + unknown >= needed { State::Unknown } else { State::NotServing };
    let total = endpoints.len();
    let ill = ill.iter().take(LISTED).map(|(address, reason)| format!("{address}: {reason}"));
    let ill = ill.collect::<Vec<_>>().join("; ");
    let reason =
        format!("{upstream}: {healthy} of {total} endpoints healthy, {needed} needed ({ill})");
    Verdict { state, reason, all_down }
}

/// How many endpoints a reason lists.
const LISTED: usize = 4;

/// What is known of a view or of a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Serving,
    NotServing,
    /// It depends on what was not probed yet. Told as NOT_SERVING.
    Unknown,
}

/// A view's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) state: State,
    /// Why it does not serve; empty where it does.
    pub(super) reason: String,
    /// No upstream in it has a healthy endpoint.
    pub(super) all_down: bool,
}

impl Verdict {
    pub(super) const SERVING: Self =
        Self { state: State::Serving, reason: String::new(), all_down: false };
}

/// Judges a view by what `look` says of its upstreams.
pub(super) fn judge<T: Display>(view: &View<T>, look: &impl Fn(&T) -> Verdict) -> Verdict {
    match view {
        View::Upstream(upstream) => look(upstream),
        View::All(views) => at_least(views.len(), views, look),
        View::Any(views) => at_least(1, views, look),
        View::AtLeast(count, views) => {
            let mut verdict = at_least(*count, views, look);
            if verdict.state != State::Serving {
                verdict.reason = format!("{count} of {} needed ({})", views.len(), verdict.reason);
            }
            verdict
        }
        View::Not(view) => {
            let verdict = judge(view, look);
            match verdict.state {
                State::Serving => {
                    let reason = format!("{view} serves, and must not");
                    Verdict { state: State::NotServing, reason, all_down: false }
                }
                State::NotServing => Verdict::SERVING,
                State::Unknown => verdict,
            }
        }
    }
}

/// Not enough serve, or it is not known yet: the reasons of all that do not.
fn at_least<T: Display>(count: usize, views: &[View<T>], look: &impl Fn(&T) -> Verdict) -> Verdict {
    let verdicts: Vec<_> = views.iter().map(|view| judge(view, look)).collect();
    let of = |state| verdicts.iter().filter(|verdict| verdict.state == state).count();
    let serving = of(State::Serving);
    if serving >= count {
        return Verdict::SERVING;
    }
    let state = match serving + of(State::Unknown) >= count {
        true => State::Unknown,
        false => State::NotServing,
    };
    let reasons = verdicts.into_iter().map(|verdict| verdict.reason);
    let reasons: Vec<_> = reasons.filter(|reason| !reason.is_empty()).collect();
    Verdict { state, reason: reasons.join("; "), all_down: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names beginning with `u` serve, with `d` do not, others are not known.
    fn look(name: &&'static str) -> Verdict {
        let state = match name.as_bytes()[0] {
            b'u' => return Verdict::SERVING,
            b'd' => State::NotServing,
            _ => State::Unknown,
        };
        Verdict { state, reason: format!("{name} ill"), all_down: false }
    }

    fn up() -> View<&'static str> {
        View::Upstream("up")
    }

    fn down() -> View<&'static str> {
        View::Upstream("down")
    }

    fn new() -> View<&'static str> {
        View::Upstream("new")
    }

    #[test]
    fn views_follow_their_upstreams() {
        use State::{NotServing, Serving, Unknown};
        for (view, state, reason) in [
            (View::All(vec![up(), up()]), Serving, ""),
            (View::All(vec![up(), down(), new()]), NotServing, "down ill; new ill"),
            (View::All(vec![up(), new()]), Unknown, "new ill"),
            (View::Any(vec![down(), up()]), Serving, ""),
            (View::Any(vec![down(), new()]), Unknown, "down ill; new ill"),
            (View::Any(vec![down(), down()]), NotServing, "down ill; down ill"),
            (View::AtLeast(2, vec![up(), down(), up()]), Serving, ""),
            (
                View::AtLeast(2, vec![up(), down(), down()]),
                NotServing,
                "2 of 3 needed (down ill; down ill)",
            ),
            (
                View::AtLeast(2, vec![up(), new(), down()]),
                Unknown,
                "2 of 3 needed (new ill; down ill)",
            ),
            (View::Not(Box::new(down())), Serving, ""),
            (
                View::Not(Box::new(View::Any(vec![up(), down()]))),
                NotServing,
                "any of up, down serves, and must not",
            ),
            (View::Not(Box::new(new())), Unknown, "new ill"),
            (
                View::All(vec![up(), View::Any(vec![down(), View::Not(Box::new(down()))])]),
                Serving,
                "",
            ),
        ] {
            let verdict = judge(&view, &look);
            assert_eq!((verdict.state, &*verdict.reason), (state, reason), "{view}");
        }
    }
}
