//! Between the records of the topics and the words of `tidings-delivery`.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use tidings_broker::{NewRecord, Record};
use tidings_delivery::{
    Alarm, Arrived, At, AttemptFact, Checkpoint, Entry, Fact, FactKind, Folded, Health, Notice,
    NoticeKind, OutcomeSeen, Part, Queued, SlotEvent, Totals,
};
use tidings_proto::{decode, encode, format_header, v1};
use tidings_signing::sha256;
use tidings_types::{
    AttemptCode, EndReason, Lane, NotificationId, Offset, RunId, Slot, Timestamp, WebhookId,
};

/// A delivery record in memory, shared by whoever needs its body.
pub(crate) type Delivery = Arc<v1::DeliveryRecord>;

/// What a decoded record holds beside its value.
const RECORD_OVERHEAD: usize = 256;

fn value(record: &Record) -> Option<Bytes> {
    let ours = record.headers.iter().any(|(name, version)| {
        name.as_ref() == tidings_proto::FORMAT_HEADER
            && version.as_ref() == tidings_proto::FORMAT_VERSION
    });
    record.value.clone().filter(|_| ours)
}

fn new_record(key: Bytes, value: Bytes) -> NewRecord {
    NewRecord {
        key: Some(key),
        headers: vec![format_header()],
        value: Some(value),
        timestamp: None,
    }
}

fn millis(time: Timestamp) -> i64 {
    time.as_millis()
}

fn optional(millis: i64) -> Option<Timestamp> {
    (millis != 0).then_some(Timestamp::from_millis(millis))
}

fn lane_of(number: i32) -> Lane {
    v1::Lane::try_from(number).map_or(Lane::Standard, Lane::from)
}

/// Reads a delivery record. `None` if it is not one of ours or does not decode.
/// The sealed body stays in the buffer that the broker gave; nothing is copied.
pub(crate) fn arrived(record: &Record) -> Option<Arrived<Delivery>> {
    let value = value(record)?;
    let size = value.len() + RECORD_OVERHEAD;
    let delivery: v1::DeliveryRecord = decode(value).ok()?;
    Some(Arrived {
        offset: record.offset,
        notification: NotificationId::from_slice(&delivery.notification)?,
        run: run_of(&delivery.run)?,
        lane: lane_of(delivery.lane),
        deadline: optional(delivery.deadline),
        kind: kind_hash(&delivery.event_type),
        order_key: 0,
        state_key: None,
        number: delivery.number,
        size,
        body: Arc::new(delivery),
    })
}

/// An event type as the rules see it: FNV-1a of its name, never zero.
pub(crate) fn kind_hash(event_type: &str) -> u64 {
    let hash = event_type.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.max(1)
}

/// Hashes what the order of an ordered webhook goes by; `is_state` says whether the
/// type is one whose newer notification may take the place of an older one.
pub(crate) fn fill_keys(arrived: &mut Arrived<Delivery>, is_state: bool) {
    let (key, kind) = (arrived.body.order_key.as_bytes(), arrived.body.event_type.as_bytes());
    arrived.order_key = first_half(sha256(&[key]));
    arrived.state_key = is_state.then(|| first_half(sha256(&[kind, b"/", key])));
}

fn first_half(digest: [u8; 32]) -> u128 {
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    u128::from_be_bytes(half)
}

/// An absent run is the first one.
fn run_of(bytes: &[u8]) -> Option<RunId> {
    if bytes.is_empty() { Some(RunId::FIRST) } else { RunId::from_slice(bytes) }
}

// ---- tidings.outcomes --------------------------------------------------------

/// One fact with its webhook and the sealed start of the endpoint's answer.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) webhook: WebhookId,
    pub(crate) fact: Fact,
    pub(crate) snippet: Option<v1::Sealed>,
}

pub(crate) const fn kind_name(kind: FactKind) -> &'static str {
    match kind {
        FactKind::TakenUp => "takenUp",
        FactKind::AttemptFailed => "attemptFailed",
        FactKind::Delivered => "delivered",
        FactKind::Undelivered(_) => "undelivered",
        FactKind::Expired => "expired",
        FactKind::Cancelled => "cancelled",
        FactKind::Superseded => "superseded",
        FactKind::Joined => "joined",
    }
}

const fn kind_and_reason(kind: FactKind) -> (v1::OutcomeKind, Option<EndReason>) {
    match kind {
        FactKind::TakenUp => (v1::OutcomeKind::TakenUp, None),
        FactKind::AttemptFailed => (v1::OutcomeKind::AttemptFailed, None),
        FactKind::Delivered => (v1::OutcomeKind::Delivered, None),
        FactKind::Undelivered(reason) => (v1::OutcomeKind::Undelivered, Some(reason)),
        FactKind::Expired => (v1::OutcomeKind::Expired, Some(EndReason::Expired)),
        FactKind::Cancelled => (v1::OutcomeKind::Cancelled, Some(EndReason::Cancelled)),
        FactKind::Superseded => (v1::OutcomeKind::Superseded, Some(EndReason::Superseded)),
        FactKind::Joined => (v1::OutcomeKind::Joined, None),
    }
}

fn outcome(said: &Said) -> v1::Outcome {
    let Fact { kind, entry, time, attempt } = &said.fact;
    let (kind, reason) = kind_and_reason(*kind);
    let totals = &entry.totals;
    // One allocation for the three ids.
    let mut ids = BytesMut::with_capacity(48);
    ids.put_slice(said.webhook.as_bytes());
    ids.put_slice(entry.notification.as_bytes());
    ids.put_slice(entry.run.as_bytes());
    let ids = ids.freeze();
    v1::Outcome {
        webhook: ids.slice(..16),
        notification: ids.slice(16..32),
        run: ids.slice(32..),
        partition: Some(entry.at.partition),
        offset: Some(entry.at.offset),
        kind: kind.into(),
        reason: reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
        time: millis(*time),
        attempt: totals.attempts,
        ladder_step: totals.ladder_step,
        first_failure: millis(totals.first_failure),
        next_due: millis(totals.due),
        code: attempt.map(|a| a.code.text(a.http_status)).unwrap_or_default(),
        http_status: attempt.map_or(0, |a| u32::from(a.http_status)),
        duration_ms: attempt
            .map_or(0, |a| u32::try_from(a.duration.as_millis()).unwrap_or(u32::MAX)),
        snippet: said.snippet.clone(),
        lane: v1::Lane::from(entry.lane).into(),
        number: totals.number,
        first_attempt: millis(totals.first_attempt),
    }
}

/// One record of `tidings.outcomes`: many facts of one slot.
pub(crate) fn outcome_record<'a>(
    slot: Slot,
    took: Offset,
    facts: impl Iterator<Item = &'a Said>,
) -> NewRecord {
    let batch = v1::OutcomeBatch {
        slot: slot.0,
        took: Some(took),
        writer: v1::Writer::Sender.into(),
        outcomes: facts.map(outcome).collect(),
    };
    new_record(slot_key(slot), encode(&batch))
}

fn slot_key(slot: Slot) -> Bytes {
    Bytes::copy_from_slice(&slot.0.to_be_bytes())
}

/// Reads the facts of a sender from a record of `tidings.outcomes`, with their
/// slot. Empty for what another writer said: it names no delivery record.
pub(crate) fn outcomes_seen(record: &Record) -> Option<(Slot, Vec<OutcomeSeen>)> {
    let batch: v1::OutcomeBatch = decode(value(record)?).ok()?;
    let slot = Slot(batch.slot);
    let (Some(took), Ok(v1::Writer::Sender)) = (batch.took, v1::Writer::try_from(batch.writer))
    else {
        return Some((slot, Vec::new()));
    };
    Some((slot, batch.outcomes.iter().filter_map(|outcome| seen(outcome, took)).collect()))
}

fn seen(outcome: &v1::Outcome, took: Offset) -> Option<OutcomeSeen> {
    let kind = match v1::OutcomeKind::try_from(outcome.kind).ok()? {
        v1::OutcomeKind::TakenUp => FactKind::TakenUp,
        v1::OutcomeKind::AttemptFailed => FactKind::AttemptFailed,
        v1::OutcomeKind::Delivered => FactKind::Delivered,
        v1::OutcomeKind::Undelivered => FactKind::Undelivered(
            EndReason::from_name(&outcome.reason).unwrap_or(EndReason::Exhausted),
        ),
        v1::OutcomeKind::Expired => FactKind::Expired,
        v1::OutcomeKind::Cancelled => FactKind::Cancelled,
        v1::OutcomeKind::Superseded => FactKind::Superseded,
        v1::OutcomeKind::Joined => FactKind::Joined,
        v1::OutcomeKind::Unspecified
        | v1::OutcomeKind::Duplicate
        | v1::OutcomeKind::ResendAsked => return None,
    };
    Some(OutcomeSeen {
        webhook: WebhookId::from_slice(&outcome.webhook)?,
        entry: Entry {
            at: At { partition: outcome.partition?, offset: outcome.offset? },
            notification: NotificationId::from_slice(&outcome.notification)?,
            run: run_of(&outcome.run)?,
            lane: lane_of(outcome.lane),
            totals: Totals {
                attempts: outcome.attempt,
                ladder_step: outcome.ladder_step,
                first_attempt: Timestamp::from_millis(outcome.first_attempt),
                first_failure: Timestamp::from_millis(outcome.first_failure),
                due: Timestamp::from_millis(outcome.next_due),
                number: outcome.number,
            },
            queue: None,
        },
        kind,
        took,
        time: Timestamp::from_millis(outcome.time),
        gone: outcome.http_status == 410 && outcome.code == AttemptCode::Http.text(410),
        is_busy: matches!(outcome.http_status, 429 | 503),
        attempt: attempt_seen(outcome),
    })
}

/// What an attempt came to, if the outcome is about one. A code of a later release
/// counts as an answer.
fn attempt_seen(outcome: &v1::Outcome) -> Option<AttemptFact> {
    (!outcome.code.is_empty()).then(|| AttemptFact {
        code: AttemptCode::from_text(&outcome.code).unwrap_or(AttemptCode::Http),
        http_status: u16::try_from(outcome.http_status).unwrap_or(0),
        duration: Duration::from_millis(outcome.duration_ms.into()),
    })
}

// ---- tidings.slots -------------------------------------------------------------

pub(crate) fn took_record(slot: Slot, owner: [u8; 16], time: Timestamp) -> NewRecord {
    let took = v1::Took { owner: Bytes::copy_from_slice(&owner), time: millis(time) };
    slot_record(slot, 0, v1::slot_record::Kind::TookOver(took))
}

pub(crate) fn mark_record(slot: Slot, took: Offset, next: Offset, time: Timestamp) -> NewRecord {
    let mark = v1::Mark { outcomes_next: next, time: millis(time) };
    slot_record(slot, took, v1::slot_record::Kind::Mark(mark))
}

pub(crate) fn checkpoint_record(slot: Slot, took: Offset, part: &Part) -> NewRecord {
    let share = &part.share;
    let (last_notification, last_run) = share.last.map_or_else(Default::default, |(id, run)| {
        (Bytes::copy_from_slice(id.as_bytes()), Bytes::copy_from_slice(run.as_bytes()))
    });
    let [standard, urgent] = share.health.paused_until;
    let checkpoint = v1::Checkpoint {
        webhook: Bytes::copy_from_slice(part.webhook.as_bytes()),
        partition: part.partition,
        next: share.next,
        open: share.open.iter().map(open_entry).collect(),
        folded: share
            .folded
            .iter()
            .map(|folded| v1::FoldedEntry {
                entry: Some(open_entry(&folded.entry)),
                ended: folded.ended,
            })
            .collect(),
        standard_number: share.standard_number,
        urgent_number: share.urgent_number,
        failing_since: share.health.failing_since.map_or(0, millis),
        gone: share.health.gone.iter().copied().map(millis).collect(),
        last_notification,
        last_run,
        part: part.part,
        parts: part.parts,
        cut: part.cut,
        failed: share
            .health
            .failed
            .ids()
            .iter()
            .map(|id| Bytes::copy_from_slice(id.as_bytes()))
            .collect(),
        // An earlier release knows one pause of all lanes.
        paused_until: millis(standard.min(urgent)),
        standard_paused_until: millis(standard),
        urgent_paused_until: millis(urgent),
        alarm: (part.partition == 0).then(|| alarm(&share.alarm)),
    };
    slot_record(slot, took, v1::slot_record::Kind::Checkpoint(checkpoint))
}

fn slot_record(slot: Slot, took: Offset, kind: v1::slot_record::Kind) -> NewRecord {
    new_record(slot_key(slot), encode(&v1::SlotRecord { took, kind: Some(kind) }))
}

fn alarm(alarm: &Alarm) -> v1::Alarm {
    let notice = |notice: &Notice| v1::Notice {
        kind: notice.kind.as_str().to_owned(),
        since: millis(notice.since),
        at: millis(notice.at),
        code: notice.code.clone(),
        reason: notice.reason.clone(),
    };
    v1::Alarm {
        since: alarm.since.map_or(0, millis),
        raised: alarm.raised.map_or(0, millis),
        suspended: alarm.suspended.map_or(0, millis),
        untold: alarm.untold.iter().map(notice).collect(),
    }
}

fn alarm_of(alarm: &v1::Alarm) -> Alarm {
    let notice = |notice: &v1::Notice| {
        Some(Notice {
            kind: NoticeKind::from_name(&notice.kind)?,
            since: Timestamp::from_millis(notice.since),
            at: Timestamp::from_millis(notice.at),
            code: notice.code.clone(),
            reason: notice.reason.clone(),
        })
    };
    Alarm {
        since: optional(alarm.since),
        raised: optional(alarm.raised),
        suspended: optional(alarm.suspended),
        untold: alarm.untold.iter().filter_map(notice).collect(),
        warned: None,
    }
}

fn open_entry(entry: &Entry) -> v1::OpenEntry {
    v1::OpenEntry {
        offset: entry.at.offset,
        notification: Bytes::copy_from_slice(entry.notification.as_bytes()),
        run: if entry.run.is_first() {
            Bytes::new()
        } else {
            Bytes::copy_from_slice(entry.run.as_bytes())
        },
        attempts: entry.totals.attempts,
        ladder_step: entry.totals.ladder_step,
        first_attempt: millis(entry.totals.first_attempt),
        first_failure: millis(entry.totals.first_failure),
        due: millis(entry.totals.due),
        number: entry.totals.number,
        lane: v1::Lane::from(entry.lane).into(),
        queue: entry.queue.map_or_else(Bytes::new, |queued| hash_bytes(queued.key)),
        state: entry.queue.and_then(|queued| queued.state).map_or_else(Bytes::new, hash_bytes),
    }
}

fn hash_bytes(hash: u128) -> Bytes {
    Bytes::copy_from_slice(&hash.to_be_bytes())
}

fn hash_of(bytes: &[u8]) -> Option<u128> {
    bytes.try_into().ok().map(u128::from_be_bytes)
}

fn entry_of(partition: u32, open: &v1::OpenEntry) -> Option<Entry> {
    Some(Entry {
        at: At { partition, offset: open.offset },
        notification: NotificationId::from_slice(&open.notification)?,
        run: run_of(&open.run)?,
        lane: lane_of(open.lane),
        totals: Totals {
            attempts: open.attempts,
            ladder_step: open.ladder_step,
            first_attempt: Timestamp::from_millis(open.first_attempt),
            first_failure: Timestamp::from_millis(open.first_failure),
            due: Timestamp::from_millis(open.due),
            number: open.number,
        },
        queue: hash_of(&open.queue).map(|key| Queued { key, state: hash_of(&open.state) }),
    })
}

/// Reads a record of a slot's partition: the `took` that it names, and what it says.
pub(crate) fn slot_event(record: &Record) -> Option<(Offset, SlotEvent)> {
    let read: v1::SlotRecord = decode(value(record)?).ok()?;
    Some(match read.kind? {
        v1::slot_record::Kind::TookOver(_) => (record.offset, SlotEvent::Took),
        v1::slot_record::Kind::Mark(mark) => {
            (read.took, SlotEvent::Mark { outcomes_next: mark.outcomes_next })
        }
        v1::slot_record::Kind::Checkpoint(checkpoint) => {
            (read.took, SlotEvent::Checkpoint(Box::new(part_of(&checkpoint)?)))
        }
    })
}

fn part_of(checkpoint: &v1::Checkpoint) -> Option<Part> {
    let partition = checkpoint.partition;
    let open = checkpoint.open.iter().map(|open| entry_of(partition, open));
    let folded = checkpoint.folded.iter().map(|folded| {
        Some(Folded { entry: entry_of(partition, folded.entry.as_ref()?)?, ended: folded.ended })
    });
    let last = NotificationId::from_slice(&checkpoint.last_notification)
        .zip(RunId::from_slice(&checkpoint.last_run));
    Some(Part {
        webhook: WebhookId::from_slice(&checkpoint.webhook)?,
        partition,
        part: checkpoint.part,
        parts: checkpoint.parts,
        cut: checkpoint.cut,
        share: Checkpoint {
            next: checkpoint.next,
            open: open.collect::<Option<_>>()?,
            folded: folded.collect::<Option<_>>()?,
            standard_number: checkpoint.standard_number,
            urgent_number: checkpoint.urgent_number,
            health: Health {
                failing_since: optional(checkpoint.failing_since),
                gone: checkpoint.gone.iter().copied().map(Timestamp::from_millis).collect(),
                failed: checkpoint
                    .failed
                    .iter()
                    .filter_map(|id| NotificationId::from_slice(id))
                    .collect(),
                // What an earlier release wrote holds for both lanes.
                paused_until: [checkpoint.standard_paused_until, checkpoint.urgent_paused_until]
                    .map(|until| Timestamp::from_millis(until.max(checkpoint.paused_until))),
            },
            last,
            alarm: checkpoint.alarm.as_ref().map(alarm_of).unwrap_or_default(),
        },
    })
}

/// Bytes of a record's key and value, as the log holds them, about.
pub(crate) fn stored_size(record: &NewRecord) -> usize {
    let of = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    of(&record.key) + of(&record.value) + 16
}
