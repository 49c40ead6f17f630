//! How many requests to the EDS API a tenant may make (`reliability-security.md`
//! §3.6), so that one of them cannot use up the API for all.
//!
//! A token bucket per tenant and kind of request, in this process: several `api`
//! processes each give a tenant its whole rate. Publishing and administration are
//! the platform's own and have none.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use tidings_auth::Principal;
use tidings_types::Instant;

/// Requests a second; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub reads: u32,
    pub writes: u32,
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

    const RATE: Rate = Rate { reads: 4, writes: 2 };

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
