//! What is told of a service, which is what its view comes to, but not always at once.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use tracing::info;

use super::{
    Service,
    view::{State, Verdict},
};
use crate::{
    config::{AllDown, AllDownPolicy},
    grpc::ServingStatus,
    upstream::History,
};

/// What is told of a service.
#[derive(Debug)]
pub(super) struct Told {
    hold: Duration,
    service: Service,
    /// Whether its upstreams were probed once: what is known first is told at once.
    known: bool,
    /// Since when its view says otherwise, and when that is told.
    pending: Option<Pending>,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    since: Instant,
    /// None where it is held back for as long as it lasts.
    due: Option<Instant>,
}

impl Told {
    /// NOT_SERVING, until something is known.
    pub(super) fn new(hold: Duration) -> Self {
        let service = Service {
            status: ServingStatus::NotServing,
            since: SystemTime::now(),
            reason: "not probed yet".into(),
            history: History::default(),
        };
        Self { hold, service, known: false, pending: None }
    }

    /// Another time that changes must last from now on, also the one that is held back.
    pub(super) fn set_hold(&mut self, hold: Duration) {
        self.hold = hold;
    }

    /// When a change that is held back has lasted long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        self.pending.and_then(|pending| pending.due)
    }

    /// Takes what the view comes to now; what is told of it.
    pub(super) fn tell(
        &mut self,
        name: &str,
        verdict: &Verdict,
        all_down: AllDown,
        now: Instant,
    ) -> Service {
        let status = match verdict.state {
            State::Serving => ServingStatus::Serving,
            State::NotServing | State::Unknown => ServingStatus::NotServing,
        };
        if status == self.service.status {
            self.pending = None;
            self.service.reason = verdict.reason.as_str().into();
        } else if self.is_due(verdict, all_down, now) {
            self.change(name, status, verdict.reason.as_str().into());
        } else {
            self.service.reason = match verdict.reason.as_str() {
                "" => "held: serves again".into(),
                reason => format!("held: {reason}").into(),
            };
        }
        self.known |= verdict.state != State::Unknown;
        self.service.clone()
    }

    /// NOT_SERVING, since the process is about to stop.
    pub(super) fn drain(&mut self, name: &str) -> Service {
        self.pending = None;
        let reason: Arc<str> = "draining".into();
        if self.service.status == ServingStatus::NotServing {
            self.service.reason = reason;
        } else {
            self.change(name, ServingStatus::NotServing, reason);
        }
        self.service.clone()
    }

    /// Whether a view that says otherwise has done so for long enough.
    fn is_due(&mut self, verdict: &Verdict, all_down: AllDown, now: Instant) -> bool {
        let stays = self.service.status == ServingStatus::Serving
            && verdict.all_down
            && all_down.policy == AllDownPolicy::Stay;
        let wait = match (self.known, stays) {
            (false, _) => return true,
            (true, true) => all_down.dwell,
            (true, false) => Some(self.hold),
        };
        let since = self.pending.map_or(now, |pending| pending.since);
        let due = wait.map(|wait| since + wait);
        self.pending = Some(Pending { since, due });
        due.is_some_and(|due| due <= now)
    }

    fn change(&mut self, name: &str, status: ServingStatus, reason: Arc<str>) {
        let from = self.service.status;
        info!(service = %name, %from, to = %status, %reason, "serving status changed");
        self.pending = None;
        self.service.status = status;
        self.service.since = SystemTime::now();
        self.service.history.record(from, status, Arc::clone(&reason));
        self.service.reason = reason;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAY: AllDown = AllDown { policy: AllDownPolicy::Stay, dwell: None };
    const WITHDRAW: AllDown = AllDown { policy: AllDownPolicy::Withdraw, dwell: None };

    fn ill(all_down: bool) -> Verdict {
        Verdict { state: State::NotServing, reason: "ill".into(), all_down }
    }

    fn new() -> Verdict {
        Verdict { state: State::Unknown, reason: "new".into(), all_down: true }
    }

    /// What is told after each verdict, one a second.
    fn told(hold: u64, all_down: AllDown, verdicts: &[Verdict]) -> String {
        let (mut told, start) = (Told::new(Duration::from_secs(hold)), Instant::now());
        let word = |(second, verdict): (usize, &Verdict)| {
            let now = start + Duration::from_secs(second as u64);
            match told.tell("s", verdict, all_down, now).status {
                ServingStatus::Serving => 'S',
                _ => 'n',
            }
        };
        verdicts.iter().enumerate().map(word).collect()
    }

    #[test]
    fn the_first_thing_known_is_told_at_once_and_later_ones_when_they_last() {
        let (up, ill) = (Verdict::SERVING, ill(false));
        let [a, b, c] = [&up, &ill, &new()].map(Clone::clone);
        let verdicts = [&c, &c, &a, &b, &a, &b, &b, &b, &a, &a, &b, &a, &a, &a].map(Clone::clone);
        assert_eq!(told(2, WITHDRAW, &verdicts), "nnSSSSSnnnnnnS");
        assert_eq!(told(0, WITHDRAW, &verdicts), "nnSnSnnnSSnSSS");
    }

    #[test]
    fn a_fleet_that_sees_all_down_stays_and_one_that_sees_some_down_withdraws() {
        let (up, all, some) = (Verdict::SERVING, ill(true), ill(false));
        let dwell = AllDown { dwell: Some(Duration::from_secs(3)), ..STAY };
        let verdicts = [&up, &all, &all, &all, &all, &all, &up, &some].map(Clone::clone);
        assert_eq!(told(0, STAY, &verdicts), "SSSSSSSn");
        assert_eq!(told(0, dwell, &verdicts), "SSSSnnSn");
        assert_eq!(told(0, STAY, &[all, up]), "nS", "it never began to serve");
    }

    #[test]
    fn a_change_that_is_held_back_says_so_and_when_it_is_due() {
        let (mut told, now) = (Told::new(Duration::from_secs(9)), Instant::now());
        told.tell("s", &Verdict::SERVING, WITHDRAW, now);
        let service = told.tell("s", &ill(false), WITHDRAW, now);
        assert_eq!(
            (&*service.reason, told.due()),
            ("held: ill", Some(now + Duration::from_secs(9)))
        );
        let service = told.tell("s", &ill(true), STAY, now);
        assert_eq!((service.status, told.due()), (ServingStatus::Serving, None));
        let service = told.drain("s");
        assert_eq!((service.status, &*service.reason), (ServingStatus::NotServing, "draining"));
        assert_eq!(service.history.iter().count(), 2);
    }
}
