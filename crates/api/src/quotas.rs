//! How many requests to the EDS API a tenant may make, so that one of them cannot use up
//! the API for all, and how much may be sent to a webhook again, which is aimed at
//! somebody's endpoint (`reliability-security.md` §3.6).
//!
//! Both are counted in this process: several `api` processes each give a tenant its whole
//! rate. Publishing and administration are the platform's own and have none.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use tidings_auth::Principal;
use tidings_types::{Instant, WebhookId};

/// Requests of a tenant a second, and notifications of a webhook that may be sent again
/// in an hour; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub reads: u32,
    pub writes: u32,
    pub resends_per_hour: u32,
}

/// What a tenant may save up: so many seconds of its rate.
const BURST_SECONDS: u32 = 10;
/// Tenants whose buckets are remembered while they are not full.
const MAX_TENANTS: usize = 10_000;

/// Which rate a request counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Read,
    Write,
}

/// The tenants' buckets: when each will be full again.
#[derive(Debug, Default)]
pub(crate) struct Quotas(Mutex<BTreeMap<(String, Kind), Instant>>);

impl Quotas {
    /// Takes one request out of the bucket of `tenant`, or says how long to wait.
    pub(crate) fn take(
        &self,
        tenant: String,
        kind: Kind,
        rate: Rate,
        now: Instant,
    ) -> Result<(), Duration> {
        let per_second = match kind {
            Kind::Read => rate.reads,
            Kind::Write => rate.writes,
        };
        if per_second == 0 {
            return Ok(());
        }
        let step = Duration::from_secs(1) / per_second;
        let burst = step * per_second * BURST_SECONDS;
        let mut buckets = self.0.lock();
        let key = (tenant, kind);
        let full_at = buckets.get(&key).copied().unwrap_or(now).max(now);
        let after = full_at + step;
        if after.since(now) > burst {
            return Err(after.since(now).saturating_sub(burst));
        }
        if buckets.len() >= MAX_TENANTS && !buckets.contains_key(&key) {
            buckets.retain(|_, full_at| *full_at > now);
            if buckets.len() >= MAX_TENANTS {
                return Err(step);
            }
        }
        buckets.insert(key, after);
        Ok(())
    }
}

/// How long resends of a webhook are counted together, from the first.
const HOUR: Duration = Duration::from_secs(3600);
/// Webhooks whose resends are remembered.
const MAX_WEBHOOKS: usize = 10_000;

/// What was sent again, of each webhook in its present hour.
#[derive(Debug, Default)]
pub(crate) struct Resends(Mutex<BTreeMap<WebhookId, Hour>>);

#[derive(Debug)]
struct Hour {
    began: Instant,
    sent: u32,
}

impl Resends {
    /// Counts `count` notifications of `webhook`, or says how long to wait until so many
    /// may be sent again. Nothing is counted then.
    pub(crate) fn take(
        &self,
        webhook: WebhookId,
        count: usize,
        rate: Rate,
        now: Instant,
    ) -> Result<(), Duration> {
        let most = rate.resends_per_hour;
        if most == 0 || count == 0 {
            return Ok(());
        }
        let mut hours = self.0.lock();
        if hours.len() >= MAX_WEBHOOKS && !hours.contains_key(&webhook) {
            hours.retain(|_, hour| now.since(hour.began) < HOUR);
            if hours.len() >= MAX_WEBHOOKS {
                return Err(HOUR);
            }
        }
        let hour = hours.entry(webhook).or_insert(Hour { began: now, sent: 0 });
        if now.since(hour.began) >= HOUR {
            *hour = Hour { began: now, sent: 0 };
        }
        let sent = hour.sent.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        if sent > most {
            return Err(HOUR.saturating_sub(now.since(hour.began)));
        }
        hour.sent = sent;
        Ok(())
    }
}

/// Seconds for `Retry-After`, rounded up.
pub(crate) fn seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX)
}

/// Whose bucket a request is taken from: its issuer's, who answers for its managers.
pub(crate) fn tenant(caller: &Principal) -> String {
    match (&caller.issuer, caller.pm) {
        (Some(issuer), _) => format!("issuer/{issuer}"),
        (None, Some(pm)) => format!("pm/{pm}"),
        (None, None) => format!("subject/{}", caller.subject),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { reads: 4, writes: 2, resends_per_hour: 5 };

    #[test]
    fn a_tenant_that_asks_too_often_waits_and_nobody_else_does() {
        let quotas = Quotas::default();
        let start = Instant::from_nanos(0);
        let take = |tenant: &str, kind, now| quotas.take(tenant.to_owned(), kind, RATE, now);
        for _ in 0..20 {
            assert_eq!(take("a", Kind::Write, start), Ok(()));
        }
        let wait = take("a", Kind::Write, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(500));
        assert_eq!(take("a", Kind::Read, start), Ok(()), "reads are counted apart");
        assert_eq!(take("b", Kind::Write, start), Ok(()), "another tenant");
        assert_eq!(take("a", Kind::Write, start + wait), Ok(()));
        assert!(take("a", Kind::Write, start + wait).is_err());
    }

    #[test]
    fn a_webhook_gets_so_many_again_in_an_hour_and_no_other_pays_for_it() {
        let resends = Resends::default();
        let start = Instant::from_nanos(0);
        let (one, two) = (WebhookId::from_random([1; 16]), WebhookId::from_random([2; 16]));
        assert_eq!(resends.take(one, 3, RATE, start), Ok(()));
        let later = start + HOUR / 4;
        assert_eq!(resends.take(one, 3, RATE, later), Err(HOUR * 3 / 4));
        assert_eq!(resends.take(one, 2, RATE, later), Ok(()), "the refused ones do not count");
        let nanosecond = Duration::from_nanos(1);
        let before = start + (HOUR - nanosecond);
        assert_eq!(resends.take(one, 1, RATE, before), Err(nanosecond));
        assert_eq!(resends.take(two, 5, RATE, later), Ok(()));
        assert_eq!(resends.take(one, 5, RATE, start + HOUR), Ok(()));
        assert_eq!(resends.take(one, 0, RATE, start + HOUR), Ok(()));
        let none = Rate { resends_per_hour: 0, ..RATE };
        assert_eq!(resends.take(one, 100, none, start + HOUR), Ok(()));
        assert_eq!(seconds(Duration::from_nanos(1)), 1);
        assert_eq!(seconds(Duration::from_millis(1001)), 2);
    }

    #[test]
    fn full_buckets_are_forgotten_and_too_many_are_refused() {
        let quotas = Quotas::default();
        let start = Instant::from_nanos(0);
        for number in 0..MAX_TENANTS {
            assert_eq!(quotas.take(number.to_string(), Kind::Read, RATE, start), Ok(()));
        }
        assert!(quotas.take("late".to_owned(), Kind::Read, RATE, start).is_err());
        let later = start + Duration::from_secs(1);
        assert_eq!(quotas.take("late".to_owned(), Kind::Read, RATE, later), Ok(()));
        assert_eq!(quotas.0.lock().len(), 1);
    }
}
