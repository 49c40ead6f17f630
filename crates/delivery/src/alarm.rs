//! What an operator is told of a webhook: that it only fails, that it has recovered,
//! that it was suspended, that its client certificate ends soon.
//!
//! Made from facts that the log has acknowledged, in their order, by the slot's owner
//! and by whoever takes over from it (`fold.rs`), and from what the registry says of a
//! suspension. A notice is kept until it has been told, so no crash loses one. It
//! holds nothing but what stands in the log, so one that is told twice has the same
//! bytes, and is the same event.

use std::time::Duration;

use tidings_types::Timestamp;

use crate::{AttemptFact, FactKind};

/// Notices of one webhook that wait to be told. While so many wait no further one is
/// made: the next fact after that makes it.
const MAX_UNTOLD: usize = 16;

/// What happened to the webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// Nothing but failures for `failing_after`.
    Failing,
    /// The first success after `Failing`.
    Recovered,
    /// The platform suspended it.
    Suspended,
    /// Its client certificate ends soon. Told once a day.
    CertificateExpiring,
}

impl NoticeKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Recovered => "recovered",
            Self::Suspended => "suspended",
            Self::CertificateExpiring => "certificate-expiring",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Failing, Self::Recovered, Self::Suspended, Self::CertificateExpiring]
            .into_iter()
            .find(|it| it.as_str() == name)
    }
}

/// One thing to tell the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub kind: NoticeKind,
    /// Since when it failed; of a certificate, when it ends.
    pub since: Timestamp,
    /// When it happened.
    pub at: Timestamp,
    /// What the last attempt came to, as clients see it.
    pub code: String,
    /// Of a suspension; of a certificate, its fingerprint.
    pub reason: String,
}

impl Notice {
    /// What tells it from every other notice of its kind about its webhook.
    pub fn identity(&self) -> Timestamp {
        match self.kind {
            NoticeKind::Failing | NoticeKind::Recovered => self.since,
            NoticeKind::Suspended | NoticeKind::CertificateExpiring => self.at,
        }
    }
}

/// In seconds.
const DAY: i64 = 86_400;

fn as_secs(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// A suspension, as the registry keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspended {
    pub at: Timestamp,
    /// Since when the webhook had failed.
    pub since: Timestamp,
    pub code: String,
    pub reason: String,
}

/// What has been, and is to be, told of one webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarm {
    /// Nothing but failures since then.
    pub since: Option<Timestamp>,
    /// It was called failing, since then, and has not recovered.
    pub raised: Option<Timestamp>,
    /// The time of the suspension that a notice was made of, until it is lifted.
    pub suspended: Option<Timestamp>,
    /// Oldest first.
    pub untold: Vec<Notice>,
    /// For which day it was told last that the certificate ends soon. Not kept: told
    /// again, it is the same event.
    pub warned: Option<Timestamp>,
}

impl Alarm {
    /// A fact about an attempt stands in the log. Says whether that changes anything.
    pub(crate) fn fold(
        &mut self,
        kind: FactKind,
        at: Timestamp,
        attempt: &AttemptFact,
        after: Duration,
    ) -> bool {
        let before = (self.since, self.raised);
        let code = || attempt.code.text(attempt.http_status);
        match kind {
            FactKind::Delivered => self.delivered(at, code),
            FactKind::AttemptFailed | FactKind::Undelivered(_) => self.failed(at, after, code),
            FactKind::TakenUp
            | FactKind::Expired
            | FactKind::Cancelled
            | FactKind::Superseded
            | FactKind::Joined => {}
        }
        before != (self.since, self.raised)
    }

    /// The log has acknowledged a failed attempt; `code` says what it came to.
    fn failed(&mut self, at: Timestamp, after: Duration, code: impl FnOnce() -> String) {
        let since = *self.since.get_or_insert(at);
        let is_news = self.raised != Some(since) && at.since(since) >= after;
        if is_news && self.has_room() {
            self.raised = Some(since);
            self.push(NoticeKind::Failing, since, at, code(), String::new());
        }
    }

    /// The log has acknowledged a success.
    fn delivered(&mut self, at: Timestamp, code: impl FnOnce() -> String) {
        self.since = None;
        if let Some(since) = self.raised
            && self.has_room()
        {
            self.raised = None;
            self.push(NoticeKind::Recovered, since, at, code(), String::new());
        }
    }

    /// The registry says that the webhook is suspended.
    pub fn suspended(&mut self, by: &Suspended) {
        if self.suspended != Some(by.at) && self.has_room() {
            self.suspended = Some(by.at);
            let (code, reason) = (by.code.clone(), by.reason.clone());
            self.push(NoticeKind::Suspended, by.since, by.at, code, reason);
        }
    }

    /// The webhook's client certificate with this fingerprint ends at `not_after`. From
    /// `ahead` before that on, each day of UTC makes one notice. Says whether it made one.
    pub fn certificate(
        &mut self,
        (fingerprint, not_after): (&str, Timestamp),
        ahead: Duration,
        now: Timestamp,
    ) -> bool {
        let first = Timestamp::from_secs(not_after.as_secs() - as_secs(ahead));
        if now < first || now > not_after {
            return false;
        }
        let midnight = Timestamp::from_secs(now.as_secs() - now.as_secs().rem_euclid(DAY));
        let at = midnight.max(first);
        if self.warned.is_some_and(|warned| warned >= at) || !self.has_room() {
            return false;
        }
        self.warned = Some(at);
        let kind = NoticeKind::CertificateExpiring;
        // It may have waited in the checkpoint.
        let waits = |notice: &Notice| {
            (notice.kind, notice.at, notice.reason.as_str()) == (kind, at, fingerprint)
        };
        if self.untold.iter().any(waits) {
            return false;
        }
        self.push(kind, not_after, at, String::new(), fingerprint.to_owned());
        true
    }

    /// The webhook shows another certificate, or none.
    pub fn certificate_changed(&mut self) {
        self.warned = None;
    }

    /// It is active again, with a clean slate. It recovers with its first success.
    pub fn reactivated(&mut self) {
        self.since = None;
        self.suspended = None;
    }

    /// A notice stands in the log.
    pub fn told(&mut self, notice: &Notice) {
        self.untold.retain(|waiting| waiting != notice);
    }

    fn has_room(&self) -> bool {
        self.untold.len() < MAX_UNTOLD
    }

    fn push(
        &mut self,
        kind: NoticeKind,
        since: Timestamp,
        at: Timestamp,
        code: String,
        reason: String,
    ) {
        self.untold.push(Notice { kind, since, at, code, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(300);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + seconds)
    }

    fn fails(alarm: &mut Alarm, seconds: i64) {
        alarm.failed(at(seconds), AFTER, || format!("HTTP_50{}", seconds % 10));
    }

    fn succeeds(alarm: &mut Alarm, seconds: i64) {
        alarm.delivered(at(seconds), || "DELIVERED".to_owned());
    }

    fn said(alarm: &Alarm) -> Vec<(NoticeKind, Timestamp, &str)> {
        alarm.untold.iter().map(|n| (n.kind, n.since, n.code.as_str())).collect()
    }

    #[test]
    fn a_stretch_of_failures_is_told_once_and_so_is_its_end() {
        let mut alarm = Alarm::default();
        fails(&mut alarm, 0);
        fails(&mut alarm, 299);
        succeeds(&mut alarm, 299);
        assert!(alarm.untold.is_empty(), "a short stretch is no news");
        fails(&mut alarm, 301);
        fails(&mut alarm, 600);
        assert!(alarm.untold.is_empty());
        for seconds in [603, 700, 900] {
            fails(&mut alarm, seconds);
        }
        succeeds(&mut alarm, 1000);
        succeeds(&mut alarm, 1001);
        use NoticeKind::{Failing, Recovered};
        let expected = [(Failing, at(301), "HTTP_503"), (Recovered, at(301), "DELIVERED")];
        assert_eq!(said(&alarm), expected);
        let first = alarm.untold[0].clone();
        alarm.told(&first);
        assert_eq!(said(&alarm), expected[1..]);
    }

    #[test]
    fn a_certificate_that_ends_soon_is_told_of_once_a_day_until_it_ends() {
        let (ahead, day) = (Duration::from_secs(3 * 86_400), 86_400);
        let end = Timestamp::from_secs(20_000 * day + 3600);
        let at = |days: i64, seconds: i64| Timestamp::from_secs((20_000 + days) * day + seconds);
        let mut alarm = Alarm::default();
        let mut told = Vec::new();
        for hour in -100..=2 {
            let now = Timestamp::from_secs(end.as_secs() + hour * 3600 + 60);
            if alarm.certificate(("f1", end), ahead, now) {
                told.push(alarm.untold.remove(0).at);
            }
        }
        assert_eq!(told, [at(-3, 3600), at(-2, 0), at(-1, 0), at(0, 0)]);
        // A restart forgets that it was told, and the day's notice is the same one.
        let mut alarm = Alarm::default();
        assert!(alarm.certificate(("f1", end), ahead, at(-1, 9)));
        let untold = std::mem::take(&mut alarm).untold;
        assert_eq!((untold[0].at, untold[0].since), (at(-1, 0), end));
        let mut alarm = Alarm { untold, ..Alarm::default() };
        assert!(!alarm.certificate(("f1", end), ahead, at(-1, 10)), "it waits already");
        // Another certificate is another matter.
        alarm.certificate_changed();
        assert!(alarm.certificate(("f2", end), ahead, at(-1, 11)));
    }

    #[test]
    fn the_same_facts_again_make_the_same_notices() {
        let facts = |alarm: &mut Alarm| {
            fails(alarm, 0);
            fails(alarm, 400);
            succeeds(alarm, 500);
        };
        let (mut once, mut again) = (Alarm::default(), Alarm::default());
        facts(&mut once);
        facts(&mut again);
        facts(&mut again);
        assert_eq!(again.untold[..2], once.untold[..]);
        assert_eq!(again.untold[2..], once.untold[..]);
    }

    #[test]
    fn a_suspension_is_told_once_and_recovery_follows_the_reactivation() {
        let mut alarm = Alarm::default();
        fails(&mut alarm, 0);
        fails(&mut alarm, 400);
        let suspension = Suspended {
            at: at(500),
            since: at(0),
            code: "HTTP_500".to_owned(),
            reason: "failing".to_owned(),
        };
        alarm.suspended(&suspension);
        alarm.suspended(&suspension);
        assert_eq!(alarm.untold.len(), 2);
        alarm.reactivated();
        fails(&mut alarm, 600);
        assert_eq!(alarm.untold.len(), 2, "it has a clean slate");
        succeeds(&mut alarm, 601);
        let kinds: Vec<_> = alarm.untold.iter().map(|notice| notice.kind).collect();
        let expected = [NoticeKind::Failing, NoticeKind::Suspended, NoticeKind::Recovered];
        assert_eq!(kinds, expected);
        assert_eq!(alarm.untold[2].since, at(0));
    }

    #[test]
    fn what_finds_no_room_is_told_by_a_later_fact() {
        let mut alarm = Alarm::default();
        for round in 0..20 {
            fails(&mut alarm, round * 1000);
            fails(&mut alarm, round * 1000 + 400);
            succeeds(&mut alarm, round * 1000 + 500);
        }
        assert_eq!(alarm.untold.len(), MAX_UNTOLD);
        fails(&mut alarm, 50_000);
        fails(&mut alarm, 50_400);
        alarm.untold.clear();
        fails(&mut alarm, 50_500);
        assert_eq!(said(&alarm), [(NoticeKind::Failing, at(50_000), "HTTP_500")]);
    }
}
