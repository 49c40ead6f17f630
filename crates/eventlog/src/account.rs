//! The sums of invariant I11, counted from rows.

use std::collections::BTreeMap;

use tidings_types::{FilterReason, NotificationState, Offset, TopicPartition};

use crate::{
    facts::{FactKind, Facts, SourceAt},
    notification::Notification,
    pack, rows,
    store::StoreError,
    view::View,
    wire::Malformed,
};

/// One source partition's sums, with the names of contract §3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    pub source: TopicPartition,
    /// The first source offset that the view still accounts for.
    pub from: Offset,
    /// The router's commit.
    pub committed: Offset,
    pub skipped: u64,
    pub routed: u64,
    pub filtered: u64,
    pub filtered_by: BTreeMap<FilterReason, u64>,
    pub quarantined: u64,
    pub duplicate: u64,
    /// Notifications of the events counted in `routed`, as the decisions name them.
    pub notifications: u64,
    pub delivered: u64,
    pub undelivered: u64,
    pub pending: u64,
    pub cancelled: u64,
    pub expired: u64,
    pub superseded: u64,
}

impl AccountRow {
    /// Whether every offset and every notification is accounted for.
    pub fn agrees(&self) -> bool {
        let offsets =
            self.skipped + self.routed + self.filtered + self.quarantined + self.duplicate;
        let ends = self.delivered
            + self.undelivered
            + self.pending
            + self.cancelled
            + self.expired
            + self.superseded;
        self.committed.checked_sub(self.from) == Some(offsets) && self.notifications == ends
    }
}

/// The sums of all source partitions, in order of topic and partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub partitions: Vec<AccountRow>,
    /// Records that were missing in a partition of `tidings.routed` or
    /// `tidings.outcomes`. What an outcome said that is missing, no sum can tell: its
    /// notification counts as pending.
    pub missing: BTreeMap<TopicPartition, u64>,
}

impl Account {
    /// Whether all partitions agree, and nothing was missing.
    pub fn agrees(&self) -> bool {
        self.missing.is_empty() && self.partitions.iter().all(AccountRow::agrees)
    }
}

impl View {
    /// Counts rows: first the facts of decisions, then what became of the
    /// notifications that these made.
    pub(crate) fn account(
        &self,
        committed: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<Account, StoreError> {
        let mut sums: BTreeMap<u32, AccountRow> = BTreeMap::new();
        let mut others = committed.clone();
        for (number, source) in self.names.sources() {
            // Nothing counts before a router's first commit.
            let committed = others.remove(&source).unwrap_or(0);
            sums.insert(number, AccountRow::new(source, committed));
        }
        self.count_facts(&mut sums)?;
        for row in sums.values_mut() {
            if row.from == Offset::MAX {
                row.from = row.committed;
            }
            row.committed = row.committed.max(row.from);
        }
        let mut count = |home: SourceAt, state: NotificationState| {
            let row = sums.get_mut(&home.0);
            if let Some(row) = row.filter(|row| (row.from..row.committed).contains(&home.1)) {
                *row.of(state) += 1;
            }
        };
        pack::each(&*self.store, &mut |known| {
            let known = Notification::decode(known)?;
            if let Some(origin) = known.origin {
                count(origin.home, known.state().0);
            }
            Ok(())
        })?;
        self.waiting.values().try_for_each(|waiting| {
            count(self.origin(waiting)?.home, NotificationState::Pending);
            Ok::<_, StoreError>(())
        })?;
        let mut partitions: Vec<_> = sums.into_values().collect();
        partitions.extend(others.into_iter().map(|(source, committed)| AccountRow {
            from: committed,
            ..AccountRow::new(source, committed)
        }));
        partitions.sort_by(|a, b| a.source.cmp(&b.source));
        let missing = self.meta.missing.iter();
        let missing =
            missing.map(|((source, partition), count)| (source.partition(*partition), *count));
        Ok(Account { partitions, missing: missing.collect() })
    }

    fn count_facts(&self, sums: &mut BTreeMap<u32, AccountRow>) -> Result<(), StoreError> {
        let mut chunks = 0;
        self.store.scan(b"c", b"d", &mut |key, stored| {
            let row = rows::read(&*self.store, key, stored)?;
            for fact in Facts::decode(&row.value)?.decisions {
                let row = sums.get_mut(&fact.source.0).ok_or(Malformed)?;
                row.from = row.from.min(fact.source.1.saturating_sub(fact.skipped));
                if fact.source.1 >= row.committed {
                    continue;
                }
                row.skipped += fact.skipped;
                match fact.kind {
                    FactKind::Routed => {
                        row.routed += 1;
                        row.notifications += u64::from(fact.notifications);
                    }
                    FactKind::Duplicate => row.duplicate += 1,
                    FactKind::Quarantined => row.quarantined += 1,
                    FactKind::Filtered(reason) => {
                        row.filtered += 1;
                        *row.filtered_by.entry(reason).or_default() += 1;
                    }
                }
            }
            chunks += 1;
            Ok(true)
        })?;
        // With a whole chunk gone, the sums of what is left could agree.
        if chunks == self.meta.next_chunk - self.meta.first_chunk {
            Ok(())
        } else {
            Err(StoreError::damaged("a chunk of facts is missing"))
        }
    }
}

impl AccountRow {
    fn new(source: TopicPartition, committed: Offset) -> Self {
        Self {
            source,
            from: Offset::MAX,
            committed,
            skipped: 0,
            routed: 0,
            filtered: 0,
            filtered_by: BTreeMap::new(),
            quarantined: 0,
            duplicate: 0,
            notifications: 0,
            delivered: 0,
            undelivered: 0,
            pending: 0,
            cancelled: 0,
            expired: 0,
            superseded: 0,
        }
    }

    fn of(&mut self, state: NotificationState) -> &mut u64 {
        match state {
            NotificationState::Pending => &mut self.pending,
            NotificationState::Delivered => &mut self.delivered,
            NotificationState::Undelivered => &mut self.undelivered,
            NotificationState::Expired => &mut self.expired,
            NotificationState::Cancelled => &mut self.cancelled,
            NotificationState::Superseded => &mut self.superseded,
        }
    }
}
