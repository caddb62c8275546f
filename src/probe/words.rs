//! The last words of an endpoint's Watches, against what its Checks answered.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::Failure;
use crate::grpc::ServingStatus;

/// The failures of one probe's checks: index, name, cause.
pub(super) type Failures = Vec<(usize, String, Failure)>;

/// The last word of each Watch, by its check's index.
#[derive(Debug, Default)]
pub(super) struct Words(BTreeMap<usize, Word>);

#[derive(Debug)]
struct Word {
    status: ServingStatus,
    at: Instant,
    /// Its stream is open: the word holds until the next one.
    stands: bool,
    /// A Check has contradicted it, and the stream is opened anew for that.
    doubted: bool,
}

impl Word {
    fn serves(&self) -> bool {
        self.status == ServingStatus::Serving
    }
}

impl Words {
    /// Takes a word that came `at` that time.
    pub(super) fn hear(&mut self, index: usize, status: ServingStatus, at: Instant) {
        self.0.insert(index, Word { status, at, stands: true, doubted: false });
    }

    /// Takes that there is no stream any more; whether one stood that said another thing than
    /// SERVING.
    pub(super) fn end(&mut self, index: usize) -> bool {
        let Some(word) = self.0.get_mut(&index) else { return false };
        let denied = word.stands && !word.serves();
        word.stands = false;
        denied
    }

    /// Corrects the failures of a probe that was begun at `asked`; returns whether a stream and its
    /// Check contradict each other, so that the stream should be opened anew.
    ///
    /// A Check may have been answered before the Watch spoke, and its reply come after it: it says
    /// nothing against a word that came after it was asked. A failure of transport stays. Where a
    /// Check says first that the endpoint does not serve, the stream has yet to say both this and that
    /// it serves again, so that no Check alone lifts it while a stream stands.
    pub(super) fn correct(&mut self, asked: Instant, failed: &mut Failures) -> bool {
        let mut doubted = false;
        for (index, word) in &mut self.0 {
            let place = failed.iter().position(|(other, ..)| other == index);
            let reply_serves = match place.map(|place| &failed[place].2) {
                None => true,
                Some(Failure::NotServing(_)) => false,
                Some(_) => continue,
            };
            if reply_serves == word.serves() {
                continue;
            }
            let newer = word.at >= asked;
            if word.stands && !newer {
                doubted |= !word.doubted;
                word.doubted = true;
            }
            match place {
                Some(place) if newer => drop(failed.remove(place)),
                Some(_) if word.stands => word.status = ServingStatus::NotServing,
                None if newer || word.stands => {
                    failed.push((*index, "grpc".to_owned(), said(word.status)));
                }
                _ => {}
            }
        }
        doubted
    }
}

/// The failure that a word of a Watch is.
pub(super) fn said(status: ServingStatus) -> Failure {
    Failure::NotServing(format!("{status} (by Watch)"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SERVING: ServingStatus = ServingStatus::Serving;
    const NOT_SERVING: ServingStatus = ServingStatus::NotServing;

    /// Whether a probe passes whose Check was answered so, and whether the stream is doubted, where
    /// the Watch spoke `before` the Check was asked or after it.
    fn outcome(
        reply: Option<Failure>,
        word: ServingStatus,
        before: bool,
        ended: bool,
    ) -> [bool; 2] {
        let (early, late) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let (asked, at) = if before { (late, early) } else { (early, late) };
        let mut words = Words::default();
        words.hear(3, word, at);
        if ended {
            assert_eq!(words.end(3), word != SERVING);
        }
        let mut failed: Failures = reply.map(|it| (3, "grpc".to_owned(), it)).into_iter().collect();
        let doubted = words.correct(asked, &mut failed);
        [failed.is_empty(), doubted]
    }

    #[test]
    fn a_reply_says_nothing_against_a_word_that_came_after_it_was_asked() {
        let denied = || Some(Failure::NotServing("NOT_SERVING".to_owned()));
        for ended in [false, true] {
            assert_eq!(outcome(denied(), SERVING, false, ended), [true, false]);
            assert_eq!(outcome(None, NOT_SERVING, false, ended), [false, false]);
        }
    }

    #[test]
    fn a_word_holds_against_later_replies_only_to_the_worse_and_while_its_stream_stands() {
        let denied = || Some(Failure::NotServing("NOT_SERVING".to_owned()));
        assert_eq!(outcome(None, NOT_SERVING, true, false), [false, true]);
        assert_eq!(outcome(None, NOT_SERVING, true, true), [true, false]);
        assert_eq!(outcome(denied(), SERVING, true, false), [false, true]);
        assert_eq!(outcome(denied(), SERVING, true, true), [false, false]);
    }

    #[test]
    fn what_a_check_said_first_holds_until_the_stream_has_spoken_or_is_gone() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let denied = || (3, "grpc".to_owned(), Failure::NotServing("NOT_SERVING".to_owned()));
        let passes = |words: &mut Words, second, mut failed: Failures| {
            let doubted = words.correct(at(second), &mut failed);
            (failed.is_empty(), doubted)
        };
        for speaks in [true, false] {
            let mut words = Words::default();
            words.hear(3, SERVING, at(0));
            assert_eq!(passes(&mut words, 1, vec![denied()]), (false, true));
            assert_eq!(passes(&mut words, 2, vec![]), (false, false), "once is enough");
            match speaks {
                true => words.hear(3, SERVING, at(3)),
                false => drop(words.end(3)),
            }
            assert_eq!(passes(&mut words, 4, vec![]), (true, false));
        }
    }

    #[test]
    fn a_failure_of_transport_and_what_agrees_stay_as_they_are() {
        let lost = || Some(Failure::Rpc("connection lost".to_owned()));
        for before in [false, true] {
            assert_eq!(outcome(lost(), SERVING, before, false), [false, false]);
            assert_eq!(outcome(None, SERVING, before, false), [true, false]);
        }
    }
}
