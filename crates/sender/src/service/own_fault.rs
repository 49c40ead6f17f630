//! When it is we who find nobody: the webhooks whose endpoints are not found stand still,
//! as if an operator had paused them, and attempts that found nobody do not count. What
//! they failed with before stands.
//!
//! Where our own proxy or source address fails, each attempt says so itself: it does not
//! count, and is made again a little later.
//!
//! What makes the other our fault stands in [`tidings_delivery::OwnFault`].

use std::{sync::Arc, time::Duration};

use futures::FutureExt as _;
use tidings_delivery::Turn;
use tidings_egress::Target;
use tidings_types::AttemptCode;

use super::{Running, tick::Chore};
use crate::{table::RowKey, webhook::Webhook};

/// For how long nothing is sent after that.
pub(super) const SHUT_IN: Duration = Duration::from_secs(2);
/// How often it is said that the way out fails.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

impl Running {
    /// Our proxy or our source address fails: says so, not too often, and sends nothing
    /// for a while.
    pub(super) fn shut_in(&mut self, code: AttemptCode) {
        self.way_out_at = self.mono() + SHUT_IN;
        if self.mono() < self.next_complaint {
            return;
        }
        self.next_complaint = self.mono() + COMPLAIN_EVERY;
        tracing::error!(
            %code,
            "nothing gets out: attempts do not count and are made again; check egress.proxy and \
             egress.bind"
        );
    }

    /// Takes in whether the endpoint of a webhook was found, if anybody looked. Returns
    /// whether an attempt that came to this does not count.
    pub(super) fn looked(&mut self, key: RowKey, found: Option<bool>) -> bool {
        let (Some(found), Some(row)) = (found, self.table.get(key)) else { return false };
        let (id, [tenant, _host]) = (row.webhook.id, row.webhook.shares());
        match self.own_fault.looked(id, tenant, found, self.mono()) {
            Turn::None => {}
            Turn::Begins(webhooks) => {
                tracing::error!(
                    webhooks = webhooks.len(),
                    "the endpoints of many unrelated webhooks are not found, and no other is: \
                     these stand still, and their attempts do not count; check the name server \
                     and the network of this machine"
                );
                self.deps.metrics.own_fault.set(1);
                self.hold(webhooks.iter().filter_map(|id| self.table.by_id(*id)).collect(), true);
            }
            Turn::Joins => self.hold(vec![key], true),
            Turn::Ends(webhooks) => {
                tracing::warn!(webhooks = webhooks.len(), "an endpoint was found again; all go on");
                self.deps.metrics.own_fault.set(0);
                self.hold(webhooks.iter().filter_map(|id| self.table.by_id(*id)).collect(), false);
            }
        }
        !found && self.own_fault.holds(id)
    }

    /// Looks for an endpoint, while it is our fault.
    pub(super) fn probe(&mut self) {
        let Some(id) = self.own_fault.probe(self.mono()) else { return };
        let Some(key) = self.table.by_id(id) else {
            self.own_fault.forget(id);
            return;
        };
        let Some(row) = self.table.get(key) else { return };
        let Ok(target) = row.webhook.target.clone() else { return };
        let identity = row.webhook.identity.clone();
        self.deps.metrics.own_fault_probes.inc();
        let looking = self.deps.attempts.look(Arc::clone(&target), identity);
        self.chores.push(Box::pin(looking.map(move |found| Chore::Looked(key, target, found))));
    }

    /// Whether the URL of a webhook is still this one.
    pub(super) fn has_target(&self, key: RowKey, target: &Target) -> bool {
        let now = self.table.get(key).and_then(|row| row.webhook.target.as_ref().ok());
        now.is_some_and(|now| now.as_str() == target.as_str())
    }

    /// Another process has the webhook now, it is gone, or its URL is another one.
    pub(super) fn forget_way(&mut self, webhook: &Webhook) {
        let was_on = self.own_fault.is_on();
        self.own_fault.forget(webhook.id);
        if was_on && !self.own_fault.is_on() {
            self.deps.metrics.own_fault.set(0);
        }
    }

    fn hold(&mut self, rows: Vec<RowKey>, is_held: bool) {
        for key in rows {
            let Some(row) = self.table.get(key) else { continue };
            if is_held != row.hook.stands_still() {
                let webhook = Arc::clone(&row.webhook);
                self.apply(key, webhook);
            }
        }
    }
}
