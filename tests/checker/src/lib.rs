//! Compares what was accepted, what endpoints truly saw, what history says and
//! what `account` says.
//!
//! The checker stands outside the system: it knows nothing of brokers, slots or
//! ladders, only facts that an observer can note down. The crash run, the
//! power-cut run and the simulation all end in [`check`]. It does not collect
//! the facts itself.

mod within;

use std::collections::{BTreeMap, BTreeSet};

pub use within::{Request, Resent, Told, Took, Within};

/// An event as its producer knows it.
#[derive(Clone, Debug)]
pub struct Published {
    /// Unique text inside the payload by which the event is known again.
    pub marker: String,
    /// The payload's bytes as they were published.
    pub payload: Vec<u8>,
    /// Whether the producer got its 202.
    pub accepted: bool,
    /// The sets of webhooks that the event may rightly have gone to: more than one
    /// where subscriptions changed around it. Each decision is one whole set.
    pub wanted: Vec<BTreeSet<String>>,
}

/// A request as an endpoint saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub webhook: String,
    pub notification: String,
    pub marker: String,
    /// The payload member of the body, byte for byte.
    pub payload: Vec<u8>,
    /// Whether the signature was right; `None` where the webhook has none.
    pub signature_right: Option<bool>,
    /// Milliseconds on the observer's clock.
    pub at: u64,
    /// Whether the endpoint answered 2xx.
    pub accepted: bool,
}

/// A notification as history reports it.
#[derive(Clone, Debug)]
pub struct Reported {
    pub webhook: String,
    pub notification: String,
    pub marker: String,
    pub state: State,
}

/// The states that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Pending,
    Delivered,
    /// Undelivered, expired, cancelled or superseded: ended and listed.
    Ended,
}

/// Everything that was noted down.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub published: Vec<Published>,
    pub seen: Vec<Seen>,
    pub reported: Vec<Reported>,
    /// Moments at which a process was killed, cut off or taken over, on the same
    /// clock as [`Seen::at`].
    pub disturbed: Vec<u64>,
    /// Moments at which a process that had stood still went on: what it had begun
    /// before may reach an endpoint now, although another has sent it meanwhile.
    pub resumed: Vec<u64>,
    /// Whether the sums of `account` agreed, and the sum of its notifications.
    pub account_agrees: bool,
    pub account_notifications: u64,
    /// Notifications that were asked to be sent again: repeats are expected.
    pub resent: BTreeSet<String>,
    /// How long before a disturbance a first request may have reached the
    /// endpoint for its repeat to be allowed, in milliseconds.
    pub repeat_window: u64,
    /// What only the log knows, where the observer may look into it. Repeats are
    /// then judged by it and not by the window.
    pub within: Option<Within>,
    /// What broke off although nothing may.
    pub broken: Vec<String>,
}

/// A class of wrongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// An accepted event did not reach a webhook that wanted it, or nobody knows.
    Lost,
    /// Other bytes than were published, or a wrong signature.
    Altered,
    /// A request at a webhook that did not want it.
    Misrouted,
    /// A request or a report of something that nobody published.
    Unexpected,
    /// Reported as delivered, but no endpoint ever accepted it.
    FalselyDelivered,
    /// Missing from history, or sums that disagree.
    Unaccounted,
    /// Sent again without a reason.
    Repeated,
    /// Attempts that were forgotten or counted twice.
    Miscounted,
    /// A part that ended by itself, or two views that differ.
    Broken,
}

impl Wrong {
    pub const ALL: [Self; 9] = [
        Self::Lost,
        Self::Altered,
        Self::Misrouted,
        Self::Unexpected,
        Self::FalselyDelivered,
        Self::Unaccounted,
        Self::Repeated,
        Self::Miscounted,
        Self::Broken,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Altered => "altered",
            Self::Misrouted => "misrouted",
            Self::Unexpected => "unexpected",
            Self::FalselyDelivered => "falsely delivered",
            Self::Unaccounted => "unaccounted",
            Self::Repeated => "repeated without reason",
            Self::Miscounted => "miscounted",
            Self::Broken => "broken",
        }
    }
}

/// How many examples of each wrong are kept.
const EXAMPLES: usize = 5;

/// What the comparison came to.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    counts: BTreeMap<Wrong, u64>,
    examples: BTreeMap<Wrong, Vec<String>>,
    /// Repeats that a disturbance explains.
    pub explained_repeats: u64,
    /// Notifications that should exist.
    pub notifications: u64,
}

impl Verdict {
    fn add(&mut self, wrong: Wrong, example: impl FnOnce() -> String) {
        *self.counts.entry(wrong).or_insert(0) += 1;
        let examples = self.examples.entry(wrong).or_default();
        if examples.len() < EXAMPLES {
            examples.push(example());
        }
    }

    pub fn count(&self, wrong: Wrong) -> u64 {
        self.counts.get(&wrong).copied().unwrap_or(0)
    }

    pub fn is_clean(&self) -> bool {
        self.counts.values().all(|count| *count == 0)
    }

    /// One line with every class, then the examples.
    pub fn summary(&self) -> String {
        let mut lines = vec![
            Wrong::ALL
                .iter()
                .map(|wrong| format!("{} {}", wrong.as_str(), self.count(*wrong)))
                .collect::<Vec<_>>()
                .join(", "),
        ];
        for (wrong, examples) in &self.examples {
            lines.extend(examples.iter().map(|example| format!("  {}: {example}", wrong.as_str())));
        }
        lines.join("\n")
    }
}

/// Compares. Every fact is looked at from both sides.
pub fn check(observed: &Observed) -> Verdict {
    let mut verdict = Verdict::default();
    let by_marker: BTreeMap<&str, &Published> =
        observed.published.iter().map(|event| (event.marker.as_str(), event)).collect();

    check_requests(observed, &by_marker, &mut verdict);
    check_reports(observed, &by_marker, &mut verdict);
    check_events(observed, &mut verdict);
    match &observed.within {
        Some(within) => within::check_within(observed, within, &mut verdict),
        None => check_repeats(observed, &mut verdict),
    }
    for broken in &observed.broken {
        verdict.add(Wrong::Broken, || broken.clone());
    }

    if !observed.account_agrees {
        verdict.add(Wrong::Unaccounted, || "the sums of `account` disagree".to_owned());
    }
    let distinct: BTreeSet<_> = observed.reported.iter().map(|item| &item.notification).collect();
    let distinct = u64::try_from(distinct.len()).unwrap_or(u64::MAX);
    if observed.account_notifications != distinct {
        verdict.add(Wrong::Unaccounted, || {
            format!(
                "account counts {} notifications, history has {distinct}",
                observed.account_notifications
            )
        });
    }
    verdict
}

fn check_requests(
    observed: &Observed,
    by_marker: &BTreeMap<&str, &Published>,
    verdict: &mut Verdict,
) {
    let known: BTreeSet<(&str, &str)> = observed
        .reported
        .iter()
        .map(|item| (item.webhook.as_str(), item.notification.as_str()))
        .collect();
    for request in &observed.seen {
        let looks_within = observed.within.is_some();
        if looks_within
            && !known.contains(&(request.webhook.as_str(), request.notification.as_str()))
        {
            verdict.add(Wrong::Unaccounted, || {
                format!(
                    "{} got {} of {}, which no history names",
                    request.webhook, request.notification, request.marker
                )
            });
        }
        let Some(event) = by_marker.get(request.marker.as_str()) else {
            verdict
                .add(Wrong::Unexpected, || format!("{} got {:?}", request.webhook, request.marker));
            continue;
        };
        if !event.wanted.iter().any(|set| set.contains(&request.webhook)) {
            verdict.add(Wrong::Misrouted, || format!("{} got {}", request.webhook, event.marker));
        }
        if request.payload != event.payload {
            verdict.add(Wrong::Altered, || {
                format!("{} at {}: other bytes", event.marker, request.webhook)
            });
        }
        if request.signature_right == Some(false) {
            verdict.add(Wrong::Altered, || {
                format!("{} at {}: wrong signature", event.marker, request.webhook)
            });
        }
    }
}

fn check_reports(
    observed: &Observed,
    by_marker: &BTreeMap<&str, &Published>,
    verdict: &mut Verdict,
) {
    let accepted: BTreeSet<(&str, &str)> = observed
        .seen
        .iter()
        .filter(|request| request.accepted)
        .map(|request| (request.webhook.as_str(), request.notification.as_str()))
        .collect();
    for item in &observed.reported {
        match by_marker.get(item.marker.as_str()) {
            None => verdict.add(Wrong::Unexpected, || {
                format!("history of {} has {}", item.webhook, item.notification)
            }),
            Some(event) if !event.wanted.iter().any(|set| set.contains(&item.webhook)) => {
                verdict.add(Wrong::Misrouted, || {
                    format!("history of {} has {}", item.webhook, event.marker)
                });
            }
            Some(_) => {}
        }
        let truly = accepted.contains(&(item.webhook.as_str(), item.notification.as_str()));
        if item.state == State::Delivered && !truly {
            verdict.add(Wrong::FalselyDelivered, || format!("{} at {}", item.marker, item.webhook));
        }
        let within = observed.within.as_ref();
        let excused =
            within.is_some_and(|within| within.excuses(&item.webhook, &item.notification));
        if truly && item.state != State::Delivered && !excused {
            verdict.add(Wrong::Lost, || {
                format!("{} was accepted by {} but is not reported so", item.marker, item.webhook)
            });
        }
        if item.state == State::Pending {
            verdict.add(Wrong::Lost, || {
                format!("{} at {} is pending for ever", item.marker, item.webhook)
            });
        }
    }
}

/// Every accepted event: it went to one whole wanted set, each member of it has
/// exactly one row in history, and each row not reported as ended was accepted.
fn check_events(observed: &Observed, verdict: &mut Verdict) {
    let mut rows: BTreeMap<&str, BTreeMap<&str, Vec<&Reported>>> = BTreeMap::new();
    for item in &observed.reported {
        rows.entry(&item.marker).or_default().entry(&item.webhook).or_default().push(item);
    }
    for event in &observed.published {
        let of_event = rows.get(event.marker.as_str());
        let got: BTreeSet<String> = of_event
            .map(|webhooks| webhooks.keys().map(|name| (*name).to_owned()).collect())
            .unwrap_or_default();
        verdict.notifications += u64::try_from(got.len()).unwrap_or(0);
        if !event.accepted && got.is_empty() {
            continue;
        }
        if !event.wanted.contains(&got) {
            let missing = event.wanted.iter().all(|set| !set.is_subset(&got));
            let wrong = if missing { Wrong::Lost } else { Wrong::Misrouted };
            verdict.add(wrong, || {
                format!(
                    "{} is in the history of {got:?}, wanted one of {:?}",
                    event.marker, event.wanted
                )
            });
        }
        for (webhook, items) in of_event.into_iter().flatten() {
            if items.len() > 1 {
                verdict.add(Wrong::Unaccounted, || {
                    format!("{} has {} rows at {webhook}", event.marker, items.len())
                });
            }
        }
    }
}

/// A request that is on its way when the process dies may be noted down so much
/// later than the kill, in milliseconds.
const NOTED_LATE: u64 = 500;

/// A repeat after an accepted request is allowed only if the first one reached the
/// endpoint less than the window before a disturbance, if one of the two is what a
/// process that had stood still had begun before, or if a resend was asked for.
fn check_repeats(observed: &Observed, verdict: &mut Verdict) {
    let mut first: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut seen: Vec<&Seen> = observed.seen.iter().collect();
    seen.sort_by_key(|request| request.at);
    for request in seen {
        let key = (request.webhook.as_str(), request.notification.as_str());
        if let Some(at) = first.get(&key) {
            let near = |moments: &[u64], at: u64, window: u64| {
                let from = at.saturating_sub(NOTED_LATE);
                moments.iter().any(|moment| (from..=at + window).contains(moment))
            };
            let explained = observed.resent.contains(&request.notification)
                || near(&observed.disturbed, *at, observed.repeat_window)
                || near(&observed.resumed, *at, 0)
                || near(&observed.resumed, request.at, 0);
            if explained {
                verdict.explained_repeats += 1;
            } else {
                let at = *at;
                verdict.add(Wrong::Repeated, || {
                    format!(
                        "{} at {}, {} ms after",
                        request.marker,
                        request.webhook,
                        request.at - at
                    )
                });
            }
        }
        if request.accepted {
            first.entry(key).or_insert(request.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean() -> Observed {
        let wanted = vec![BTreeSet::from(["a".to_owned()])];
        Observed {
            published: vec![Published {
                marker: "m1".to_owned(),
                payload: b"{}".to_vec(),
                accepted: true,
                wanted,
            }],
            seen: vec![Seen {
                webhook: "a".to_owned(),
                notification: "n1".to_owned(),
                marker: "m1".to_owned(),
                payload: b"{}".to_vec(),
                signature_right: Some(true),
                at: 1000,
                accepted: true,
            }],
            reported: vec![Reported {
                webhook: "a".to_owned(),
                notification: "n1".to_owned(),
                marker: "m1".to_owned(),
                state: State::Delivered,
            }],
            account_agrees: true,
            account_notifications: 1,
            repeat_window: 1000,
            ..Observed::default()
        }
    }

    #[track_caller]
    fn finds(change: impl FnOnce(&mut Observed), wrong: Wrong) {
        let mut observed = clean();
        change(&mut observed);
        let verdict = check(&observed);
        assert!(verdict.count(wrong) > 0, "{}", verdict.summary());
    }

    #[test]
    fn a_clean_run_is_clean() {
        let verdict = check(&clean());
        assert!(verdict.is_clean(), "{}", verdict.summary());
    }

    #[test]
    fn each_wrong_is_found() {
        finds(|o| o.reported.clear(), Wrong::Lost);
        finds(|o| o.reported[0].state = State::Pending, Wrong::Lost);
        finds(|o| o.reported[0].state = State::Ended, Wrong::Lost);
        finds(|o| o.seen[0].payload.push(b' '), Wrong::Altered);
        finds(|o| o.seen[0].signature_right = Some(false), Wrong::Altered);
        finds(|o| o.seen[0].webhook = "b".to_owned(), Wrong::Misrouted);
        finds(|o| o.reported[0].webhook = "b".to_owned(), Wrong::Misrouted);
        finds(|o| o.seen[0].marker = "m2".to_owned(), Wrong::Unexpected);
        finds(|o| o.seen.clear(), Wrong::FalselyDelivered);
        finds(|o| o.seen[0].accepted = false, Wrong::FalselyDelivered);
        finds(|o| o.account_agrees = false, Wrong::Unaccounted);
        finds(|o| o.account_notifications = 2, Wrong::Unaccounted);
        finds(
            |o| {
                let twice = o.reported[0].clone();
                o.reported.push(twice);
            },
            Wrong::Unaccounted,
        );
    }

    #[test]
    fn a_repeat_needs_a_disturbance_near_its_first_request() {
        let repeat = |o: &mut Observed| {
            let mut again = o.seen[0].clone();
            again.at = 5000;
            o.seen.push(again);
        };
        finds(repeat, Wrong::Repeated);
        let mut observed = clean();
        repeat(&mut observed);
        observed.disturbed.push(1500);
        let verdict = check(&observed);
        assert!(verdict.is_clean(), "{}", verdict.summary());
        assert_eq!(verdict.explained_repeats, 1);
        for too_far in [2500, 400] {
            finds(
                |o| {
                    repeat(o);
                    o.disturbed.push(too_far);
                },
                Wrong::Repeated,
            );
        }
    }

    #[test]
    fn what_stood_still_may_repeat_only_as_it_goes_on() {
        let repeated = |resumed| {
            let mut observed = clean();
            let mut again = observed.seen[0].clone();
            again.at = 5000;
            observed.seen.push(again);
            observed.resumed.push(resumed);
            check(&observed).count(Wrong::Repeated)
        };
        assert_eq!((repeated(4900), repeated(900)), (0, 0), "the second or the first is its own");
        for other in [400, 1001, 4400, 5001] {
            assert_eq!(repeated(other), 1, "{other}");
        }
    }

    #[test]
    fn an_event_goes_to_one_whole_set_not_to_a_mixture() {
        finds(
            |o| {
                o.published[0].wanted = vec![
                    BTreeSet::from(["b".to_owned()]),
                    BTreeSet::from(["a".to_owned(), "c".to_owned()]),
                ];
            },
            Wrong::Lost,
        );
    }
}
