//! Endpoints in the DNS: looked up as often as the answers' TTL asks for, within bounds.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{
    Found, jittered,
    resolver::{Answer, Resolver},
    system::System,
};
use crate::config;

/// Looks the name up for as long as it is polled.
pub(super) async fn follow(config: &config::Dns, mut found: Found) {
    let mut pace = Pace::new(config);
    let mut system = System::default();
    loop {
        let outcome = timeout(LONGEST, look_up(config, &mut system)).await.unwrap_or_else(|_| {
            Err(format!("no answer within {}", humantime::format_duration(LONGEST)))
        });
        let wait = match outcome {
            Ok(answer) => {
                found.publish(answer.endpoints).await;
                pace.after_answer(answer.ttl)
            }
            Err(why) => {
                found.fail(format!("cannot resolve {}: {why}", config.name));
                pace.after_failure()
            }
        };
        sleep(jittered(wait)).await;
    }
}

/// One look-up, by a resolver of its own: who is to be asked may have changed since the last one,
/// and nothing is to be kept between them.
async fn look_up(config: &config::Dns, system: &mut System) -> Result<Answer, String> {
    let of_system = config.resolvers.is_empty();
    if of_system {
        system.refresh().await;
    }
    let resolver = || match of_system {
        true => system.resolver(),
        false => Resolver::of(&config.resolvers),
    };
    let name = &config.name;
    match config.lookup {
        config::Lookup::Srv => resolver()?.services(name).await,
        config::Lookup::Address { port, family } => match system.known(name, port, family) {
            Some(answer) => Ok(answer),
            None => resolver()?.addresses(name, port, family).await,
        },
    }
}

/// How long to wait for the next look-up.
#[derive(Debug)]
struct Pace {
    shortest: Duration,
    longest: Duration,
    /// After the next failure.
    pause: Duration,
}

impl Pace {
    fn new(config: &config::Dns) -> Self {
        let shortest = config.min_refresh;
        Self { shortest, longest: config.refresh_interval, pause: shortest }
    }

    fn after_answer(&mut self, ttl: Option<Duration>) -> Duration {
        self.pause = self.shortest;
        ttl.unwrap_or(self.longest).clamp(self.shortest, self.longest)
    }

    fn after_failure(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = pause.saturating_mul(2).min(self.longest);
        pause
    }
}

/// How long a look-up may take, with all names and servers that are tried for it.
const LONGEST: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(&config::Dns {
            name: "tempo".to_owned(),
            lookup: config::Lookup::Srv,
            refresh_interval: Duration::from_secs(10),
            min_refresh: Duration::from_secs(1),
            resolvers: vec![],
        })
    }

    #[test]
    fn an_answer_holds_for_its_ttl_within_the_bounds() {
        let mut pace = pace();
        let wait = |ttl: Option<u64>| pace.after_answer(ttl.map(Duration::from_secs)).as_secs();
        assert_eq!([Some(0), Some(1), Some(4), Some(30), None].map(wait), [1, 1, 4, 10, 10]);
    }

    #[test]
    fn failures_are_further_and_further_apart_up_to_the_interval() {
        let mut pace = pace();
        let mut waits = || [(); 6].map(|()| pace.after_failure().as_secs());
        assert_eq!(waits(), [1, 2, 4, 8, 10, 10]);
        pace.after_answer(None);
        assert_eq!(pace.after_failure().as_secs(), 1);
    }

    #[test]
    fn the_jitter_never_asks_before_the_ttl_has_run_out() {
        let ttl = Duration::from_secs(10);
        for _ in 0..1000 {
            assert!((ttl..=Duration::from_secs(11)).contains(&jittered(ttl)));
        }
    }
}
