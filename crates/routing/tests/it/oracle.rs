//! The index against a plain search over random registries.

use std::sync::Arc;

use proptest::prelude::*;
use tidings_catalogue::Tenant;
use tidings_routing::{
    Configuration, Decision, EventFacts, Hook, MessageTypes, RouteTable, Target, Tenants,
};
use tidings_types::{
    FilterReason, HookOwner, IssuerId, MerchantKey, PmId, ProductId, Scope, Shape, WebhookId,
    WebhookStatus,
};

const TYPES: [&str; 3] = ["101", "112", "ach.failed"];

fn name(prefix: &str, number: usize) -> Arc<str> {
    format!("{prefix}{number}").into()
}

fn issuer(number: usize) -> IssuerId {
    IssuerId(name("i", number))
}

fn manager(number: usize) -> PmId {
    PmId(i64::try_from(number).expect("small"))
}

fn product(number: usize) -> ProductId {
    ProductId(name("p", number))
}

/// Managers 0 to 3 of issuers 0 and 1; products 0 to 5, of which 5 is not
/// registered; merchants 0 and 1.
fn tenants() -> Tenants {
    Tenants {
        managers: (0..4).map(|number| (manager(number), issuer(number % 2))).collect(),
        products: (0..5).map(|number| (product(number), manager(number % 4))).collect(),
        merchants: (0..2).map(|number| (MerchantKey(name("m", number)), manager(0))).collect(),
    }
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        (0..2_usize).prop_map(|number| Scope::Issuer(issuer(number))),
        (0..4_usize).prop_map(|number| Scope::ProgrammeManager(manager(number))),
    ]
}

fn any_product() -> impl Strategy<Value = Option<ProductId>> {
    prop::option::of((0..6_usize).prop_map(product))
}

fn hook() -> impl Strategy<Value = Hook> {
    let owner = prop_oneof![
        4 => scope().prop_map(HookOwner::Client),
        1 => (0..3_usize).prop_map(|number| HookOwner::Merchant(MerchantKey(name("m", number)))),
        1 => Just(HookOwner::Operator),
    ];
    let status = prop::sample::select(WebhookStatus::ALL);
    let events = prop::collection::vec(prop::sample::select(&TYPES), 0..3);
    (any::<[u8; 16]>(), owner, any_product(), status, events).prop_map(
        |(id, owner, product, status, events)| Hook {
            webhook: WebhookId::from_bytes(id),
            // Merchants' and operators' hooks have no product.
            product: product.filter(|_| matches!(owner, HookOwner::Client(_))),
            owner,
            status,
            events: events.into_iter().map(Arc::from).collect(),
            shape: Shape::Plain,
        },
    )
}

fn configuration() -> impl Strategy<Value = Configuration> {
    let manager = prop::option::of((0..4_usize).prop_map(manager));
    let codes = prop::collection::vec(0..7_u32, 1..3);
    (scope(), manager, any_product(), any::<bool>(), codes).prop_map(
        |(owner, manager, product, is_active, codes)| Configuration {
            owner,
            manager,
            product,
            is_active,
            message_types: MessageTypes::from_codes(codes).expect("codes 0 to 6"),
        },
    )
}

fn tenant() -> impl Strategy<Value = Tenant> {
    prop_oneof![
        6 => (0..5_usize).prop_map(|number| Tenant::ProgrammeManager(manager(number))),
        2 => (0..3_usize).prop_map(|number| Tenant::Merchant(MerchantKey(name("m", number)))),
        1 => Just(Tenant::Operator),
    ]
}

/// The rules of design §10 and `spec.md` §3.7 and §4, one webhook after another.
fn search(hooks: &[Hook], wishes: &[Configuration], event: &EventFacts<'_>) -> Decision {
    let known = tenants();
    let registered = known.products.iter().find(|(id, _)| Some(id) == event.product);
    let owners = match event.tenant {
        Tenant::Operator => vec![HookOwner::Operator],
        Tenant::Merchant(key) if known.merchants.iter().any(|(known, _)| known == key) => {
            vec![HookOwner::Merchant(key.clone())]
        }
        Tenant::ProgrammeManager(id) if known.managers.iter().any(|(known, _)| known == id) => {
            if registered.is_some_and(|(_, manager)| manager != id) {
                return Decision::BadTenant;
            }
            let (_, issuer) = known.managers.iter().find(|(known, _)| known == id).expect("known");
            vec![
                HookOwner::Client(Scope::Issuer(issuer.clone())),
                HookOwner::Client(Scope::ProgrammeManager(*id)),
            ]
        }
        Tenant::Merchant(_) | Tenant::ProgrammeManager(_) => {
            return Decision::Filtered(FilterReason::UnknownTenant);
        }
    };
    let mut furthest = FilterReason::NotSubscribed;
    let mut targets = Vec::new();
    for hook in hooks.iter().filter(|hook| owners.contains(&hook.owner)) {
        if !hook.events.iter().any(|name| **name == *event.event_type) {
            continue;
        }
        let stop = if hook.product.is_some()
            && (registered.is_none() || hook.product.as_ref() != event.product)
        {
            FilterReason::Product
        } else if event.needs_configuration
            && !configured(wishes, hook, event, registered.is_some())
        {
            FilterReason::Configuration
        } else if hook.status == WebhookStatus::Inactive {
            FilterReason::Inactive
        } else {
            let is_suspended = hook.status == WebhookStatus::Suspended;
            targets.push(Target { webhook: hook.webhook, shape: hook.shape, is_suspended });
            continue;
        };
        furthest = furthest.max(stop);
    }
    targets.sort_by_key(|target| target.webhook);
    if targets.is_empty() { Decision::Filtered(furthest) } else { Decision::Routed(targets) }
}

/// Of the fitting configurations of the webhook's owner, the most specific one.
fn configured(
    wishes: &[Configuration],
    hook: &Hook,
    event: &EventFacts<'_>,
    is_registered: bool,
) -> bool {
    let (HookOwner::Client(owner), Tenant::ProgrammeManager(id)) = (&hook.owner, event.tenant)
    else {
        return true;
    };
    wishes
        .iter()
        .filter(|wish| wish.owner == *owner)
        .filter(|wish| wish.manager.is_none_or(|manager| manager == *id))
        .filter(|wish| {
            wish.product.is_none() || (is_registered && wish.product.as_ref() == event.product)
        })
        // The later of equals replaces the earlier.
        .max_by_key(|wish| (wish.product.is_some(), wish.manager.is_some()))
        .is_some_and(|wish| wish.is_active && wish.message_types.wants(event.mtid))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_index_decides_as_a_plain_search_does(
        hooks in prop::collection::vec(hook(), 0..12),
        wishes in prop::collection::vec(configuration(), 0..8),
        tenant in tenant(),
        product in any_product(),
        event_type in prop::sample::select(&TYPES),
        mtid in prop::option::of(prop::sample::select(&["0100", "0420", "0110"])),
    ) {
        let is_client = matches!(tenant, Tenant::ProgrammeManager(_));
        let event = EventFacts {
            event_type,
            tenant: &tenant,
            product: product.as_ref().filter(|_| is_client),
            needs_configuration: is_client && event_type == "112",
            mtid,
        };
        let table = RouteTable::build(tenants(), &hooks, &wishes);
        prop_assert_eq!(table.route(&event), search(&hooks, &wishes, &event));
    }
}
