//! Changes to topics: each is a commit of its own.

use std::sync::Arc;

use tidings_types::TopicName;

use super::{Committer, TopicChange, TopicOp, reply};
use crate::{
    local::{
        core::{Core, Topic, new_part},
        meta::{self, Entry, PositionKey, TopicMeta},
        partition::Part,
        store::{Space, Write},
    },
    seam::{TopicError, TopicSpec},
};

/// Deleted topics and trimmed partitions that one step of cleaning works on.
const CLEAN_STEP: usize = 16;

impl Core {
    pub(super) fn change_topics(&self, committer: &mut Committer, op: TopicOp, space: Space) {
        let result = match op.change {
            // That needs no space: a start finds its topics on a full disk too.
            TopicChange::Create(spec) if self.topics.read().by_name.contains_key(&spec.name) => {
                Err(TopicError::Exists(spec.name))
            }
            TopicChange::Create(_) | TopicChange::AddPartitions(..) if space != Space::Plenty => {
                self.metrics.space_refusals.inc();
                Err(TopicError::NoSpace)
            }
            TopicChange::Delete(_) | TopicChange::Clean if space == Space::Full => {
                self.metrics.space_refusals.inc();
                Err(TopicError::NoSpace)
            }
            TopicChange::Create(spec) => self.create(&spec),
            TopicChange::AddPartitions(topic, to) => self.add(&topic, to),
            TopicChange::Delete(topic) => self.delete(committer, &topic),
            TopicChange::Clean => self.clean(),
        };
        reply(op.answer, result);
    }

    fn store_topic_change(&self, writes: Vec<Write>) -> Result<(), TopicError> {
        self.store_durably(writes).map(drop).map_err(|_logged| TopicError::Unavailable)
    }

    fn create(&self, spec: &TopicSpec) -> Result<(), TopicError> {
        if !TopicName::is_legal(spec.name.as_str()) {
            return Err(TopicError::IllegalName(spec.name.as_str().to_owned()));
        }
        if spec.partitions == 0 {
            return Err(TopicError::FewerPartitions { has: 1, asked: 0 });
        }
        let id = {
            let topics = self.topics.read();
            if topics.by_name.contains_key(&spec.name) {
                return Err(TopicError::Exists(spec.name.clone()));
            }
            topics.next_id
        };
        let meta = TopicMeta {
            id,
            partitions: spec.partitions,
            retention: spec.retention,
            erase_buckets: spec.erase_buckets,
        };
        self.store_topic_change(vec![
            Write::Put(Entry::Topic(spec.name.clone(), meta.clone())),
            Write::Put(Entry::NextTopic(id + 1)),
        ])?;
        let parts = (0..spec.partitions).map(|n| new_part(&spec.name, &meta, n)).collect();
        let mut topics = self.topics.write();
        topics.next_id = id + 1;
        topics.by_name.insert(spec.name.clone(), Topic { meta, parts });
        Ok(())
    }

    fn add(&self, name: &TopicName, to: u32) -> Result<(), TopicError> {
        let unknown = || TopicError::Unknown(name.clone());
        let mut meta = self
            .topics
            .read()
            .by_name
            .get(name)
            .map(|topic| topic.meta.clone())
            .ok_or_else(unknown)?;
        let has = meta.partitions;
        if to < has {
            return Err(TopicError::FewerPartitions { has, asked: to });
        }
        if to == has {
            return Ok(());
        }
        meta.partitions = to;
        self.store_topic_change(vec![Write::Put(Entry::Topic(name.clone(), meta.clone()))])?;
        let mut topics = self.topics.write();
        let topic = topics.by_name.get_mut(name).ok_or_else(unknown)?;
        topic.parts.extend((has..to).map(|n| new_part(name, &meta, n)));
        topic.meta = meta;
        drop(topics);
        self.groups.lock().wake_topic(name);
        Ok(())
    }

    fn delete(&self, committer: &mut Committer, name: &TopicName) -> Result<(), TopicError> {
        let topic = self
            .topics
            .read()
            .by_name
            .get(name)
            .cloned()
            .ok_or_else(|| TopicError::Unknown(name.clone()))?;
        let id = topic.meta.id;
        let mut writes = vec![
            Write::Remove(meta::topic_key(name)),
            Write::Put(Entry::Garbage(id)),
            Write::RemoveTopic(id),
        ];
        writes.extend(topic.parts.iter().map(|part| Write::Remove(meta::first_key(part.id))));
        let positions: Vec<PositionKey> =
            self.positions.lock().keys().filter(|key| key.part.topic == id).cloned().collect();
        writes.extend(positions.iter().map(|key| Write::Remove(meta::position_key(key))));
        self.store_topic_change(writes)?;
        let mut topics = self.topics.write();
        topics.by_name.remove(name);
        topics.garbage.insert(id);
        drop(topics);
        self.positions.lock().retain(|key, _| key.part.topic != id);
        for part in &topic.parts {
            committer.forget(part);
        }
        self.groups.lock().wake_topic(name);
        Ok(())
    }

    /// Removes a step of the batches that nobody can read any more.
    fn clean(&self) -> Result<(), TopicError> {
        let topics: Vec<u32> =
            self.topics.read().garbage.iter().copied().take(CLEAN_STEP).collect();
        let parts = self.trimmed_parts();
        if topics.is_empty() && parts.is_empty() {
            return Ok(());
        }
        let mut writes: Vec<Write> = topics.iter().map(|id| Write::RemoveTopic(*id)).collect();
        writes.extend(parts.iter().map(|part| Write::RemoveBatches {
            part: part.id,
            erase: part.erase,
            from: 0,
            below: part.state.lock().first,
        }));
        let leftover = self.store_durably(writes).map_err(|_logged| TopicError::Unavailable)?;
        for part in &parts {
            part.state.lock().garbage = leftover.parts.contains(&part.id);
        }
        let done: Vec<u32> =
            topics.into_iter().filter(|id| !leftover.topics.contains(id)).collect();
        if done.is_empty() {
            return Ok(());
        }
        self.store_topic_change(
            done.iter().map(|id| Write::Remove(meta::garbage_key(*id))).collect(),
        )?;
        self.topics.write().garbage.retain(|id| !done.contains(id));
        Ok(())
    }

    /// Partitions with trimmed batches still in the store.
    fn trimmed_parts(&self) -> Vec<Arc<Part>> {
        let topics = self.topics.read();
        let parts = topics.by_name.values().flat_map(|topic| &topic.parts);
        parts.filter(|part| part.state.lock().garbage).take(CLEAN_STEP).cloned().collect()
    }

    /// Whether a step of cleaning would find work.
    pub(in crate::local) fn has_garbage(&self) -> bool {
        let topics = !self.topics.read().garbage.is_empty();
        topics || !self.trimmed_parts().is_empty()
    }
}
