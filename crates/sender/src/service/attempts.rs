//! Starts attempts and takes in what they came to.

use futures::{FutureExt as _, future::BoxFuture};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tidings_broker::{Broker, ReadError, Record};
use tidings_delivery::{At, Attempt, AttemptFact, Report, retry_after};
use tidings_egress::{AttemptReport, Target};
use tidings_signing::OpenError;
use tidings_types::{AttemptCode, Lane, Offset, Ordering, Sabotage, TopicPartition};

use super::{Running, own_fault::SHUT_IN};
use crate::{
    bodies::BodyError,
    outbox::Pending,
    records::{self, Delivery, Said},
    request, snippet,
    table::RowKey,
    webhook::Webhook,
};

/// When a notification is tried again after we could not even start...
const OUR_FAULT: Duration = Duration::from_secs(1);
/// ...and if that may last until a person acts.
const LASTING_FAULT: Duration = Duration::from_secs(60);
/// How often a line says that records of open notifications cannot be read.
const UNREAD_EVERY: Duration = Duration::from_secs(10);

/// The lane that gave a notification its number. A resend stands in the lane of its
/// event type, also of a webhook whose notifications were all numbered in the
/// standard lane because their order is strict. The record of a resend says it, for
/// the webhook's order may be another one by now.
fn numbered_in(webhook: &Webhook, attempt: &Attempt<Delivery>) -> Lane {
    if attempt.body.number_lane.is_some() {
        return attempt.body.number_lane().into();
    }
    if webhook.ordering == Ordering::Strict && !attempt.run.is_first() {
        Lane::Standard
    } else {
        attempt.lane
    }
}

/// Reads the record at an offset, or what stands in its place.
async fn read_again(
    broker: &Broker,
    of: &TopicPartition,
    offset: Offset,
) -> Result<Option<Record>, ReadError> {
    let read = broker.read(of, offset, 1).await?;
    if !read.is_empty() {
        return Ok(read.into_iter().next());
    }
    let end = broker.ends(of).await?.end;
    if end <= offset {
        return Err(ReadError::BeyondEnd { partition: of.clone(), offset, end });
    }
    Err(ReadError::Unavailable)
}

/// An attempt that has ended.
pub(super) struct Finished {
    row: RowKey,
    at: At,
    body: Delivery,
    /// Where it was sent, if anywhere.
    target: Option<Arc<Target>>,
    report: AttemptReport,
}

/// An attempt under way.
pub(super) struct UnderWay {
    row: RowKey,
    at: At,
    body: Delivery,
    target: Option<Arc<Target>>,
    exchange: BoxFuture<'static, AttemptReport>,
}

impl Future for UnderWay {
    type Output = Finished;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Finished> {
        let report = ready!(self.exchange.as_mut().poll(context));
        let (row, at, body) = (self.row, self.at, Arc::clone(&self.body));
        Poll::Ready(Finished { row, at, body, target: self.target.take(), report })
    }
}

/// A body that was read again, or keys that were.
pub(super) enum Loaded {
    Body { row: RowKey, at: At, record: Result<Option<Record>, ReadError> },
    Keys { row: RowKey, attempt: Attempt<Delivery>, complete: bool },
}

impl Running {
    /// Starts an attempt that its webhook's state allowed.
    pub(super) fn start(&mut self, key: RowKey, attempt: Attempt<Delivery>) {
        self.start_with(key, attempt, KeysAre::MaybeOld);
    }

    fn start_with(&mut self, key: RowKey, attempt: Attempt<Delivery>, keys: KeysAre) {
        let Some(row) = self.table.get(key) else { return };
        let webhook = Arc::clone(&row.webhook);
        let record = &attempt.body;
        // The assertion of I4, before anything is sent.
        let checks_tenant = !self.deps.sabotage.is(Sabotage::WrongTenantWebhook);
        if checks_tenant && !webhook.owner.may_receive(record) {
            self.deps.metrics.wrong_tenant.inc();
            tracing::error!(webhook = %webhook.id, notification = %attempt.notification, trace = record.traceparent, "a delivery record belongs to another tenant than its webhook; nothing is sent");
            self.finish_unsent(key, attempt, AttemptCode::BadConfig);
            return;
        }
        let id = request::id_text(attempt.notification);
        let body = match self.bodies.render(record, &id) {
            Ok(body) => body,
            Err(error) => {
                self.cannot_render(key, attempt, keys, &error);
                return;
            }
        };
        let now = self.deps.clock.now();
        let order = attempt.sequence.map(|number| (numbered_in(&webhook, &attempt), number));
        let request = request::build(&webhook, record, &id, (attempt.number, order), body, now);
        let request = match request {
            Ok(request) => request,
            Err(code) => {
                self.finish_unsent(key, attempt, code);
                return;
            }
        };
        self.deps.metrics.attempts.inc();
        self.deps.hit("sender.before_connect");
        let exchange = self.deps.attempts.attempt(request);
        let (at, body, target) = (attempt.at, attempt.body, webhook.target.clone().ok());
        self.attempts.push(UnderWay { row: key, at, body, target, exchange });
    }

    /// Ends an attempt that must not be sent.
    fn finish_unsent(&mut self, key: RowKey, attempt: Attempt<Delivery>, code: AttemptCode) {
        let report = AttemptReport::without_answer(code);
        let (at, body) = (attempt.at, attempt.body);
        self.finished(Finished { row: key, at, body, target: None, report });
    }

    fn cannot_render(
        &mut self,
        key: RowKey,
        attempt: Attempt<Delivery>,
        keys: KeysAre,
        error: &BodyError,
    ) {
        let now = self.now();
        let unknown = matches!(error, BodyError::Open(OpenError::UnknownKey(_)));
        if unknown && keys == KeysAre::MaybeOld {
            // A reader that does not know a key reads the topic to its end before
            // it calls it gone (design §7).
            let fold = self.deps.bucket_keys.fold_to_end();
            self.loads.push(Box::pin(fold.map(move |complete| Loaded::Keys {
                row: key,
                attempt,
                complete,
            })));
            return;
        }
        let Some(row) = self.table.get_mut(key) else { return };
        let has_deadline = attempt.body.deadline != 0;
        if unknown && has_deadline {
            row.hook.unreadable(attempt.at, now, &mut self.process);
            self.settle(key);
            return;
        }
        tracing::error!(notification = %attempt.notification, trace = attempt.body.traceparent, %error, "a body cannot be opened; check the master key");
        if unknown {
            row.hook.put_back(attempt.at, now + LASTING_FAULT, &mut self.process);
            self.settle(key);
        } else {
            self.finish_unsent(key, attempt, AttemptCode::BadConfig);
        }
    }

    /// Reads the record of an open notification again.
    pub(super) fn load(&mut self, key: RowKey, at: At) {
        let Some(row) = self.table.get(key) else { return };
        let (of, broker) = (row.partition(at.partition), self.deps.broker.clone());
        self.loads.push(Box::pin(async move {
            let record = read_again(&broker, &of, at.offset).await;
            Loaded::Body { row: key, at, record }
        }));
    }

    /// The record of an open notification cannot be read, or is gone.
    fn cannot_load(&mut self, key: RowKey, at: At, error: &ReadError) {
        let (now, mono) = (self.now(), self.mono());
        let Some(row) = self.table.get_mut(key) else { return };
        let due = match error {
            ReadError::Trimmed { .. } => {
                tracing::error!(%error, "the record of an open notification is gone");
                row.hook.loaded(at, None, now, &mut self.process);
                return;
            }
            ReadError::BeyondEnd { .. } => {
                let slot = row.slot;
                self.tail_lost(slot);
                return;
            }
            // A broker that has just come back may know less for a moment.
            ReadError::UnknownPartition(_) | ReadError::Unavailable => now + OUR_FAULT,
            ReadError::Damaged { .. } => now + LASTING_FAULT,
        };
        row.hook.put_back(at, due, &mut self.process);
        self.deps.metrics.unread.inc();
        if self.next_unread_line <= mono {
            self.next_unread_line = mono + UNREAD_EVERY;
            tracing::warn!(%error, "records of open notifications cannot be read now; they wait");
        }
    }

    pub(super) fn loaded(&mut self, loaded: Loaded) {
        self.look_at_registry();
        let now = self.now();
        match loaded {
            Loaded::Body { row: key, at, record } => {
                match record {
                    Err(error) => self.cannot_load(key, at, &error),
                    Ok(record) => {
                        let Some(row) = self.table.get_mut(key) else { return };
                        let arrived = record.as_ref().and_then(records::arrived);
                        let step = row.hook.loaded(at, arrived, now, &mut self.process);
                        if let Some(attempt) = step {
                            self.start(key, attempt);
                        }
                    }
                }
                self.table.make_ready(key);
                self.settle(key);
            }
            Loaded::Keys { row: key, attempt, complete: true } => {
                let Some(row) = self.table.get_mut(key) else { return };
                if row.hook.may_still_start(attempt.at, now, &mut self.process) {
                    self.start_with(key, attempt, KeysAre::Fresh);
                } else {
                    self.table.make_ready(key);
                    self.settle(key);
                }
            }
            Loaded::Keys { row: key, attempt, complete: false } => {
                let Some(row) = self.table.get_mut(key) else { return };
                row.hook.put_back(attempt.at, now + OUR_FAULT, &mut self.process);
                self.settle(key);
            }
        }
    }

    /// An attempt has ended.
    pub(super) fn finished(&mut self, finished: Finished) {
        let Finished { row: key, at, body, target, mut report } = finished;
        let now = self.now();
        let random = self.deps.rng.next_u64();
        if self.deps.sabotage.is(Sabotage::InventDelivered) {
            report.code = AttemptCode::Delivered;
        }
        if report.code.is_ours() {
            self.shut_in(report.code);
            self.deps.metrics.not_counted.inc();
            if let Some(row) = self.table.get_mut(key) {
                row.hook.put_back(at, now + SHUT_IN, &mut self.process);
            }
            self.settle(key);
            return;
        }
        let is_of_now = target.is_some_and(|target| self.has_target(key, &target));
        // What the URL before came to says nothing of this one. If we find nobody, that
        // does not count either.
        let is_ours = if is_of_now {
            self.looked(key, report.found)
        } else {
            self.own_fault.is_on() && report.found == Some(false)
        };
        if is_ours {
            self.deps.metrics.not_counted.inc();
            if let Some(row) = self.table.get_mut(key) {
                row.hook.put_back(at, now, &mut self.process);
            }
            self.table.make_ready(key);
            self.settle(key);
            return;
        }
        let delivered = report.code == AttemptCode::Delivered;
        self.deps.hit(if delivered {
            "sender.after_response_before_outcome"
        } else {
            "sender.after_failure_before_outcome"
        });
        let Some(row) = self.table.get_mut(key) else { return };
        let wall = self.deps.clock.now();
        // Only with these does it mean "later" (`reliability-security.md` §2.6).
        let asked = report.retry_after.filter(|_| matches!(report.http_status, 429 | 503));
        let came_to = Report {
            attempt: AttemptFact {
                code: report.code,
                http_status: report.http_status,
                duration: report.duration,
            },
            retry_after: asked.and_then(|value| retry_after::parse(&value, wall)),
        };
        row.hook.finished(at, &came_to, now, random, &mut self.process);
        let keeps_answer = !report.snippet.is_empty() && snippet::may_be_kept(&body.event_type);
        let answer = snippet::Answer { bytes: &report.snippet, shown: report.shown.as_ref() };
        let answer = keeps_answer.then_some(answer);
        self.collect_facts(key, (!delivered).then_some(&body), answer);
        self.table.make_ready(key);
        self.settle(key);
    }

    /// Moves a webhook's facts to the outbox.
    pub(super) fn collect_facts(
        &mut self,
        key: RowKey,
        body: Option<&Delivery>,
        answer: Option<snippet::Answer<'_>>,
    ) {
        let Some(row) = self.table.get_mut(key) else { return };
        let (slot, webhook) = (row.slot, row.hook.id());
        let settings = Arc::clone(&row.webhook);
        let facts: Vec<_> = row.hook.facts().collect();
        let Some(owner) = self.table.owners.get(&slot) else {
            self.process.facts = self.process.facts.saturating_sub(facts.len());
            return;
        };
        let took = owner.fence.took();
        let drops = self.deps.sabotage.is(Sabotage::DropOutcome);
        for fact in facts {
            if drops && fact.kind.is_end() && self.deps.rng.next_u64().is_multiple_of(8) {
                // A planted fault: said to be acknowledged, never appended.
                if let Some(row) = self.table.get_mut(key) {
                    row.hook.acknowledged(&fact, None, fact.time, &mut self.process);
                }
                continue;
            }
            let Some(owner) = self.table.owners.get_mut(&slot) else { return };
            owner.unacknowledged += 1;
            owner.said += 1;
            let snippet = answer.filter(|_| fact.attempt.is_some()).map(|answer| {
                let mut nonce = [0; 12];
                self.deps.rng.fill(&mut nonce);
                let (ring, id) = (self.bodies.keys().ring(), fact.entry.notification);
                snippet::seal(ring, id, answer, &settings, nonce)
            });
            let said = Said { webhook, fact, snippet };
            self.outbox.push(slot, took, Pending { row: key, said, body: body.cloned() });
        }
    }
}

/// Whether the bucket keys have been read to their end just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeysAre {
    MaybeOld,
    Fresh,
}
