//! `tidings.keys`: the short-lived keys of one-time codes (design §7).
//!
//! A code is sealed by the key of the ten minutes in which it expires. The key is
//! acknowledged in the topic before anything that uses it, and stands nowhere
//! else; the topic forgets, and with it the code.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use tidings_broker::{
    AppendBatch, Broker, NewRecord, ReadError, Record, Retention, TopicError, TopicSpec,
};
use tidings_proto::{decode, encode, format_header, v1};
use tidings_signing::{BucketKey, KeyBook, OpenError, Sealed};
use tidings_types::{Clock, Offset, Rng, Timestamp, TopicName, TopicPartition, names};
use tokio::sync::Mutex;

use crate::sealing::{to_proto, to_sealed};

const BUCKET: i64 = 600;
const READ_BYTES: usize = 256 * 1024;

/// Why a key cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    #[error("the topic of keys cannot be read or written now; try again")]
    Unavailable,
}

#[derive(Debug, Default)]
struct Position {
    next: Offset,
    /// The key that this process uses for a bucket, by its start in unix seconds:
    /// no more than there are buckets in the retention.
    own: BTreeMap<i64, BucketKey>,
}

/// Reads and writes the keys. Cheap to clone.
#[derive(Clone, Debug)]
pub struct KeysTopic {
    broker: Broker,
    book: KeyBook,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    retention: Duration,
    position: Arc<Mutex<Position>>,
    /// Until when the topic keeps each key: as many as the book has.
    kept: Arc<parking_lot::Mutex<BTreeSet<(Timestamp, String)>>>,
    /// Records of `tidings.keys` that could not be read.
    unreadable: Counter,
}

impl KeysTopic {
    /// `retention` is how long the topic keeps a key.
    pub fn new(
        broker: Broker,
        book: KeyBook,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        retention: Duration,
    ) -> Self {
        Self {
            broker,
            book,
            clock,
            rng,
            retention,
            position: Arc::default(),
            kept: Arc::default(),
            unreadable: Counter::default(),
        }
    }

    /// Adds the metrics of keys.
    pub fn register_metrics(&self, metrics: &mut prometheus_client::registry::Registry) {
        metrics.register(
            "tidings_keys_unreadable_records",
            "Records of tidings.keys that could not be read; always zero in a healthy system",
            self.unreadable.clone(),
        );
    }

    /// The topic that forgets its records after `retention`.
    pub fn spec(retention: Duration) -> TopicSpec {
        TopicSpec {
            name: TopicName::new(names::KEYS),
            partitions: 1,
            retention: Retention::For(retention),
            erase_buckets: Some(Duration::from_secs(BUCKET.unsigned_abs())),
        }
    }

    /// Makes the topic if it is missing.
    ///
    /// # Errors
    /// When the broker does not answer or refuses.
    pub async fn create_topic(&self) -> Result<(), TopicError> {
        match self.broker.create_topic(Self::spec(self.retention)).await {
            Ok(()) | Err(TopicError::Exists(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub fn book(&self) -> &KeyBook {
        &self.book
    }

    /// The latest deadline that a code published now can have: an hour before its
    /// key may be forgotten (a tenth of the time where it is kept for less).
    pub fn latest_deadline(&self) -> Timestamp {
        let margin = (self.retention / 10).min(Duration::from_secs(3600)).max(self.retention / 6);
        self.clock.now() + self.retention.saturating_sub(margin)
    }

    /// The key for a code that expires at `deadline`, acknowledged in the topic.
    ///
    /// # Errors
    /// When the topic cannot be written.
    pub async fn ensure_bucket(&self, deadline: Timestamp) -> Result<BucketKey, KeysError> {
        self.forget();
        let start = deadline.as_secs().div_euclid(BUCKET) * BUCKET;
        let mut position = self.position.lock().await;
        if let Some(key) = position.own.get(&start)
            && self.book.bucket(&key.name).is_some()
        {
            return Ok(key.clone());
        }
        let mut random = [0; 8];
        self.rng.fill(&mut random);
        let mut bytes = [0; 32];
        self.rng.fill(&mut bytes);
        let mut nonce = [0; 12];
        self.rng.fill(&mut nonce);
        let key = BucketKey::new(format!("bucket/{start}/{}", hex::encode(random)), &bytes);
        let record = v1::BucketKey {
            id: key.name.clone(),
            expires: Timestamp::from_secs(start + BUCKET).as_millis(),
            wrapped: Some(to_proto(key.wrap(self.book.ring(), nonce))),
        };
        let new = NewRecord {
            key: Some(Bytes::copy_from_slice(key.name.as_bytes())),
            headers: vec![format_header()],
            value: Some(encode(&record)),
            timestamp: None,
        };
        let to = TopicPartition::new(names::KEYS, 0);
        let written = self.clock.now();
        for appended in self.broker.append(vec![AppendBatch { to, records: vec![new] }]).await {
            // Of unknown fate: a key that nothing uses does no harm.
            appended.map_err(|_error| KeysError::Unavailable)?;
        }
        self.keep(key.clone(), written);
        position.own.retain(|start, _| start + 2 * BUCKET > written.as_secs());
        position.own.insert(start, key.clone());
        Ok(key)
    }

    /// Opens a value; when its bucket key is not known, reads the topic to its end
    /// first.
    ///
    /// # Errors
    /// [`OpenError::UnknownKey`] when the key is gone.
    pub async fn open(&self, sealed: &Sealed, aad: &[u8]) -> Result<Vec<u8>, OpenError> {
        self.forget();
        match self.book.open(sealed, aad) {
            Err(OpenError::UnknownKey(name)) if name.starts_with("bucket/") => {
                if self.read_to_end().await.is_err() {
                    return Err(OpenError::UnknownKey(name));
                }
                self.book.open(sealed, aad)
            }
            result => result,
        }
    }

    /// Learns the keys that others have written, and forgets those that the topic
    /// no longer has.
    ///
    /// # Errors
    /// When the topic cannot be read.
    pub async fn read_to_end(&self) -> Result<(), KeysError> {
        let place = TopicPartition::new(names::KEYS, 0);
        let mut position = self.position.lock().await;
        let ends = self.broker.ends(&place).await.map_err(|_error| KeysError::Unavailable)?;
        if position.next > ends.end {
            // The topic lost its tail.
            position.next = ends.first;
        }
        position.next = position.next.max(ends.first);
        while position.next < ends.end {
            let records = match self.broker.read(&place, position.next, READ_BYTES).await {
                Ok(records) => records,
                Err(ReadError::Trimmed { first, .. }) if first > position.next => {
                    position.next = first;
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "tidings.keys cannot be read");
                    return Err(KeysError::Unavailable);
                }
            };
            // The end was further than this: a key that is not read now is not gone.
            let last = records.last().ok_or(KeysError::Unavailable)?;
            position.next = last.offset + 1;
            for record in records {
                self.learn(record);
            }
        }
        drop(position);
        self.forget();
        Ok(())
    }

    fn learn(&self, record: Record) {
        let (offset, written) = (record.offset, record.timestamp);
        let decoded = record.value.and_then(|value| decode::<v1::BucketKey>(value).ok());
        let sealed = decoded.as_ref().and_then(|key| key.wrapped.as_ref()).and_then(to_sealed);
        let (Some(decoded), Some(sealed)) = (decoded, sealed) else {
            self.unreadable.inc();
            tracing::error!(offset, "a record of tidings.keys does not decode and is passed over");
            return;
        };
        match BucketKey::unwrap(&decoded.id, self.book.ring(), &sealed) {
            Ok(key) => self.keep(key, written),
            Err(error) => {
                self.unreadable.inc();
                tracing::error!(offset, %error, "a key of one-time codes cannot be opened");
            }
        }
    }

    /// Learns a key for as long as the topic keeps its record.
    fn keep(&self, key: BucketKey, written: Timestamp) {
        self.kept.lock().insert((written + self.retention, key.name.clone()));
        self.book.learn(key);
    }

    /// Forgets the keys that the topic has forgotten, so that memory keeps nothing
    /// of what is erased. Every call here does it; a process that makes none for
    /// long calls it now and then.
    pub fn forget(&self) {
        let now = self.clock.now();
        let mut gone = BTreeSet::new();
        let mut kept = self.kept.lock();
        while kept.first().is_some_and(|(until, _)| *until <= now) {
            gone.extend(kept.pop_first().map(|(_, name)| name));
        }
        drop(kept);
        if !gone.is_empty() {
            self.book.retain(|name| !gone.contains(name));
        }
    }
}
