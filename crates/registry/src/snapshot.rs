//! The registry at one moment: immutable, shared.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use tidings_routing::{Hook, MessageTypes, RouteTable, Tenants};
use tidings_signing::OpenError;
use tidings_types::{
    HookOwner, IssuerId, MerchantKey, Offset, PmId, ProductId, Scope, Slot, Timestamp, WebhookId,
};

use crate::{
    entity::{
        CommandRecord, Configuration, EntityKey, IdKey, Issuer, Merchant, Pause, PauseOf, Product,
        ProgrammeManager, Webhook,
    },
    shards::Shards,
};

/// A webhook that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TombStone {
    pub slot: Slot,
    pub deleted: Timestamp,
    /// Whether its delivery topic is gone too.
    pub topic_deleted: bool,
    pub version: u64,
}

/// What a command made, for as long as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub entity: EntityKey,
    /// The hash of the request that it stood for.
    pub hash: Vec<u8>,
}

/// Everything that the registry says, up to [`Snapshot::version`]. A clone shares
/// what has not changed since.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The next offset of `tidings.registry`: all before it is folded.
    pub version: Offset,
    pub issuers: Arc<BTreeMap<IssuerId, Arc<Issuer>>>,
    pub pms: Arc<BTreeMap<PmId, Arc<ProgrammeManager>>>,
    pub products: Arc<BTreeMap<ProductId, Arc<Product>>>,
    pub merchants: Arc<BTreeMap<MerchantKey, Arc<Merchant>>>,
    pub webhooks: Arc<BTreeMap<WebhookId, Arc<Webhook>>>,
    pub deleted_webhooks: Arc<BTreeMap<WebhookId, TombStone>>,
    pub configurations: Arc<BTreeMap<String, Arc<Configuration>>>,
    /// By what is stopped.
    pub pauses: Arc<BTreeMap<String, Arc<Pause>>>,
    /// By command id.
    pub commands: Shards<Arc<CommandRecord>>,
    pub(crate) versions: Shards<u64>,
    /// Who holds which name...
    pub(crate) claims: Shards<EntityKey>,
    /// ...and which names an entity holds.
    pub(crate) names: Shards<Arc<[String]>>,
    /// By command id.
    pub(crate) made: Shards<Made>,
    pub(crate) id_key: Option<IdKey>,
    /// Entities whose last record could not be read here.
    pub(crate) unreadable: Arc<BTreeMap<EntityKey, OpenError>>,
    /// Made when it is asked for, and shared until something in it changes.
    pub(crate) routes: Arc<OnceLock<Arc<RouteTable>>>,
}

impl Snapshot {
    /// The version of an entity; 0 if there never was one. A deleted one keeps counting.
    pub fn entity_version(&self, entity: &EntityKey) -> u64 {
        self.versions.get(entity.as_str()).copied().unwrap_or(0)
    }

    /// The entity that holds a claimed name.
    pub fn claimed_by(&self, name: &str) -> Option<&EntityKey> {
        self.claims.get(name)
    }

    /// The names that an entity holds: a change of it that is not about them claims
    /// them again.
    pub fn names_of(&self, entity: &EntityKey) -> &[String] {
        self.names.get(entity.as_str()).map_or(&[], |names| names)
    }

    /// What the command `id` made.
    pub fn made_by(&self, id: &str) -> Option<&Made> {
        self.made.get(id)
    }

    /// The key of notification ids; there is one once the registry has started.
    pub fn id_key(&self) -> Option<&[u8; 32]> {
        self.id_key.as_ref().map(IdKey::expose)
    }

    /// Entities whose last record could not be read here, and why: a sealed value
    /// is damaged, or a later release wrote it. What stood before still counts.
    pub fn unreadable(&self) -> &BTreeMap<EntityKey, OpenError> {
        &self.unreadable
    }

    pub fn pm_by_code(&self, code: &str) -> Option<&Arc<ProgrammeManager>> {
        self.pms.values().find(|pm| pm.code == code)
    }

    /// The webhooks of a slot, without deleted ones.
    pub fn webhooks_in_slot(&self, slot: Slot) -> impl Iterator<Item = &Arc<Webhook>> {
        self.webhooks.values().filter(move |webhook| webhook.slot == slot)
    }

    /// Whether an operator has stopped a webhook, itself or with others.
    pub fn is_paused(&self, webhook: &Webhook) -> bool {
        // The common case first.
        !self.pauses.is_empty() && self.pauses.values().any(|pause| self.stops(pause, webhook))
    }

    fn stops(&self, pause: &Pause, webhook: &Webhook) -> bool {
        let manager = match &webhook.owner {
            HookOwner::Client(Scope::ProgrammeManager(id)) => Some(*id),
            HookOwner::Merchant(key) => self.merchants.get(key).map(|it| it.programme_manager),
            HookOwner::Client(Scope::Issuer(_)) | HookOwner::Operator => None,
        };
        match &pause.of {
            PauseOf::Everything => true,
            PauseOf::EventType(_) => false,
            PauseOf::Webhook(id) => webhook.id == *id,
            PauseOf::ProgrammeManager(id) => manager == Some(*id),
            PauseOf::Merchant(key) => webhook.owner == HookOwner::Merchant(key.clone()),
            PauseOf::Issuer(id) => {
                let of_manager = manager.and_then(|manager| self.pms.get(&manager));
                webhook.owner == HookOwner::Client(Scope::Issuer(id.clone()))
                    || of_manager.is_some_and(|manager| manager.issuer == *id)
            }
        }
    }

    /// The event types that an operator has stopped.
    pub fn paused_types(&self) -> impl Iterator<Item = &str> {
        self.pauses.values().filter_map(|pause| match &pause.of {
            PauseOf::EventType(name) => Some(name.as_ref()),
            PauseOf::Everything
            | PauseOf::Webhook(_)
            | PauseOf::Issuer(_)
            | PauseOf::ProgrammeManager(_)
            | PauseOf::Merchant(_) => None,
        })
    }

    /// The index that events are routed by. Built by the first who asks.
    pub fn route_table(&self) -> Arc<RouteTable> {
        Arc::clone(self.routes.get_or_init(|| Arc::new(self.build_routes())))
    }

    fn build_routes(&self) -> RouteTable {
        let tenants = Tenants {
            managers: self.pms.values().map(|pm| (pm.id, pm.issuer.clone())).collect(),
            products: self
                .products
                .values()
                .map(|product| (product.id.clone(), product.programme_manager))
                .collect(),
            merchants: self
                .merchants
                .values()
                .map(|merchant| (merchant.key.clone(), merchant.programme_manager))
                .collect(),
        };
        let hook = |webhook: &Arc<Webhook>| Hook {
            webhook: webhook.id,
            owner: webhook.owner.clone(),
            product: webhook.product.clone(),
            status: webhook.status,
            events: webhook.events.clone(),
            shape: webhook.shape(),
        };
        let hooks: Vec<Hook> = self.webhooks.values().map(hook).collect();
        let configurations: Vec<_> = self.configurations.values().filter_map(routed).collect();
        RouteTable::build(tenants, &hooks, &configurations)
    }
}

/// A configuration as routing sees it. The API stores codes 0 to 6 only; one with
/// another code, which it cannot have, would want nothing.
fn routed(configuration: &Arc<Configuration>) -> Option<tidings_routing::Configuration> {
    let message_types = MessageTypes::from_codes(configuration.filter.iter().copied());
    if message_types.is_none() {
        tracing::error!(
            configuration = configuration.id,
            "a configuration has a filter code outside 0 to 6 and is left out; update it"
        );
    }
    Some(tidings_routing::Configuration {
        owner: configuration.owner.clone(),
        manager: configuration.pm,
        product: configuration.product.clone(),
        is_active: configuration.active,
        message_types: message_types?,
    })
}
