//! The fold: pure, the same for every reader.
//!
//! Whether a record is accepted depends on the records before it and on nothing
//! else, least of all on what is in it: a reader of another release, or without
//! the master key, comes to the same verdicts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tidings_proto::v1;
use tidings_signing::{KeyRing, OpenError};
use tidings_types::{IssuerId, MerchantKey, Offset, PmId, ProductId, Timestamp, WebhookId};

use crate::{
    entity::{EntityKey, State},
    sealing::decode,
    snapshot::{Made, Snapshot, TombStone},
};

/// How long a command is remembered (contract §2), by the times of the registry's
/// own records. Part of the fold's rule: it never changes.
const COMMAND_TIME: Duration = Duration::from_secs(24 * 3600);
/// Verdicts kept for writers that wait for them.
const MAX_VERDICTS: usize = 10_000;

/// What the fold said of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The entity has this version now.
    Accepted { version: u64 },
    /// The entity is at another version.
    Conflict { current: u64 },
    /// Another entity holds this name.
    Claimed { name: String, by: EntityKey },
    /// The same command was accepted before, for this entity.
    Repeated { entity: EntityKey, same_body: bool },
    /// The record does not decode; it changes nothing.
    Void,
}

/// A record that is accepted and cannot be read here: the entity stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{entity} in the registry cannot be read; give every process the same master key file and release"
)]
pub struct Unreadable {
    pub entity: EntityKey,
    pub source: OpenError,
}

/// What runs out, in the order in which it does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Expiring {
    /// The command id of a change.
    Command(Arc<str>),
    /// An entity that keeps a command's answer.
    Answer(EntityKey),
}

/// The state of the fold.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    snapshot: Snapshot,
    expiring: BTreeSet<(Timestamp, Offset, Expiring)>,
    /// The latest time of any record so far.
    latest: Timestamp,
    verdicts: BTreeMap<Offset, Verdict>,
}

impl Fold {
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What was said of the record at `offset`, while it is remembered.
    pub fn verdict(&self, offset: Offset) -> Option<&Verdict> {
        self.verdicts.get(&offset)
    }

    /// Passes an offset that holds nothing to fold.
    pub fn pass(&mut self, offset: Offset) {
        self.note(offset, Verdict::Void);
    }

    fn note(&mut self, offset: Offset, verdict: Verdict) {
        self.snapshot.version = offset + 1;
        self.verdicts.insert(offset, verdict);
        while self.verdicts.len() > MAX_VERDICTS {
            self.verdicts.pop_first();
        }
    }

    /// Folds one record, in log order; `time` is the record's in the log.
    ///
    /// # Errors
    /// When the record is accepted and what it carries cannot be read. The fold
    /// has gone on all the same.
    pub fn apply(
        &mut self,
        offset: Offset,
        time: Timestamp,
        record: &v1::RegistryRecord,
        ring: &KeyRing,
    ) -> Result<Verdict, Unreadable> {
        self.latest = self.latest.max(time);
        self.expire();
        let entity = EntityKey(record.entity.as_str().into());
        let verdict = self.decide(&entity, record);
        self.note(offset, verdict.clone());
        if let Verdict::Accepted { version } = verdict {
            self.accept(offset, &entity, version, record);
            self.take_state(&entity, version, record, ring)?;
        }
        Ok(verdict)
    }

    /// Forgets the commands whose time is over.
    fn expire(&mut self) {
        while self.expiring.first().is_some_and(|(time, ..)| *time <= self.latest)
            && let Some((_, _, expiring)) = self.expiring.pop_first()
        {
            match expiring {
                Expiring::Command(id) => {
                    self.snapshot.made.remove(&id);
                }
                Expiring::Answer(entity) => {
                    self.snapshot.versions.remove(entity.as_str());
                    self.release(&entity);
                    if let Some(id) = command_id(&entity) {
                        self.snapshot.commands.remove(id);
                    }
                }
            }
        }
    }

    fn decide(&self, entity: &EntityKey, record: &v1::RegistryRecord) -> Verdict {
        if let Some(made) = self.snapshot.made.get(record.command_id.as_str()) {
            let same_body = made.hash == record.command_hash.as_ref();
            return Verdict::Repeated { entity: made.entity.clone(), same_body };
        }
        let current = self.snapshot.entity_version(entity);
        if current != record.expected_version {
            return Verdict::Conflict { current };
        }
        for name in &record.claims {
            if let Some(by) = self.snapshot.claims.get(name)
                && by != entity
            {
                return Verdict::Claimed { name: name.clone(), by: by.clone() };
            }
        }
        Verdict::Accepted { version: current + 1 }
    }

    /// What an accepted record changes whatever it carries: version, names, command.
    fn accept(
        &mut self,
        offset: Offset,
        entity: &EntityKey,
        version: u64,
        record: &v1::RegistryRecord,
    ) {
        self.release(entity);
        for name in &record.claims {
            self.snapshot.claims.insert(name.as_str().into(), entity.clone());
        }
        if !record.claims.is_empty() {
            self.snapshot.names.insert(Arc::clone(&entity.0), record.claims.as_slice().into());
        }
        self.snapshot.versions.insert(Arc::clone(&entity.0), version);
        let expires = self.latest + COMMAND_TIME;
        if !record.command_id.is_empty() {
            let id: Arc<str> = record.command_id.as_str().into();
            let made = Made { entity: entity.clone(), hash: record.command_hash.to_vec() };
            self.snapshot.made.insert(Arc::clone(&id), made);
            self.expiring.insert((expires, offset, Expiring::Command(id)));
        }
        if version == 1 && command_id(entity).is_some() {
            self.expiring.insert((expires, offset, Expiring::Answer(entity.clone())));
        }
    }

    fn release(&mut self, entity: &EntityKey) {
        let names = self.snapshot.names.remove(entity.as_str());
        for name in names.iter().flat_map(|names| names.iter()) {
            self.snapshot.claims.remove(name);
        }
    }

    fn take_state(
        &mut self,
        entity: &EntityKey,
        version: u64,
        record: &v1::RegistryRecord,
        ring: &KeyRing,
    ) -> Result<(), Unreadable> {
        // A kind of a later release has no meaning here.
        let Some(proto) = &record.state else { return Ok(()) };
        match decode(proto, &record.entity, version, &record.command_hash, ring) {
            Ok(state) => {
                if self.snapshot.unreadable.contains_key(entity) {
                    Arc::make_mut(&mut self.snapshot.unreadable).remove(entity);
                }
                store(&mut self.snapshot, entity, version, state);
                Ok(())
            }
            Err(source) => {
                Arc::make_mut(&mut self.snapshot.unreadable).insert(entity.clone(), source.clone());
                Err(Unreadable { entity: entity.clone(), source })
            }
        }
    }
}

/// The id in the name of an entity that keeps a command's answer.
fn command_id(entity: &EntityKey) -> Option<&str> {
    entity.as_str().strip_prefix("command/")
}

fn store(snapshot: &mut Snapshot, entity: &EntityKey, version: u64, state: State) {
    match state {
        State::Command(command) => {
            if let Some(id) = command_id(entity) {
                snapshot.commands.insert(id.into(), Arc::new(command));
            }
            return;
        }
        State::IdKey(key) => {
            snapshot.id_key = Some(key);
            return;
        }
        State::Deleted { topic_deleted, at } => {
            delete(snapshot, entity, topic_deleted, at, version);
        }
        State::Pause(pause) => {
            Arc::make_mut(&mut snapshot.pauses).insert(pause.of.to_string(), Arc::new(pause));
            // Routing goes on: what is stopped is recorded and waits.
            return;
        }
        State::Issuer(issuer) => {
            Arc::make_mut(&mut snapshot.issuers).insert(issuer.id.clone(), Arc::new(issuer));
        }
        State::ProgrammeManager(pm) => {
            Arc::make_mut(&mut snapshot.pms).insert(pm.id, Arc::new(pm));
        }
        State::Product(product) => {
            Arc::make_mut(&mut snapshot.products).insert(product.id.clone(), Arc::new(product));
        }
        State::Merchant(merchant) => {
            Arc::make_mut(&mut snapshot.merchants).insert(merchant.key.clone(), Arc::new(merchant));
        }
        State::Webhook(webhook) => {
            Arc::make_mut(&mut snapshot.webhooks).insert(webhook.id, Arc::new(*webhook));
        }
        State::Configuration(configuration) => {
            Arc::make_mut(&mut snapshot.configurations)
                .insert(configuration.id.clone(), Arc::new(configuration));
        }
    }
    snapshot.routes = Arc::default();
}

fn delete(
    snapshot: &mut Snapshot,
    entity: &EntityKey,
    topic_deleted: bool,
    at: Timestamp,
    version: u64,
) {
    let Some((kind, id)) = entity.as_str().split_once('/') else { return };
    match kind {
        "issuer" => {
            Arc::make_mut(&mut snapshot.issuers).remove(&IssuerId(id.into()));
        }
        "pm" => {
            if let Ok(id) = id.parse() {
                Arc::make_mut(&mut snapshot.pms).remove(&PmId(id));
            }
        }
        "product" => {
            Arc::make_mut(&mut snapshot.products).remove(&ProductId(id.into()));
        }
        "merchant" => {
            Arc::make_mut(&mut snapshot.merchants).remove(&MerchantKey(id.into()));
        }
        "webhook" => {
            if let Ok(id) = id.parse::<WebhookId>() {
                Arc::make_mut(&mut snapshot.webhooks).remove(&id);
                let stones = Arc::make_mut(&mut snapshot.deleted_webhooks);
                // The topic's end is another record; the webhook's own time stays.
                let deleted = stones.get(&id).map_or(at, |stone| stone.deleted);
                let slot = tidings_signing::slot(id);
                stones.insert(id, TombStone { slot, deleted, topic_deleted, version });
            }
        }
        "pause" => {
            Arc::make_mut(&mut snapshot.pauses).remove(id);
        }
        "config" => {
            Arc::make_mut(&mut snapshot.configurations).remove(id);
        }
        _ => {}
    }
}
