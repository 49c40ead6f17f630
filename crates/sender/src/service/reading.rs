//! What the readers bring.

use tidings_broker::{Fetched, ReadError, Record};
use tidings_delivery::Standing;
use tidings_types::{Ordering, Partition, TopicPartition};

use super::Running;
use crate::{
    records,
    table::{ReadState, RowKey},
};

impl Running {
    pub(super) fn fetched(&mut self, fetched: Vec<Fetched>) {
        for Fetched { from, records } in fetched {
            let Some((key, partition)) = self.table.by_partition(&from) else {
                self.readers.unassign(&from);
                continue;
            };
            match records {
                Ok(records) => self.take_in(key, partition, &records),
                Err(error) => self.cannot_read(key, partition, &from, &error),
            }
        }
    }

    fn take_in(&mut self, key: RowKey, partition: Partition, records: &[Record]) {
        let Some(row) = self.table.get_mut(key) else { return };
        let is_ordered = row.webhook.ordering != Ordering::None;
        for record in records {
            match records::arrived(record) {
                Some(mut arrived) => {
                    if is_ordered {
                        let is_state = self.config.states.contains(&arrived.body.event_type);
                        records::fill_keys(&mut arrived, is_state);
                    }
                    row.hook.arrived(partition, arrived, &mut self.process);
                }
                None => {
                    self.deps.metrics.undecodable.inc();
                    tracing::error!(webhook = %row.webhook.id, partition, offset = record.offset, "a delivery record does not decode and is passed over");
                    row.hook.passed_void(partition, record.offset, &mut self.process);
                }
            }
        }
        self.table.make_ready(key);
        self.settle(key);
    }

    fn cannot_read(
        &mut self,
        key: RowKey,
        partition: Partition,
        from: &TopicPartition,
        error: &ReadError,
    ) {
        self.readers.unassign(from);
        let Some(row) = self.table.get_mut(key) else { return };
        let slot = row.slot;
        match error {
            // Nothing was known of the partition and it has been trimmed before.
            ReadError::Trimmed { first, .. } => {
                self.readers.assign(from.clone(), *first);
            }
            ReadError::BeyondEnd { .. } => self.tail_lost(slot),
            // Its topic may have gone already, or never had an urgent partition.
            ReadError::UnknownPartition(_) if row.webhook.standing == Standing::Deleted => {}
            ReadError::UnknownPartition(_) | ReadError::Unavailable | ReadError::Damaged { .. } => {
                tracing::warn!(%error, "a delivery partition cannot be read now; trying again");
                // The next tick assigns it again.
                if let Some(state) = row.reading.get_mut(usize::from(partition == 1)) {
                    *state = ReadState::Off;
                }
            }
        }
    }
}
