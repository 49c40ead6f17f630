//! Facts to the log, and what its acknowledgement makes true.

use std::time::Duration;

use tidings_broker::Appended;
use tidings_delivery::FactKind;

use super::Running;
use crate::{outbox::Acknowledged, records::kind_name, slot_log};

/// How long to wait after a failed append before the next try.
const RETRY: Duration = Duration::from_millis(100);

impl Running {
    pub(super) fn start_flush(&mut self) {
        if self.flush.is_some() || self.outbox.is_empty() || self.mono() < self.next_flush {
            return;
        }
        let deps = &self.deps;
        let batches = self.outbox.flush(|took| slot_log::named(deps, took));
        let broker = self.deps.broker.clone();
        self.flush = Some(Box::pin(async move { broker.append(batches).await }));
    }

    pub(super) fn flushed(&mut self, results: Vec<Appended>) {
        let flushed = self.outbox.flushed(results);
        if let Some(why) = flushed.fatal {
            self.fatal = Some(why);
            return;
        }
        if flushed.failures > 0 {
            self.deps.metrics.append_retries.inc_by(flushed.failures);
            self.next_flush = self.mono() + RETRY;
        }
        if !flushed.acknowledged.is_empty() {
            self.deps.hit("sender.after_outcome_before_checkpoint");
        }
        for acknowledged in flushed.acknowledged {
            self.acknowledged(acknowledged);
        }
    }

    fn acknowledged(&mut self, Acknowledged { sent, offset }: Acknowledged) {
        let now = self.now();
        let owner = self.table.owners.get_mut(&sent.slot);
        if let Some(owner) = owner.filter(|owner| owner.fence.took() == sent.took) {
            owner.unacknowledged = owner.unacknowledged.saturating_sub(sent.facts.len());
            owner.position = owner.position.max(offset + 1);
        }
        let mut counts = [0_u64; 8];
        for pending in sent.facts {
            let kind = pending.said.fact.kind;
            if let Some(count) = counts.get_mut(kind_index(kind)) {
                *count += 1;
            }
            match self.table.get_mut(pending.row) {
                Some(row) => {
                    row.hook.acknowledged(&pending.said.fact, pending.body, now, &mut self.process);
                    self.table.make_ready(pending.row);
                    self.look_for_notices(pending.row);
                    if !kind.is_end() {
                        let due = self.table.get(pending.row).and_then(|r| r.hook.next_due(now));
                        self.table.set_timer(pending.row, due);
                    }
                }
                // The slot has gone to another; what was said stays true.
                None => self.process.facts = self.process.facts.saturating_sub(1),
            }
        }
        for (kind, count) in KINDS.iter().zip(counts).filter(|(_, count)| *count > 0) {
            self.deps.metrics.said(kind_name(*kind), count);
        }
    }
}

const KINDS: [FactKind; 8] = [
    FactKind::TakenUp,
    FactKind::AttemptFailed,
    FactKind::Delivered,
    FactKind::Undelivered(tidings_types::EndReason::Exhausted),
    FactKind::Expired,
    FactKind::Cancelled,
    FactKind::Joined,
    FactKind::Superseded,
];

const fn kind_index(kind: FactKind) -> usize {
    match kind {
        FactKind::TakenUp => 0,
        FactKind::AttemptFailed => 1,
        FactKind::Delivered => 2,
        FactKind::Undelivered(_) => 3,
        FactKind::Expired => 4,
        FactKind::Cancelled => 5,
        FactKind::Joined => 6,
        FactKind::Superseded => 7,
    }
}
