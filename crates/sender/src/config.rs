//! What a sender can be told.

use std::{collections::BTreeSet, time::Duration};

use tidings_delivery::{Ladders, Limits, PART_ENTRIES};

/// Settings of a sender.
#[derive(Clone, Debug)]
pub struct Config {
    /// The session of the group that hands out slots (`slots.session`).
    pub session: Duration,
    /// How often a changed checkpoint is written (`slots.checkpoint_interval`).
    pub checkpoint_interval: Duration,
    /// How often a slot writes a mark although nothing changed.
    pub idle_mark: Duration,
    /// The ladders by name (`delivery.ladders`).
    pub ladders: Ladders,
    /// The event types that are states: of one order key, a newer one may take the
    /// place of an older one (the catalogue says which).
    pub states: BTreeSet<String>,
    /// The bounds of sending (`delivery.*`).
    pub limits: Limits,
    /// Records of `tidings.outcomes` before the mark that are read for the
    /// remembered ids at a takeover.
    pub refill_records: u64,
    /// Partitions that one reader carries.
    pub partitions_per_reader: usize,
    /// Bytes that one read of deliveries asks for.
    pub fetch_bytes: usize,
    /// Bytes of opened bodies kept for webhooks that get the same event.
    pub body_cache_bytes: usize,
    /// Entries in one part of a checkpoint.
    pub part_entries: usize,
    /// How long a deleted webhook's topic is kept.
    pub keep_deleted: Duration,
    /// How long before a client certificate ends operators are told.
    pub certificate_ahead: Duration,
    /// How many records must be free before a delivery partition is trimmed.
    pub trim_records: u64,
    /// How long attempts in flight may take to end when the sender stops.
    pub grace: Duration,
    /// The `user-agent` of every request.
    pub user_agent: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            session: Duration::from_secs(6),
            checkpoint_interval: Duration::from_secs(1),
            idle_mark: Duration::from_secs(60),
            ladders: Ladders::default(),
            states: BTreeSet::new(),
            limits: Limits::default(),
            // The design's figure: as many as one webhook remembers.
            refill_records: 20_000,
            // A fetch of more costs the broker milliseconds (`kafka-run.md`).
            partitions_per_reader: 250,
            fetch_bytes: 1 << 20,
            body_cache_bytes: 4 << 20,
            part_entries: PART_ENTRIES,
            keep_deleted: Duration::from_secs(24 * 3600),
            certificate_ahead: Duration::from_secs(30 * 24 * 3600),
            // What is trimmed within seconds is never merged into older tables.
            trim_records: 200,
            grace: Duration::from_secs(8),
            user_agent: concat!("Tidings/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}
