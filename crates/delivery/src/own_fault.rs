//! Whether it is we who find nobody: our name server, our network.
//!
//! One endpoint whose name or a way to it is not found has a fault of its own. When the
//! endpoints of many webhooks and several tenants are not found, and meanwhile none is,
//! the fault is ours (`reliability-security.md` §2.6, H5): those webhooks stand still,
//! and their attempts do not count, until an endpoint is found again.
//!
//! Nobody else waits: a webhook that has not failed so goes on, and finding its endpoint
//! ends the fault for all. So no customer can hold others up with names that lead
//! nowhere.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use tidings_types::{Instant, WebhookId};

/// As many webhooks found nobody...
const MIN_WEBHOOKS: usize = 10;
/// ...of as many tenants, before it is called our own fault.
const MIN_TENANTS: usize = 3;
/// What is older says nothing about now.
const WINDOW: Duration = Duration::from_secs(60);
/// How often an endpoint is looked for while those webhooks stand still.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// For so long after an end nothing is called our fault. Names that lead nowhere for good
/// would be, again and again.
const QUIET: Duration = Duration::from_secs(30);
/// Webhooks whose endpoints were found last, which are looked for too.
const MAX_KNOWN: usize = 8;

/// What one look at an endpoint came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing changes.
    None,
    /// From now on it is our fault: these stand still.
    Begins(Vec<WebhookId>),
    /// This one stands still too.
    Joins,
    /// An endpoint was found: these go on.
    Ends(Vec<WebhookId>),
}

/// Which webhooks of a process found nobody lately.
#[derive(Clone, Debug, Default)]
pub struct OwnFault {
    /// With their tenants, hashed, and when it was seen last.
    lost: BTreeMap<WebhookId, (u64, Instant)>,
    known: VecDeque<WebhookId>,
    is_on: bool,
    quiet_until: Instant,
    next_probe: Instant,
    probes: usize,
}

impl OwnFault {
    /// Whether it is our fault now.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether a webhook stands still for it.
    pub fn holds(&self, webhook: WebhookId) -> bool {
        self.is_on && self.lost.contains_key(&webhook)
    }

    /// The endpoint of a webhook was looked for.
    pub fn looked(&mut self, webhook: WebhookId, tenant: u64, found: bool, now: Instant) -> Turn {
        if found {
            self.known.retain(|known| *known != webhook);
            self.known.truncate(MAX_KNOWN - 1);
            self.known.push_front(webhook);
            let lost = std::mem::take(&mut self.lost).into_keys().collect();
            if !std::mem::take(&mut self.is_on) {
                return Turn::None;
            }
            self.quiet_until = now + QUIET;
            return Turn::Ends(lost);
        }
        if now < self.quiet_until {
            return Turn::None;
        }
        let is_new = self.lost.insert(webhook, (tenant, now)).is_none();
        if self.is_on {
            return if is_new { Turn::Joins } else { Turn::None };
        }
        self.lost.retain(|_, (_, seen)| now.since(*seen) <= WINDOW);
        let tenants: BTreeSet<u64> = self.lost.values().map(|(tenant, _)| *tenant).collect();
        if self.lost.len() < MIN_WEBHOOKS || tenants.len() < MIN_TENANTS {
            return Turn::None;
        }
        self.is_on = true;
        self.next_probe = now;
        Turn::Begins(self.lost.keys().copied().collect())
    }

    /// The webhook whose endpoint is to be looked for now: in turn one that stands still
    /// and one that was found before.
    pub fn probe(&mut self, now: Instant) -> Option<WebhookId> {
        if !self.is_on || now < self.next_probe {
            return None;
        }
        self.next_probe = now + PROBE_EVERY;
        self.probes = self.probes.wrapping_add(1);
        let turn = self.probes / 2;
        let known = self.known.get(turn % self.known.len().max(1));
        let lost = self.lost.keys().nth(turn % self.lost.len().max(1));
        let asks_known = self.probes.is_multiple_of(2);
        let (first, second) = if asks_known { (known, lost) } else { (lost, known) };
        first.or(second).copied()
    }

    /// The webhook is another process' now, is gone, or its endpoint is another one.
    pub fn forget(&mut self, webhook: WebhookId) {
        self.lost.remove(&webhook);
        self.known.retain(|known| *known != webhook);
        self.is_on &= !self.lost.is_empty();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> WebhookId {
        WebhookId::from_bytes([number; 16])
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    /// Webhooks `0..count`, spread over `tenants`, each looked for in vain at second 1.
    fn lost(count: u8, tenants: u64) -> (OwnFault, Turn) {
        let mut fault = OwnFault::default();
        let mut last = Turn::None;
        for number in 0..count {
            assert_eq!(last, Turn::None);
            last = fault.looked(id(number), u64::from(number) % tenants, false, at(1));
        }
        (fault, last)
    }

    #[test]
    fn many_webhooks_of_several_tenants_that_find_nobody_are_our_fault() {
        let (mut fault, last) = lost(10, 3);
        assert_eq!(last, Turn::Begins((0..10).map(id).collect()));
        assert_eq!(fault.looked(id(10), 1, false, at(2)), Turn::Joins);
        assert_eq!(fault.looked(id(10), 1, false, at(2)), Turn::None);
        assert!(fault.holds(id(10)) && !fault.holds(id(11)));
    }

    #[test]
    fn few_webhooks_or_one_tenants_are_theirs() {
        for (count, tenants) in [(9, 3), (100, 2), (100, 1)] {
            let (fault, last) = lost(count, tenants);
            assert_eq!((last, fault.is_on()), (Turn::None, false), "{count} of {tenants}");
        }
    }

    #[test]
    fn an_endpoint_that_is_found_meanwhile_acquits_us() {
        let (mut fault, _) = lost(9, 3);
        assert_eq!(fault.looked(id(50), 7, true, at(2)), Turn::None);
        assert_eq!(fault.looked(id(9), 0, false, at(3)), Turn::None);
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let (mut fault, _) = lost(9, 3);
        assert_eq!(fault.looked(id(9), 0, false, at(62)), Turn::None);
    }

    #[test]
    fn it_ends_for_all_when_one_is_found_and_is_not_called_again_at_once() {
        let (mut fault, _) = lost(10, 3);
        assert_eq!(
            fault.looked(id(3), 0, true, at(5)),
            Turn::Ends((0..10).map(id).collect::<Vec<_>>())
        );
        assert!(!fault.is_on() && !fault.holds(id(4)));
        for number in 0..20 {
            let turn = fault.looked(id(number), u64::from(number), false, at(34));
            assert_eq!(turn, Turn::None);
        }
        let turns = (0..10).map(|number| {
            let tenant = u64::from(number);
            fault.looked(id(number), tenant, false, at(36))
        });
        assert!(matches!(turns.last(), Some(Turn::Begins(_))));
    }

    #[test]
    fn those_that_stand_still_and_those_that_were_found_are_looked_for_in_turn() {
        let mut fault = OwnFault::default();
        assert_eq!(fault.looked(id(90), 9, true, at(0)), Turn::None);
        for number in 0..10 {
            fault.looked(id(number), u64::from(number), false, at(1));
        }
        let mut probes = Vec::new();
        for second in 1..=40 {
            probes.extend(fault.probe(at(second)));
            assert_eq!(fault.probe(at(second)), None, "once a second");
        }
        assert_eq!(probes.len(), 40);
        let expected: BTreeSet<_> = (0..10).chain([90]).map(id).collect();
        assert_eq!(probes.into_iter().collect::<BTreeSet<_>>(), expected);
    }

    #[test]
    fn webhooks_that_go_elsewhere_take_their_fault_along() {
        let (mut fault, _) = lost(10, 3);
        for number in 0..10 {
            fault.forget(id(number));
        }
        assert!(!fault.is_on() && fault.probe(at(9)).is_none());
    }
}
