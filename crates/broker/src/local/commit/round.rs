//! One commit of appends, positions and trims: collects their writes, stores
//! them with one sync, then shows what they changed and answers.

use std::{collections::BTreeMap, sync::Arc};

use tidings_types::{Offset, Timestamp};
use tokio::sync::oneshot;

use super::{AppendOp, Committer, PositionsOp, Slot, TrimOp, group_error, reply, topic_error};
use crate::{
    local::{
        batch::{self, BatchHeader, BatchKey, PartId},
        core::Core,
        meta::{Entry, PositionKey},
        partition::{Part, TailBatch},
        store::{Bucket, Leftover, Write},
    },
    seam::{
        AppendBatch, AppendError, Appended, CommittedPosition, GroupError, NewRecord, Offsets,
        Record, TopicError,
    },
};

/// What a round does to one partition.
#[derive(Debug)]
struct PartRound {
    part: Arc<Part>,
    next: Offset,
    running_max: Timestamp,
    first: Option<Offset>,
    /// What the calls of the round brought, and its bytes.
    records: Vec<Record>,
    bytes: usize,
    /// The same, cut into stored batches.
    batches: Vec<(Vec<Record>, usize)>,
}

/// An append whose writes are collected.
#[derive(Debug)]
struct Written {
    results: Vec<Appended>,
    answer: oneshot::Sender<Vec<Appended>>,
    /// Which results depend on the commit, and whether their answer gets lost.
    depends: Vec<(usize, bool)>,
}

#[derive(Debug)]
pub(super) struct Round {
    now: Timestamp,
    writes: Vec<Write>,
    parts: BTreeMap<PartId, PartRound>,
    positions: Vec<(PositionKey, CommittedPosition)>,
    appends: Vec<Written>,
    commits: Vec<oneshot::Sender<Result<(), GroupError>>>,
    trims: Vec<oneshot::Sender<Result<(), TopicError>>>,
    records: u64,
    bytes: u64,
}

impl Round {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            now,
            writes: Vec::new(),
            parts: BTreeMap::new(),
            positions: Vec::new(),
            appends: Vec::new(),
            commits: Vec::new(),
            trims: Vec::new(),
            records: 0,
            bytes: 0,
        }
    }

    pub(super) fn append(&mut self, core: &Core, op: AppendOp) {
        let mut written = Written { results: Vec::new(), answer: op.answer, depends: Vec::new() };
        for (index, slot) in op.batches.into_iter().enumerate() {
            let result = match slot {
                Slot::Done(done) => done,
                Slot::Todo { batch, lose_answer } => {
                    let result = self.batch(core, batch);
                    if result.is_ok() {
                        written.depends.push((index, lose_answer));
                    }
                    result
                }
            };
            let stands = op.first_at.is_none_or(|at| {
                index > 0 || result.as_ref().is_ok_and(|offsets| offsets.first() == Some(at))
            });
            written.results.push(result);
            if !stands {
                break;
            }
        }
        self.appends.push(written);
    }

    fn batch(&mut self, core: &Core, batch: AppendBatch) -> Appended {
        let Some(part) = core.part(&batch.to) else {
            let known = core.topics.read().by_name.contains_key(&batch.to.topic);
            return Err(if known {
                AppendError::UnknownPartition(batch.to)
            } else {
                AppendError::UnknownTopic(batch.to.topic)
            });
        };
        // So many records do not fit into memory.
        let count = u32::try_from(batch.records.len()).unwrap_or(u32::MAX);
        let now = self.now;
        let round = self.part(part);
        let first = round.next;
        let before = round.bytes;
        round.take(batch.records, now);
        let bytes = round.bytes - before;
        self.records += u64::from(count);
        self.bytes += u64::try_from(bytes).unwrap_or(0);
        Ok(Offsets::Run { first, count })
    }

    fn part(&mut self, part: Arc<Part>) -> &mut PartRound {
        self.parts.entry(part.id).or_insert_with(|| {
            let state = part.state.lock();
            let (next, running_max) = (state.end, state.running_max);
            drop(state);
            PartRound {
                part,
                next,
                running_max,
                first: None,
                records: Vec::new(),
                bytes: 0,
                batches: Vec::new(),
            }
        })
    }

    /// Collects the positions of a member, unless it is none any more.
    pub(super) fn positions(&mut self, core: &Core, op: PositionsOp) {
        if !core.groups.lock().is_member(core, op.member) {
            reply(op.answer, Err(GroupError::Expelled(op.group.into())));
            return;
        }
        for position in op.positions {
            let Some(part) = core.part(&position.of) else {
                // Its topic was deleted while the owner was at work: there is
                // nothing left to go on from.
                core.metrics.unknown_positions.inc();
                continue;
            };
            let key = PositionKey { group: op.group.clone(), part: part.id };
            let committed = CommittedPosition { next: position.next, metadata: position.metadata };
            self.writes.push(Write::Put(Entry::Position(key.clone(), committed.clone())));
            self.positions.push((key, committed));
        }
        self.commits.push(op.answer);
    }

    pub(super) fn trim(&mut self, core: &Core, op: TrimOp) {
        let Some(part) = core.part(&op.of) else {
            reply(op.answer, Err(TopicError::Unknown(op.of.topic)));
            return;
        };
        let (id, erase) = (part.id, part.erase);
        let state = part.state.lock();
        // What this round appends is not visible yet and cannot be trimmed yet.
        let (old, before) = (state.first, op.before.min(state.end));
        let from = if state.garbage { 0 } else { old };
        drop(state);
        let round = self.part(part);
        if before > round.first.unwrap_or(old) {
            round.first = Some(before);
            self.writes.push(Write::Put(Entry::First(id, before)));
            self.writes.push(Write::RemoveBatches { part: id, erase, from, below: before });
        }
        self.trims.push(op.answer);
    }

    /// Stores, shows, answers.
    pub(super) fn finish(mut self, core: &Core, committer: &mut Committer) {
        let mut writes = std::mem::take(&mut self.writes);
        for round in self.parts.values_mut() {
            round.write(self.now, core, &mut writes);
        }
        let result =
            if writes.is_empty() { Ok(Leftover::default()) } else { core.store_durably(writes) };
        let leftover = match result {
            Ok(leftover) => leftover,
            Err(error) => return self.fail(&AppendError::Fatal(error.0)),
        };
        if self.records > 0 {
            core.metrics.appended_records.inc_by(self.records);
            core.metrics.appended_bytes.inc_by(self.bytes);
            #[expect(clippy::cast_precision_loss, reason = "a histogram's value")]
            core.metrics.records_per_sync.observe(self.records as f64);
        }
        for (id, round) in self.parts {
            round.show(core, committer, leftover.parts.contains(&id));
        }
        committer.shrink_tails(core);
        core.positions.lock().extend(self.positions);
        for answer in self.commits {
            reply(answer, Ok(()));
        }
        for answer in self.trims {
            reply(answer, Ok(()));
        }
        for mut written in self.appends {
            for (index, lose_answer) in written.depends {
                if lose_answer {
                    written.results[index] = Err(AppendError::Unknown);
                }
            }
            reply(written.answer, written.results);
        }
    }

    fn fail(self, error: &AppendError) {
        for answer in self.commits {
            reply(answer, Err(group_error(error)));
        }
        for answer in self.trims {
            reply(answer, Err(topic_error(error)));
        }
        for mut written in self.appends {
            for (index, _) in written.depends {
                written.results[index] = Err(error.clone());
            }
            reply(written.answer, written.results);
        }
    }
}

impl PartRound {
    /// Gives the records of a call their offsets and times.
    fn take(&mut self, records: Vec<NewRecord>, now: Timestamp) {
        self.records.reserve(records.len());
        for new in records {
            let record = Record {
                offset: self.next,
                timestamp: new.timestamp.unwrap_or(now),
                key: new.key,
                headers: if new.headers.is_empty() { Arc::default() } else { new.headers.into() },
                value: new.value,
            };
            self.next += 1;
            self.bytes += batch::stored_bytes(&record);
            self.records.push(record);
        }
    }

    /// The writes of all records taken: the calls of a round share batches, cut
    /// to bounded size.
    fn write(&mut self, now: Timestamp, core: &Core, writes: &mut Vec<Write>) {
        let mut rest = std::mem::take(&mut self.records);
        while !rest.is_empty() {
            let mut bytes = 0;
            let cut = rest.iter().position(|record| {
                let before = bytes;
                bytes += batch::stored_bytes(record);
                before > 0 && bytes > core.config.stored_batch_bytes
            });
            let behind = rest.split_off(cut.unwrap_or(rest.len()));
            let records = std::mem::replace(&mut rest, behind);
            writes.push(self.stored(&records, now, core));
            let bytes = records.iter().map(batch::stored_bytes).sum();
            self.batches.push((records, bytes));
        }
    }

    /// The write of one batch.
    fn stored(&mut self, records: &[Record], now: Timestamp, core: &Core) -> Write {
        let newest = records.iter().map(|record| record.timestamp).max().unwrap_or(now);
        // What must be erased goes by when it came, whatever time it claims.
        let max_time = if self.part.erase { newest.min(now) } else { newest };
        self.running_max = self.running_max.max(newest);
        let header = BatchHeader {
            part: self.part.id,
            base: records.first().map_or(self.next, |record| record.offset),
            count: u32::try_from(records.len()).unwrap_or(u32::MAX),
            max_time,
            running_max: self.running_max,
        };
        let bucket = self.part.erase.then(|| core.bucket(&self.part.name.topic, now)).flatten();
        Write::Batch {
            key: BatchKey::new(self.part.id, header.end() - 1),
            value: batch::encode(&header, records),
            bucket,
        }
    }

    /// Makes the partition's changes visible, now that they are durable.
    fn show(self, core: &Core, committer: &mut Committer, garbage_left: bool) {
        let mut state = self.part.state.lock();
        let old_front = state.tail_front();
        for (records, bytes) in self.batches {
            let sequence = committer.next_sequence();
            state.tail_bytes += bytes;
            committer.tail_bytes += bytes;
            state.tail.push_back(TailBatch { sequence, records, bytes });
        }
        while state.tail_bytes > core.config.tail_partition_bytes {
            committer.tail_bytes = committer.tail_bytes.saturating_sub(state.pop_tail());
        }
        let grew = self.next > state.end;
        state.end = self.next;
        state.running_max = self.running_max;
        if let Some(first) = self.first {
            core.metrics.removed_records.inc_by(first.saturating_sub(state.first));
            state.first = first;
            state.front_time = None;
            state.garbage = garbage_left;
            committer.tail_bytes = committer.tail_bytes.saturating_sub(state.trim_tail());
        }
        let new_front = state.tail_front();
        if grew {
            for watch in &state.watches {
                watch.wake();
            }
        }
        drop(state);
        committer.tail_changed(&self.part, old_front, new_front);
    }
}

impl Core {
    /// The bucket that what comes `now` belongs to, for topics that have any.
    fn bucket(&self, topic: &tidings_types::TopicName, now: Timestamp) -> Option<Bucket> {
        let topics = self.topics.read();
        let meta = &topics.by_name.get(topic)?.meta;
        let length = i64::try_from(meta.erase_buckets?.as_millis()).unwrap_or(i64::MAX);
        Some(Bucket { topic: meta.id, number: now.as_millis().div_euclid(length.max(1)) })
    }
}
