//! Plans `tenants apply`: pure, all or nothing.

use std::{collections::BTreeSet, sync::Arc};

use serde::Deserialize;
use tidings_signing::Secret;
use tidings_types::{HookOwner, IssuerId, MerchantKey, PmId, ProductId, Timestamp};

use crate::{
    entity::{
        EntityKey, HookSignature, Issuer, Merchant, Product, ProgrammeManager, SourceKey, State,
    },
    service::Change,
    snapshot::Snapshot,
};

/// The longest product id.
const MAX_DIGITS: usize = 18;

/// The tenants document (contract §3), as JSON in camelCase.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TenantsDocument {
    pub issuers: Vec<IssuerEntry>,
    pub programme_managers: Vec<PmEntry>,
    pub products: Vec<ProductEntry>,
    pub merchants: Vec<MerchantEntry>,
}

/// An id that is written as a number or as a text.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum IdText {
    Number(i64),
    Text(String),
}

impl IdText {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuerEntry {
    pub id: IdText,
    #[serde(default)]
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PmEntry {
    pub id: i64,
    pub code: String,
    pub issuer: IdText,
    #[serde(default)]
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProductEntry {
    pub id: IdText,
    pub programme_manager: i64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MerchantEntry {
    pub key: String,
    pub programme_manager: i64,
    #[serde(default)]
    pub source_keys: Vec<SourceKeyEntry>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceKeyEntry {
    pub id: String,
    pub value: String,
}

impl std::fmt::Debug for SourceKeyEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SourceKeyEntry({})", self.id)
    }
}

/// A line that is refused, by its place in the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Such as `merchants[0].programmeManager`.
    pub field: String,
    pub message: String,
}

/// How many entities a plan adds, changes and removes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub added: usize,
    pub changed: usize,
    pub removed: usize,
}

/// Says what has to change so that the registry is as the document says. With
/// `prune`, what the document does not name is removed.
///
/// # Errors
/// All lines that are refused; then nothing is to be changed.
pub fn plan_tenants(
    snapshot: &Snapshot,
    document: &TenantsDocument,
    prune: bool,
    now: Timestamp,
) -> Result<(Vec<Change>, Counts), Vec<Refusal>> {
    let mut plan =
        Plan { snapshot, refusals: Vec::new(), changes: Vec::new(), counts: Counts::default() };
    let issuers = plan.issuers(document, prune);
    let pms = plan.programme_managers(document, prune, &issuers);
    plan.products(document, &pms);
    plan.merchants(document, &pms);
    if prune {
        plan.remove_unnamed(document, now);
    }
    plan.order(document);
    if plan.refusals.is_empty() { Ok((plan.changes, plan.counts)) } else { Err(plan.refusals) }
}

struct Plan<'a> {
    snapshot: &'a Snapshot,
    refusals: Vec<Refusal>,
    changes: Vec<Change>,
    counts: Counts,
}

impl Plan<'_> {
    fn refuse(&mut self, field: String, message: impl Into<String>) {
        self.refusals.push(Refusal { field, message: message.into() });
    }

    fn change(&mut self, entity: EntityKey, exists: bool, claims: Vec<String>, state: State) {
        if exists {
            self.counts.changed += 1;
        } else {
            self.counts.added += 1;
        }
        self.push(entity, claims, state);
    }

    fn push(&mut self, entity: EntityKey, claims: Vec<String>, state: State) {
        self.changes.push(Change {
            expected_version: self.snapshot.entity_version(&entity),
            entity,
            claims,
            command: None,
            actor: "admin".to_owned(),
            trace: String::new(),
            state,
        });
    }

    fn issuers(&mut self, document: &TenantsDocument, prune: bool) -> BTreeSet<IssuerId> {
        let mut known = BTreeSet::new();
        for (index, entry) in document.issuers.iter().enumerate() {
            let id = entry.id.text();
            let place = format!("issuers[{index}].id");
            if !legal_id(&id) {
                self.refuse(place, "must be 1 to 64 characters of [0-9A-Za-z_-]");
                continue;
            }
            let issuer = Issuer { id: IssuerId(Arc::from(id.as_str())), name: entry.name.clone() };
            if !known.insert(issuer.id.clone()) {
                self.refuse(place, "is named twice");
                continue;
            }
            let old = self.snapshot.issuers.get(&issuer.id);
            if old.is_none_or(|old| **old != issuer) {
                let exists = old.is_some();
                self.change(
                    EntityKey::new("issuer", &id),
                    exists,
                    Vec::new(),
                    State::Issuer(issuer),
                );
            }
        }
        if !prune {
            known.extend(self.snapshot.issuers.keys().cloned());
        }
        known
    }

    fn programme_managers(
        &mut self,
        document: &TenantsDocument,
        prune: bool,
        issuers: &BTreeSet<IssuerId>,
    ) -> BTreeSet<PmId> {
        let mut known = BTreeSet::new();
        let mut codes: Vec<(String, PmId)> = self
            .snapshot
            .pms
            .values()
            .filter(|pm| {
                !prune && !document.programme_managers.iter().any(|entry| entry.id == pm.id.0)
            })
            .map(|pm| (pm.code.clone(), pm.id))
            .collect();
        let unnamed = codes.len();
        let mut ids: BTreeSet<String> = codes.iter().map(|(_, id)| id.to_string()).collect();
        ids.extend(document.programme_managers.iter().map(|entry| entry.id.to_string()));
        for (index, entry) in document.programme_managers.iter().enumerate() {
            let place = |field: &str| format!("programmeManagers[{index}].{field}");
            let id = PmId(entry.id);
            if entry.id < 0 {
                self.refuse(place("id"), "must not be negative");
            }
            if !known.insert(id) {
                self.refuse(place("id"), "is named twice");
                continue;
            }
            let legal_code = (1..=16).contains(&entry.code.len())
                && entry.code.bytes().all(|byte| byte.is_ascii_alphanumeric());
            if !legal_code {
                self.refuse(place("code"), "must be 1 to 16 letters or digits");
            }
            if codes.iter().any(|(code, _)| *code == entry.code) {
                self.refuse(place("code"), "belongs to another programme manager");
            }
            // `X-PM-Code` takes a code or an id: one must not look like the other.
            if ids.contains(&entry.code) && entry.code != id.to_string() {
                self.refuse(place("code"), "is another programme manager's id");
            }
            let own_id = id.to_string();
            if codes.iter().take(unnamed).any(|(code, _)| *code == own_id) {
                self.refuse(place("id"), "is another programme manager's code");
            }
            codes.push((entry.code.clone(), id));
            let issuer = IssuerId(Arc::from(entry.issuer.text().as_str()));
            if !issuers.contains(&issuer) {
                self.refuse(place("issuer"), "there is no such issuer");
            }
            let pm =
                ProgrammeManager { id, code: entry.code.clone(), issuer, name: entry.name.clone() };
            let old = self.snapshot.pms.get(&id);
            if old.is_none_or(|old| **old != pm) {
                let exists = old.is_some();
                let claims = claims_of(&pm);
                self.change(EntityKey::new("pm", id), exists, claims, State::ProgrammeManager(pm));
            }
        }
        if !prune {
            known.extend(self.snapshot.pms.keys().copied());
        }
        known
    }

    fn products(&mut self, document: &TenantsDocument, pms: &BTreeSet<PmId>) {
        let mut named = BTreeSet::new();
        for (index, entry) in document.products.iter().enumerate() {
            let id = entry.id.text();
            if !(1..=MAX_DIGITS).contains(&id.len()) || !id.bytes().all(|c| c.is_ascii_digit()) {
                self.refuse(format!("products[{index}].id"), "must be an integer");
                continue;
            }
            if !named.insert(id.clone()) {
                self.refuse(format!("products[{index}].id"), "is named twice");
                continue;
            }
            let pm = PmId(entry.programme_manager);
            if !pms.contains(&pm) {
                let field = format!("products[{index}].programmeManager");
                self.refuse(field, "there is no such programme manager");
            }
            let product = Product { id: ProductId(Arc::from(id.as_str())), programme_manager: pm };
            let old = self.snapshot.products.get(&product.id);
            if old.is_some_and(|old| old.programme_manager != pm) {
                // What webhooks and configurations of one tenant are about would
                // become another tenant's.
                self.refuse(
                    format!("products[{index}].programmeManager"),
                    "is another one than before; remove the product first, then add it anew",
                );
            }
            if old.is_none_or(|old| **old != product) {
                let exists = old.is_some();
                self.change(
                    EntityKey::new("product", &id),
                    exists,
                    Vec::new(),
                    State::Product(product),
                );
            }
        }
    }

    fn merchants(&mut self, document: &TenantsDocument, pms: &BTreeSet<PmId>) {
        let mut named = BTreeSet::new();
        for (index, entry) in document.merchants.iter().enumerate() {
            let place = |field: &str| format!("merchants[{index}].{field}");
            if !legal_id(&entry.key) {
                self.refuse(place("key"), "must be 1 to 64 characters of [0-9A-Za-z_-]");
                continue;
            }
            if !named.insert(entry.key.clone()) {
                self.refuse(place("key"), "is named twice");
                continue;
            }
            let pm = PmId(entry.programme_manager);
            if !pms.contains(&pm) {
                self.refuse(place("programmeManager"), "there is no such programme manager");
            }
            let mut ids = BTreeSet::new();
            for (number, key) in entry.source_keys.iter().enumerate() {
                if key.id.is_empty() || key.id.len() > 64 || !ids.insert(&key.id) {
                    self.refuse(
                        place(&format!("sourceKeys[{number}].id")),
                        "is empty, too long or named twice",
                    );
                }
                if key.value.is_empty() || key.value.len() > 1024 {
                    self.refuse(
                        place(&format!("sourceKeys[{number}].value")),
                        "must be 1 to 1,024 characters",
                    );
                }
            }
            let merchant = Merchant {
                key: MerchantKey(Arc::from(entry.key.as_str())),
                programme_manager: pm,
                source_keys: entry
                    .source_keys
                    .iter()
                    .map(|key| SourceKey {
                        id: key.id.clone(),
                        value: Secret::new(key.value.clone().into_bytes()),
                    })
                    .collect(),
            };
            if let Some(id) = self.missing_source_key(&merchant) {
                self.refuse(place("sourceKeys"), format!("lacks {id:?}, which a hook signs with"));
            }
            let old = self.snapshot.merchants.get(&merchant.key);
            if old.is_none_or(|old| **old != merchant) {
                let exists = old.is_some();
                let entity = EntityKey::new("merchant", &entry.key);
                self.change(entity, exists, Vec::new(), State::Merchant(merchant));
            }
        }
    }

    /// A source key that a hook of the merchant signs with and that is not there.
    fn missing_source_key(&self, merchant: &Merchant) -> Option<String> {
        let owner = HookOwner::Merchant(merchant.key.clone());
        self.snapshot.webhooks.values().filter(|hook| hook.owner == owner).find_map(|hook| {
            match &hook.signature {
                HookSignature::SourceKey(id) if merchant.source_key(id).is_none() => {
                    Some(id.clone())
                }
                HookSignature::SourceKey(_)
                | HookSignature::SignatureKey(_)
                | HookSignature::None => None,
            }
        })
    }

    /// Puts the changes into an order in which every name is free before it is
    /// claimed, so that a code can change hands.
    fn order(&mut self, document: &TenantsDocument) {
        let mut waiting = std::mem::take(&mut self.changes);
        let mut entities: BTreeSet<EntityKey> =
            waiting.iter().map(|change| change.entity.clone()).collect();
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut blocked = Vec::new();
            for change in waiting {
                let is_held = change.claims.iter().any(|name| {
                    let holder = self.snapshot.claimed_by(name);
                    holder.is_some_and(|by| *by != change.entity && entities.contains(by))
                });
                if is_held {
                    blocked.push(change);
                } else {
                    entities.remove(&change.entity);
                    self.changes.push(change);
                }
            }
            if blocked.len() == before {
                for (index, entry) in document.programme_managers.iter().enumerate() {
                    if entities.contains(&EntityKey::new("pm", entry.id)) {
                        self.refuse(
                            format!("programmeManagers[{index}].code"),
                            "changes hands in a circle; give one a free code first",
                        );
                    }
                }
                return;
            }
            waiting = blocked;
        }
    }

    fn remove_unnamed(&mut self, document: &TenantsDocument, now: Timestamp) {
        let gone = || State::Deleted { topic_deleted: false, at: now };
        let mut entities = Vec::new();
        for key in self.snapshot.merchants.keys() {
            if !document.merchants.iter().any(|entry| entry.key == *key.0) {
                entities.push(EntityKey::new("merchant", key));
            }
        }
        for id in self.snapshot.products.keys() {
            if !document.products.iter().any(|entry| entry.id.text() == *id.0) {
                entities.push(EntityKey::new("product", id));
            }
        }
        for id in self.snapshot.pms.keys() {
            if !document.programme_managers.iter().any(|entry| entry.id == id.0) {
                entities.push(EntityKey::new("pm", id));
            }
        }
        for id in self.snapshot.issuers.keys() {
            if !document.issuers.iter().any(|entry| entry.id.text() == *id.0) {
                entities.push(EntityKey::new("issuer", id));
            }
        }
        for entity in entities {
            self.counts.removed += 1;
            self.push(entity, Vec::new(), gone());
        }
        // A code that changes hands must be free before it is claimed.
        self.changes.sort_by_key(|change| !matches!(change.state, State::Deleted { .. }));
    }
}

/// The names of a programme manager: its code, and its id in the same space, so
/// that two writers at the same moment cannot make one look like the other.
fn claims_of(pm: &ProgrammeManager) -> Vec<String> {
    let names = BTreeSet::from([format!("code/{}", pm.code), format!("code/{}", pm.id)]);
    names.into_iter().collect()
}

fn legal_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}
