//! The index and the decision.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use tidings_catalogue::{Event, Tenant};
use tidings_types::{
    FilterReason, HookOwner, IssuerId, MerchantKey, PmId, ProductId, Scope, Shape, WebhookId,
    WebhookStatus,
};

use crate::configuration::{Configuration, Configurations};

/// A webhook, as far as routing cares. Deleted ones are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub webhook: WebhookId,
    pub owner: HookOwner,
    /// The product that it is limited to.
    pub product: Option<ProductId>,
    pub status: WebhookStatus,
    /// The names of the event types that it subscribes to.
    pub events: Vec<Arc<str>>,
    pub shape: Shape,
}

/// Who there is.
#[derive(Clone, Debug, Default)]
pub struct Tenants {
    pub managers: Vec<(PmId, IssuerId)>,
    pub products: Vec<(ProductId, PmId)>,
    pub merchants: Vec<(MerchantKey, PmId)>,
}

/// What routing needs to know of an event.
#[derive(Clone, Copy, Debug)]
pub struct EventFacts<'a> {
    /// The type's name in the catalogue.
    pub event_type: &'a str,
    pub tenant: &'a Tenant,
    pub product: Option<&'a ProductId>,
    /// Whether a recipient must have asked for it in a configuration (112).
    pub needs_configuration: bool,
    pub mtid: Option<&'a str>,
}

/// One webhook that an event goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub webhook: WebhookId,
    pub shape: Shape,
    /// Its notification is recorded as undelivered, without a delivery record.
    pub is_suspended: bool,
}

/// What becomes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To these webhooks, at least one, in the order of their ids.
    Routed(Vec<Target>),
    /// To nobody, for the reason of the webhook that came closest.
    Filtered(FilterReason),
    /// It names a product of another programme manager.
    BadTenant,
}

/// Webhooks by owner, event type and product. Cheap to share, never changed.
#[derive(Debug, Default)]
pub struct RouteTable {
    managers: BTreeMap<PmId, IssuerId>,
    merchants: BTreeMap<MerchantKey, PmId>,
    products: BTreeMap<ProductId, Registered>,
    types: BTreeMap<Arc<str>, u32>,
    issuer_owners: BTreeMap<IssuerId, u32>,
    manager_owners: BTreeMap<PmId, u32>,
    merchant_owners: BTreeMap<MerchantKey, u32>,
    /// By owner, type and product, then by webhook id.
    entries: Vec<Entry>,
    configurations: BTreeMap<u32, Configurations>,
}

#[derive(Clone, Copy, Debug)]
struct Registered {
    manager: PmId,
    number: u32,
}

/// One subscription of one webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    owner: u32,
    event_type: u32,
    product: u32,
    webhook: WebhookId,
    status: WebhookStatus,
    shape: Shape,
}

/// The owner of the operator's hooks; others count from 1.
const OPERATOR: u32 = 0;
/// In the place of a product: the webhook takes any.
const ANY_PRODUCT: u32 = 0;
/// In the place of a product: it is not registered, so no event has it.
const NO_PRODUCT: u32 = u32::MAX;

impl<'a> EventFacts<'a> {
    /// The facts of an event; `mtid` is [`Event::mtid`], which the caller keeps.
    pub fn of(event: &'a Event<'_>, mtid: Option<&'a str>) -> Self {
        Self {
            event_type: event.kind().name(),
            tenant: event.tenant(),
            product: event.product(),
            needs_configuration: event.kind().needs_configuration(),
            mtid,
        }
    }
}

impl RouteTable {
    /// Builds the index. Of repeated entities the last one counts.
    pub fn build<'a>(
        tenants: Tenants,
        hooks: impl IntoIterator<Item = &'a Hook>,
        configurations: impl IntoIterator<Item = &'a Configuration>,
    ) -> Self {
        let products = (1..)
            .zip(tenants.products)
            .map(|(number, (product, manager))| (product, Registered { manager, number }))
            .collect();
        let mut table = Self {
            managers: tenants.managers.into_iter().collect(),
            merchants: tenants.merchants.into_iter().collect(),
            products,
            ..Self::default()
        };
        for hook in hooks {
            table.add(hook);
        }
        table.entries.sort_unstable();
        // A type that a webhook names twice is one subscription.
        table.entries.dedup();
        for configuration in configurations {
            let owner = match &configuration.owner {
                Scope::Issuer(issuer) => table.issuer_owner(issuer),
                Scope::ProgrammeManager(manager) => table.manager_owner(*manager),
            };
            table.configurations.entry(owner).or_default().add(configuration);
        }
        table
    }

    fn add(&mut self, hook: &Hook) {
        let owner = match &hook.owner {
            HookOwner::Client(Scope::Issuer(issuer)) => self.issuer_owner(issuer),
            HookOwner::Client(Scope::ProgrammeManager(manager)) => self.manager_owner(*manager),
            HookOwner::Merchant(merchant) => self.merchant_owner(merchant),
            HookOwner::Operator => OPERATOR,
        };
        let product = match &hook.product {
            None => ANY_PRODUCT,
            Some(product) => self.products.get(product).map_or(NO_PRODUCT, |it| it.number),
        };
        for name in &hook.events {
            let event_type = if let Some(number) = self.types.get(name) {
                *number
            } else {
                let number = count(self.types.len());
                self.types.insert(Arc::clone(name), number);
                number
            };
            let Hook { webhook, status, shape, .. } = *hook;
            self.entries.push(Entry { owner, event_type, product, webhook, status, shape });
        }
    }

    fn next_owner(&self) -> u32 {
        let known =
            self.issuer_owners.len() + self.manager_owners.len() + self.merchant_owners.len();
        OPERATOR + 1 + count(known)
    }

    fn issuer_owner(&mut self, issuer: &IssuerId) -> u32 {
        let next = self.next_owner();
        match self.issuer_owners.get(issuer) {
            Some(owner) => *owner,
            None => *self.issuer_owners.entry(issuer.clone()).or_insert(next),
        }
    }

    fn manager_owner(&mut self, manager: PmId) -> u32 {
        let next = self.next_owner();
        *self.manager_owners.entry(manager).or_insert(next)
    }

    fn merchant_owner(&mut self, merchant: &MerchantKey) -> u32 {
        let next = self.next_owner();
        match self.merchant_owners.get(merchant) {
            Some(owner) => *owner,
            None => *self.merchant_owners.entry(merchant.clone()).or_insert(next),
        }
    }

    /// The issuer that a tenant belongs to; `None` if the tenant is unknown or
    /// the operator.
    pub fn issuer(&self, tenant: &Tenant) -> Option<&IssuerId> {
        match tenant {
            Tenant::ProgrammeManager(manager) => self.managers.get(manager),
            Tenant::Merchant(merchant) => self.managers.get(self.merchants.get(merchant)?),
            Tenant::Operator => None,
        }
    }

    /// The programme manager of a registered product.
    pub fn manager_of(&self, product: &ProductId) -> Option<PmId> {
        self.products.get(product).map(|registered| registered.manager)
    }

    /// Decides where an event goes.
    pub fn route(&self, event: &EventFacts<'_>) -> Decision {
        let unknown = Decision::Filtered(FilterReason::UnknownTenant);
        let mut search = Search::new(self, event);
        match event.tenant {
            Tenant::Operator => search.owner(Some(OPERATOR), |_| true),
            Tenant::Merchant(merchant) => {
                if !self.merchants.contains_key(merchant) {
                    return unknown;
                }
                search.owner(self.merchant_owners.get(merchant).copied(), |_| true);
            }
            Tenant::ProgrammeManager(manager) => {
                let Some(issuer) = self.managers.get(manager) else { return unknown };
                if search.product.is_some_and(|product| product.manager != *manager) {
                    return Decision::BadTenant;
                }
                let product = event.product.filter(|_| search.product.is_some());
                let owners = [self.issuer_owners.get(issuer), self.manager_owners.get(manager)];
                for owner in owners {
                    search.owner(owner.copied(), |owner| {
                        !event.needs_configuration
                            || self
                                .configurations
                                .get(&owner)
                                .is_some_and(|own| own.want(*manager, product, event.mtid))
                    });
                }
            }
        }
        search.decision()
    }

    /// The entries of an owner and type, or of one product among them.
    fn range(&self, owner: u32, event_type: u32, product: Option<u32>) -> Range<usize> {
        let key = |entry: &Entry| (entry.owner, entry.event_type, entry.product);
        let (from, to) = match product {
            Some(product) => (product, product),
            None => (0, u32::MAX),
        };
        let start = self.entries.partition_point(|it| key(it) < (owner, event_type, from));
        let rest = &self.entries[start..];
        start..start + rest.partition_point(|it| key(it) <= (owner, event_type, to))
    }
}

/// What one event has found so far.
struct Search<'t> {
    table: &'t RouteTable,
    event_type: Option<u32>,
    /// The event's product, if it is registered.
    product: Option<Registered>,
    targets: Vec<Target>,
    furthest: FilterReason,
}

impl<'t> Search<'t> {
    fn new(table: &'t RouteTable, event: &EventFacts<'_>) -> Self {
        Self {
            table,
            event_type: table.types.get(event.event_type).copied(),
            product: event.product.and_then(|product| table.products.get(product).copied()),
            targets: Vec::new(),
            furthest: FilterReason::NotSubscribed,
        }
    }

    /// Takes the webhooks of one owner whose configuration, asked for once and
    /// only if a webhook is there, wants the event.
    fn owner(&mut self, owner: Option<u32>, is_wanted: impl Fn(u32) -> bool) {
        let (Some(owner), Some(event_type)) = (owner, self.event_type) else { return };
        let table = self.table;
        let any = table.range(owner, event_type, Some(ANY_PRODUCT));
        let own = match self.product {
            Some(product) => table.range(owner, event_type, Some(product.number)),
            None => 0..0,
        };
        if any.is_empty() && own.is_empty() {
            // Those that subscribe all want another product, if there are any.
            if !table.range(owner, event_type, None).is_empty() {
                self.got_to(FilterReason::Product);
            }
            return;
        }
        if !is_wanted(owner) {
            self.got_to(FilterReason::Configuration);
            return;
        }
        for entry in table.entries[any].iter().chain(&table.entries[own]) {
            let Entry { webhook, shape, status, .. } = *entry;
            let is_suspended = match status {
                WebhookStatus::Active => false,
                WebhookStatus::Suspended => true,
                WebhookStatus::Inactive => {
                    self.got_to(FilterReason::Inactive);
                    continue;
                }
            };
            self.targets.push(Target { webhook, shape, is_suspended });
        }
    }

    fn got_to(&mut self, reason: FilterReason) {
        self.furthest = self.furthest.max(reason);
    }

    fn decision(mut self) -> Decision {
        if self.targets.is_empty() {
            return Decision::Filtered(self.furthest);
        }
        self.targets.sort_unstable_by_key(|target| target.webhook);
        Decision::Routed(self.targets)
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
