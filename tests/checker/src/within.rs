//! What a look into the log adds: when owners took over and which outcomes were
//! durable when. With it a repeat needs more than a disturbance nearby: it is
//! allowed only if its sender could not know what had become of the first request.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Observed, Verdict, Wrong};

/// A request with what its sender made of it.
#[derive(Clone, Debug)]
pub struct Request {
    pub webhook: String,
    pub notification: String,
    /// 1-based within its run.
    pub attempt: u32,
    /// When the sender began, and when it had the answer, if there was one.
    pub started: u64,
    pub answered: Option<u64>,
    pub accepted: bool,
}

/// An outcome of an attempt that became durable.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub at: u64,
    pub attempt: u32,
    pub delivered: bool,
    /// Which takeover of the slot its writer owned it by.
    pub took: u64,
}

/// A takeover that became durable.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    pub at: u64,
    /// Where it stands: a later owner has a higher one.
    pub offset: u64,
}

/// A resend whose record was acknowledged.
#[derive(Clone, Debug)]
pub struct Resent {
    pub webhook: String,
    pub notification: String,
    /// When it was acknowledged. It may have been durable, and sent, before.
    pub at: u64,
    /// Whether an outcome names an attempt of this very run.
    pub attempted: bool,
}

/// What the log knows, on the same clock as [`crate::Seen::at`].
#[derive(Clone, Debug, Default)]
pub struct Within {
    pub requests: Vec<Request>,
    /// When the slot of each webhook was taken over.
    pub tooks: BTreeMap<String, Vec<Took>>,
    /// By webhook and notification.
    pub told: BTreeMap<(String, String), Vec<Told>>,
    /// Notifications that were given up after the whole ladder, as history says.
    pub exhausted: BTreeSet<(String, String)>,
    pub ladder_steps: usize,
    pub resent: Vec<Resent>,
    /// Webhooks that are not active at the end: nothing is sent to them.
    pub stopped: BTreeSet<String>,
    /// When senders hung: what was answered meanwhile they learned later.
    pub hung: Vec<(u64, u64)>,
}

impl Within {
    /// When the outcome of an attempt was durable. One that was durable before this
    /// request was answered is an earlier owner's, of an attempt with the same number.
    fn told_at(&self, request: &Request) -> Option<u64> {
        let key = (request.webhook.clone(), request.notification.clone());
        let answered = request.answered?;
        let told = self.told.get(&key)?.iter();
        let mut told = told.filter(|told| {
            told.attempt == request.attempt
                && told.at >= answered
                && !self.is_void(&request.webhook, told)
        });
        told.next().map(|told| told.at)
    }

    fn tooks(&self, webhook: &str) -> impl Iterator<Item = &Took> {
        self.tooks.get(webhook).into_iter().flatten()
    }

    /// Whether its writer had been taken over when it became durable: of such an
    /// outcome a takeover uses only `delivered` (design §5).
    fn is_void(&self, webhook: &str, told: &Told) -> bool {
        let mut tooks = self.tooks(webhook);
        !told.delivered && tooks.any(|took| took.offset > told.took && took.at <= told.at)
    }

    /// Whether a later owner may not have known what a request came to: one took
    /// over after the request began and before its outcome was durable.
    fn may_be_unknown(&self, request: &Request) -> bool {
        let told = self.told_at(request);
        let mut later = self.tooks(&request.webhook).filter(|took| took.at >= request.started);
        later.any(|took| told.is_none_or(|told| took.at <= told))
    }

    /// Whether nobody may know that an endpoint accepted a notification.
    pub(crate) fn excuses(&self, webhook: &str, notification: &str) -> bool {
        let of = |request: &&Request| {
            request.webhook == webhook && request.notification == notification && request.accepted
        };
        let mut accepted = self.requests.iter().filter(of);
        accepted.all(|request| self.told_at(request).is_none() && self.may_be_unknown(request))
    }

    fn was_hung(&self, at: u64) -> bool {
        self.hung.iter().any(|(from, to)| (*from..=*to).contains(&at))
    }
}

/// Compares what the log knows.
pub(crate) fn check_within(observed: &Observed, within: &Within, verdict: &mut Verdict) {
    let mut requests: BTreeMap<(&str, &str), Vec<&Request>> = BTreeMap::new();
    for request in &within.requests {
        let key = (request.webhook.as_str(), request.notification.as_str());
        requests.entry(key).or_default().push(request);
    }
    for ((webhook, notification), requests) in &mut requests {
        requests.sort_by_key(|request| request.started);
        // A resend is a run of its own, whose attempts begin at 1 again.
        if observed.resent.contains(*notification) {
            continue;
        }
        check_repeats(within, requests, verdict);
        let numbers: BTreeSet<u32> = requests.iter().map(|request| request.attempt).collect();
        let most = numbers.last().copied().unwrap_or(0);
        if (1..=most).any(|number| !numbers.contains(&number)) {
            verdict.add(Wrong::Miscounted, || {
                format!("{notification} at {webhook} had attempts {numbers:?}")
            });
        }
    }
    for (webhook, notification) in &within.exhausted {
        let made = requests.get(&(webhook.as_str(), notification.as_str()));
        let made = made.into_iter().flatten().map(|request| request.attempt).max().unwrap_or(0);
        if usize::try_from(made).is_ok_and(|made| made < within.ladder_steps) {
            verdict.add(Wrong::Lost, || {
                format!("{notification} at {webhook} was given up after {made} attempts")
            });
        }
    }
    for resent in &within.resent {
        let made = requests.get(&(resent.webhook.as_str(), resent.notification.as_str()));
        let mut made = made.into_iter().flatten();
        let is_sent = made.any(|request| {
            request.answered.is_none_or(|at| at >= resent.at || within.was_hung(at))
        });
        if !is_sent && !resent.attempted && !within.stopped.contains(&resent.webhook) {
            verdict.add(Wrong::Lost, || {
                format!(
                    "{} at {} was to be sent again at {} and was not",
                    resent.notification, resent.webhook, resent.at
                )
            });
        }
    }
}

/// The requests of one notification, by time.
fn check_repeats(within: &Within, requests: &[&Request], verdict: &mut Verdict) {
    for (index, request) in requests.iter().enumerate() {
        let earlier = requests.iter().take(index);
        let repeats = earlier.filter(|first| first.accepted || first.attempt >= request.attempt);
        for first in repeats {
            if within.may_be_unknown(first) {
                verdict.explained_repeats += 1;
            } else {
                verdict.add(Wrong::Repeated, || {
                    format!(
                        "{} at {}: attempt {} at {}, then {} at {}; its outcome was durable at {:?}",
                        first.notification,
                        first.webhook,
                        first.attempt,
                        first.started,
                        request.attempt,
                        request.started,
                        within.told_at(first),
                    )
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Wrong, check};

    fn request(attempt: u32, started: u64, accepted: bool) -> Request {
        Request {
            webhook: "a".to_owned(),
            notification: "n1".to_owned(),
            attempt,
            started,
            answered: Some(started + 5),
            accepted,
        }
    }

    /// Two requests, of which the first one's outcome was durable at 20, and a
    /// takeover that stands at offset 8.
    fn found(second: Request, took: u64) -> Verdict {
        let told = Told { at: 20, attempt: 1, delivered: true, took: 3 };
        with_told(second, told, vec![Took { at: took, offset: 8 }])
    }

    fn with_told(second: Request, told: Told, tooks: Vec<Took>) -> Verdict {
        let key = ("a".to_owned(), "n1".to_owned());
        let within = Within {
            requests: vec![request(1, 10, told.delivered), second],
            tooks: BTreeMap::from([("a".to_owned(), tooks)]),
            told: BTreeMap::from([(key, vec![told])]),
            ladder_steps: 3,
            ..Within::default()
        };
        verdict(within)
    }

    fn verdict(within: Within) -> Verdict {
        check(&Observed { within: Some(within), account_agrees: true, ..Observed::default() })
    }

    #[test]
    fn a_repeat_is_explained_only_by_a_takeover_that_could_not_know() {
        let in_flight = found(request(1, 100, true), 15);
        assert_eq!(in_flight.count(Wrong::Repeated), 0, "{}", in_flight.summary());
        assert_eq!(in_flight.explained_repeats, 1);
        for took in [5, 50] {
            assert_eq!(found(request(1, 100, true), took).count(Wrong::Repeated), 1, "{took}");
        }
    }

    #[test]
    fn a_failure_that_was_told_after_another_took_over_may_be_unknown() {
        let told = Told { at: 20, attempt: 1, delivered: false, took: 3 };
        let tooks = |at| vec![Took { at, offset: 8 }, Took { at: 90, offset: 9 }];
        let void = with_told(request(1, 100, false), told, tooks(12));
        assert_eq!(void.count(Wrong::Repeated), 0, "{}", void.summary());
        let own = Told { took: 8, ..told };
        for (told, at) in [(told, 21), (own, 9), (Told { delivered: true, ..told }, 9)] {
            let known = with_told(request(1, 100, false), told, tooks(at));
            assert_eq!(known.count(Wrong::Repeated), 1, "{told:?} {at}");
        }
    }

    #[test]
    fn a_skipped_attempt_is_miscounted() {
        let within = Within {
            requests: vec![request(1, 10, false), request(3, 20, false)],
            ..Within::default()
        };
        assert_eq!(verdict(within).count(Wrong::Miscounted), 1);
    }

    #[test]
    fn what_was_given_up_early_is_lost() {
        let within = Within {
            requests: vec![request(1, 10, false)],
            exhausted: BTreeSet::from([("a".to_owned(), "n1".to_owned())]),
            ladder_steps: 3,
            ..Within::default()
        };
        assert_eq!(verdict(within).count(Wrong::Lost), 1);
    }

    #[test]
    fn a_resend_needs_a_request_after_it_or_one_that_was_answered_after_it() {
        let lost = |at, attempted| {
            let (webhook, notification) = ("a".to_owned(), "n1".to_owned());
            let resent = Resent { webhook, notification, at, attempted };
            let within = Within {
                requests: vec![request(1, 10, true)],
                resent: vec![resent],
                ..Within::default()
            };
            verdict(within).count(Wrong::Lost)
        };
        assert_eq!((lost(12, false), lost(16, false), lost(16, true)), (0, 1, 0));
    }
}
