//! Numbers for the source partitions and event types that rows speak of.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tidings_types::{Offset, TopicPartition};

use crate::{
    facts::SourceAt,
    wire::{In, Malformed, put_bytes, put_u32, put_u64},
};

/// Only grows: by one for each partition of a source topic, and for each event
/// type, that ever had a decision.
#[derive(Debug, Default)]
pub(crate) struct Names {
    sources: Vec<(Arc<str>, u32)>,
    source_at: HashMap<Arc<str>, BTreeMap<u32, u32>>,
    types: Vec<Arc<str>>,
    type_at: BTreeMap<Arc<str>, u32>,
    changed: bool,
}

fn next(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

impl Names {
    pub(crate) fn source(&mut self, topic: &str, partition: u32) -> u32 {
        let known = self.source_at.get(topic).and_then(|parts| parts.get(&partition));
        if let Some(number) = known {
            return *number;
        }
        let number = next(self.sources.len());
        let topic: Arc<str> = self
            .source_at
            .get_key_value(topic)
            .map_or_else(|| topic.into(), |(topic, _)| Arc::clone(topic));
        self.sources.push((Arc::clone(&topic), partition));
        self.source_at.entry(topic).or_default().insert(partition, number);
        self.changed = true;
        number
    }

    pub(crate) fn event_type(&mut self, name: &str) -> u32 {
        if let Some(number) = self.type_at.get(name) {
            return *number;
        }
        let number = next(self.types.len());
        let name: Arc<str> = name.into();
        self.types.push(Arc::clone(&name));
        self.type_at.insert(name, number);
        self.changed = true;
        number
    }

    pub(crate) fn find_type(&self, name: &str) -> Option<u32> {
        self.type_at.get(name).copied()
    }

    /// All event types, in order of their names.
    pub(crate) fn types(&self) -> impl Iterator<Item = (&Arc<str>, u32)> {
        self.type_at.iter().map(|(name, number)| (name, *number))
    }

    pub(crate) fn type_name(&self, number: u32) -> Option<&Arc<str>> {
        self.types.get(usize::try_from(number).ok()?)
    }

    /// The order in which an event's source records count: by topic, partition,
    /// offset.
    pub(crate) fn rank(&self, (source, offset): SourceAt) -> (Option<(&str, u32)>, Offset) {
        let source = usize::try_from(source).ok().and_then(|source| self.sources.get(source));
        (source.map(|(topic, partition)| (&**topic, *partition)), offset)
    }

    /// All source partitions with their numbers.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (u32, TopicPartition)> {
        let numbered = (0..).zip(&self.sources);
        numbered
            .map(|(number, (topic, partition))| (number, TopicPartition::new(&**topic, *partition)))
    }

    /// The row, if something was added since the last call.
    pub(crate) fn changed(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut out = Vec::new();
        put_u64(&mut out, self.sources.len() as u64);
        for (topic, partition) in &self.sources {
            put_bytes(&mut out, topic.as_bytes());
            put_u32(&mut out, *partition);
        }
        for name in &self.types {
            put_bytes(&mut out, name.as_bytes());
        }
        Some(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut read = In(bytes);
        let mut names = Self::default();
        for _ in 0..read.len()? {
            let topic = read.text()?;
            names.source(topic, read.u32()?);
        }
        while !read.is_empty() {
            names.event_type(read.text()?);
        }
        names.changed = false;
        Ok(names)
    }
}
