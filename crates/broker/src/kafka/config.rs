//! What the clients are told, and why.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig,
    config::RDKafkaLogLevel,
    consumer::BaseConsumer,
    error::{KafkaError, KafkaResult},
    producer::BaseProducer,
};

use super::ConnectError;

/// Settings of the Kafka broker.
#[derive(Clone)]
pub struct KafkaConfig {
    /// `HOST:PORT,…`.
    pub bootstrap: String,
    /// Settings of librdkafka that go to every client, such as `sasl.password`.
    pub settings: BTreeMap<String, String>,
    /// The largest record, by key, value and headers.
    pub max_record_bytes: usize,
    /// How soon a group sees that its topic has got more partitions.
    pub metadata_refresh: Duration,
    /// Clients that append; a partition always uses the same one.
    pub producers: usize,
    /// Reads that run at the same time.
    pub reads: usize,
}

impl KafkaConfig {
    pub fn new(bootstrap: &str, settings: BTreeMap<String, String>) -> Self {
        Self {
            bootstrap: bootstrap.to_owned(),
            settings,
            max_record_bytes: 5 << 20,
            metadata_refresh: Duration::from_secs(10),
            producers: 2,
            reads: 4,
        }
    }

    /// A setting that must not be changed, if `settings` has one: each of them is
    /// part of a promise that the seam makes.
    fn forbidden(&self) -> Option<&str> {
        self.settings.keys().map(String::as_str).find(|key| FORBIDDEN.contains(key))
    }

    /// Whether the client takes the settings, as far as that can be told without a
    /// broker: the name and the value of each.
    ///
    /// # Errors
    /// Names the first that it does not take.
    pub fn check(&self) -> Result<(), ConnectError> {
        if let Some(key) = self.forbidden() {
            return Err(ConnectError::Forbidden(key.to_owned()));
        }
        for (key, value) in &self.settings {
            let taken = ClientConfig::new().set(key, value).create_native_config();
            taken.map_err(|error| ConnectError::Setting { key: key.clone(), why: why(&error) })?;
        }
        Ok(())
    }

    /// As [`Self::check`], and whether they go together: makes clients that know of no
    /// broker. Reads the files that the settings name.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn try_out(&self) -> Result<(), ConnectError> {
        self.check()?;
        let alone = |mut config: ClientConfig| {
            config.remove("bootstrap.servers").set_log_level(RDKafkaLogLevel::Emerg);
            config
        };
        let consumer: KafkaResult<BaseConsumer> = alone(self.reader()).create();
        let producer: KafkaResult<BaseProducer> = alone(self.producer()).create();
        consumer.and(producer.map(drop)).map_err(|error| ConnectError::Settings(why(&error)))
    }

    /// What all clients have in common.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        // What `debug` names is told at the level `debug` of our own log.
        let is_debugged = self.settings.contains_key("debug");
        let level = if is_debugged { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Warning };
        config.set_log_level(level);
        let set = [
            ("bootstrap.servers", self.bootstrap.as_str()),
            ("client.id", "tidings"),
            // A hung broker is felt for so long; the default is a minute.
            ("socket.timeout.ms", "8000"),
            ("socket.connection.setup.timeout.ms", "5000"),
            // The default backs off up to 10 s, long after the broker is back.
            ("reconnect.backoff.ms", "50"),
            ("reconnect.backoff.max.ms", "500"),
            // How long a topic that the broker does not know may still come up.
            ("topic.metadata.propagation.max.ms", "1000"),
            ("topic.metadata.refresh.fast.interval.ms", "50"),
            // A typo makes no topic.
            ("allow.auto.create.topics", "false"),
            ("log.connection.close", "false"),
        ];
        for (key, value) in set {
            config.set(key, value);
        }
        for (key, value) in &self.settings {
            config.set(key, value);
        }
        config
    }

    /// A client that is never asked for its log.
    pub(super) fn admin(&self) -> ClientConfig {
        let mut config = self.client();
        config.set_log_level(RDKafkaLogLevel::Emerg);
        config
    }

    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        let limit = self.max_message_bytes().to_string();
        let set = [
            // Retries make no duplicates and keep the order.
            ("enable.idempotence", "true"),
            ("acks", "all"),
            // What is waiting while five requests are out makes the next batch: a
            // batch grows with the load and costs nothing without one.
            ("linger.ms", "0"),
            // Ours is the bound on what waits, in bytes; these stand above it.
            ("queue.buffering.max.messages", "1000000"),
            ("queue.buffering.max.kbytes", "262144"),
            ("message.max.bytes", &limit),
            // The fate of what is older is unknown and the owner reads.
            ("message.timeout.ms", "300000"),
        ];
        for (key, value) in set {
            config.set(key, value);
        }
        config
    }

    /// A consumer that is told what to read.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut config = self.consumer(UNUSED_GROUP);
        // A new assignment waits for the fetch that is out: this bounds it.
        config.set("fetch.wait.max.ms", "100");
        // Not a second without fetching because a queue was full for a moment.
        config.set("fetch.queue.backoff.ms", "10");
        config.set("queued.min.messages", "2000");
        config.set("queued.max.messages.kbytes", "16384");
        config.set("max.partition.fetch.bytes", "1048576");
        config
    }

    /// A consumer for one read at a time.
    pub(super) fn fetcher(&self) -> ClientConfig {
        let mut config = self.consumer(UNUSED_GROUP);
        // The next read may wait for the last one's fetch.
        config.set("fetch.wait.max.ms", "5");
        config.set("fetch.queue.backoff.ms", "5");
        // No fetching ahead: the next read is elsewhere.
        config.set("queued.min.messages", "1");
        config.set("max.partition.fetch.bytes", "524288");
        config.set("enable.partition.eof", "true");
        config
    }

    pub(super) fn member(&self, group: &str, session: Duration) -> ClientConfig {
        let mut config = self.consumer(group);
        let session_ms = session.as_millis().max(1);
        config.set("session.timeout.ms", session_ms.to_string());
        config.set("heartbeat.interval.ms", (session_ms / 6).max(1).to_string());
        // A member that does not poll leaves: the session is about the process'
        // own work, not about the client's thread.
        config.set("max.poll.interval.ms", session_ms.to_string());
        let refresh = self.metadata_refresh.as_millis().to_string();
        config.set("topic.metadata.refresh.interval.ms", refresh);
        config
    }

    pub(super) fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.client();
        let set = [
            ("group.id", group),
            // Moves only what has to move, and lets partitions be assigned one by one.
            ("partition.assignment.strategy", "cooperative-sticky"),
            // Positions are committed when the work is done, by us.
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            // Never skip silently: an offset that is gone is an error.
            ("auto.offset.reset", "error"),
            ("isolation.level", "read_committed"),
            ("check.crcs", "true"),
        ];
        for (key, value) in set {
            config.set(key, value);
        }
        config
    }

    /// What a topic must take: a record with its framing.
    pub(super) fn max_message_bytes(&self) -> usize {
        self.max_record_bytes + (64 << 10)
    }
}

impl std::fmt::Debug for KafkaConfig {
    /// Settings may hold passwords: only their names print.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("bootstrap", &self.bootstrap)
            .field("settings", &self.settings.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// What the client says of a setting. Its own text has the value too, which may be a
/// password.
fn why(error: &KafkaError) -> String {
    if let KafkaError::ClientConfig(_, why, ..) | KafkaError::ClientCreation(why) = error {
        why.clone()
    } else {
        error.to_string()
    }
}

/// librdkafka assigns nothing to a consumer without a group; nobody joins this one.
pub(super) const UNUSED_GROUP: &str = "tidings-readers";

const FORBIDDEN: &[&str] = &[
    "acks",
    "request.required.acks",
    "allow.auto.create.topics",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "group.id",
    "group.protocol",
    "isolation.level",
    "partition.assignment.strategy",
    "session.timeout.ms",
    "max.poll.interval.ms",
    "transactional.id",
];
