//! The routing rules, one test each.

use std::sync::Arc;

use tidings_catalogue::{Catalogue, Tenant, decode};
use tidings_routing::{
    Configuration, Decision, EventFacts, Hook, MessageTypes, RouteTable, Target, Tenants,
};
use tidings_types::{
    FilterReason, HookOwner, IssuerId, MerchantKey, PmId, ProductId, Scope, Shape, Timestamp,
    WebhookId, WebhookStatus,
};

fn issuer() -> Scope {
    Scope::Issuer(IssuerId("7001".into()))
}

fn product(id: &str) -> ProductId {
    ProductId(id.into())
}

fn merchant(key: &str) -> MerchantKey {
    MerchantKey(key.into())
}

/// Issuer 7001 with managers 20 and 21; product 345678 of 20, 999 of 21; a
/// merchant of 20. Issuer 7002 with manager 30.
fn tenants() -> Tenants {
    let id = |id: &str| IssuerId(id.into());
    Tenants {
        managers: vec![(PmId(20), id("7001")), (PmId(21), id("7001")), (PmId(30), id("7002"))],
        products: vec![(product("345678"), PmId(20)), (product("999"), PmId(21))],
        merchants: vec![(merchant("m_9f2"), PmId(20)), (merchant("m_2"), PmId(20))],
    }
}

fn id(number: u8) -> WebhookId {
    WebhookId::from_bytes([number; 16])
}

fn hook(number: u8, owner: HookOwner, events: &[&str]) -> Hook {
    Hook {
        webhook: id(number),
        owner,
        product: None,
        status: WebhookStatus::Active,
        events: events.iter().map(|name| Arc::from(*name)).collect(),
        shape: Shape::Plain,
    }
}

fn client(number: u8, scope: Scope, events: &[&str]) -> Hook {
    hook(number, HookOwner::Client(scope), events)
}

fn manager(number: i64) -> Scope {
    Scope::ProgrammeManager(PmId(number))
}

/// Where an event goes: the numbers of the webhooks, or why nowhere.
fn routed(
    table: &RouteTable,
    event_type: &str,
    tenant: &Tenant,
    of: Option<&str>,
) -> Result<Vec<u8>, String> {
    let product = of.map(product);
    let facts = EventFacts {
        event_type,
        tenant,
        product: product.as_ref(),
        needs_configuration: event_type == "112",
        mtid: Some("0100"),
    };
    match table.route(&facts) {
        Decision::Routed(targets) => {
            Ok(targets.iter().map(|target| target.webhook.as_bytes()[0]).collect())
        }
        Decision::Filtered(reason) => Err(reason.to_string()),
        Decision::BadTenant => Err("badTenant".to_owned()),
    }
}

fn pm(number: i64) -> Tenant {
    Tenant::ProgrammeManager(PmId(number))
}

fn refused<T>(reason: &str) -> Result<T, String> {
    Err(reason.to_owned())
}

#[test]
fn an_event_goes_to_all_webhooks_of_its_manager_and_issuer() {
    let mut of_product = client(3, manager(20), &["101"]);
    of_product.product = Some(product("345678"));
    let mut of_other = client(4, manager(21), &["101"]);
    of_other.product = Some(product("999"));
    let hooks = [
        client(1, issuer(), &["101", "102"]),
        client(2, manager(20), &["101", "101"]),
        of_product,
        of_other,
        client(5, manager(30), &["101"]),
    ];
    let table = RouteTable::build(tenants(), &hooks, []);
    assert_eq!(routed(&table, "101", &pm(20), None), Ok(vec![1, 2]));
    assert_eq!(routed(&table, "101", &pm(20), Some("345678")), Ok(vec![1, 2, 3]));
    assert_eq!(routed(&table, "101", &pm(20), Some("unregistered")), Ok(vec![1, 2]));
    assert_eq!(routed(&table, "101", &pm(20), Some("999")), refused("badTenant"));
    assert_eq!(routed(&table, "101", &pm(21), Some("999")), Ok(vec![1, 4]));
    assert_eq!(routed(&table, "102", &pm(20), None), Ok(vec![1]));
    assert_eq!(routed(&table, "101", &pm(30), None), Ok(vec![5]));
    assert_eq!(routed(&table, "101", &pm(99), Some("999")), refused("unknownTenant"));
}

#[test]
fn a_webhook_of_an_unregistered_product_takes_nothing() {
    let mut hook = client(1, manager(20), &["101"]);
    hook.product = Some(product("gone"));
    let table = RouteTable::build(tenants(), &[hook], []);
    for of in [None, Some("gone"), Some("345678")] {
        assert_eq!(routed(&table, "101", &pm(20), of), refused("product"));
    }
}

#[test]
fn the_reason_is_that_of_the_webhook_that_came_closest() {
    let table = |hooks: &[Hook]| {
        RouteTable::build(tenants(), hooks, &[wish(manager(20), None, None, true, &[0])])
    };
    let of = |hooks: &[Hook], event_type| routed(&table(hooks), event_type, &pm(20), None);
    assert_eq!(of(&[], "101"), refused("notSubscribed"));
    assert_eq!(of(&[client(1, manager(20), &["102"])], "101"), refused("notSubscribed"));
    assert_eq!(of(&[client(1, manager(21), &["101"])], "101"), refused("notSubscribed"));
    let mut product_level = client(1, manager(20), &["101", "112"]);
    product_level.product = Some(product("345678"));
    let mut inactive = client(2, manager(20), &["101", "112"]);
    inactive.status = WebhookStatus::Inactive;
    let issuers = client(3, issuer(), &["112"]);
    assert_eq!(of(std::slice::from_ref(&product_level), "101"), refused("product"));
    assert_eq!(of(&[product_level.clone(), issuers.clone()], "112"), refused("configuration"));
    assert_eq!(of(&[inactive.clone(), product_level, issuers], "112"), refused("inactive"));
    assert_eq!(of(&[inactive], "101"), refused("inactive"));
}

#[test]
fn an_inactive_webhook_of_another_product_was_stopped_by_the_product() {
    let mut hook = client(1, manager(20), &["101"]);
    hook.product = Some(product("345678"));
    hook.status = WebhookStatus::Inactive;
    let table = RouteTable::build(tenants(), &[hook], []);
    assert_eq!(routed(&table, "101", &pm(20), None), refused("product"));
    assert_eq!(routed(&table, "101", &pm(20), Some("345678")), refused("inactive"));
}

#[test]
fn a_suspended_webhook_is_a_target_that_says_so() {
    let mut suspended = client(1, manager(20), &["101"]);
    suspended.status = WebhookStatus::Suspended;
    suspended.shape = Shape::StrictLegacy;
    let table = RouteTable::build(tenants(), &[suspended], []);
    let tenant = pm(20);
    let facts = EventFacts {
        event_type: "101",
        tenant: &tenant,
        product: None,
        needs_configuration: false,
        mtid: None,
    };
    let expected = Target { webhook: id(1), shape: Shape::StrictLegacy, is_suspended: true };
    assert_eq!(table.route(&facts), Decision::Routed(vec![expected]));
}

#[test]
fn merchants_and_the_operator_have_hooks_of_their_own() {
    let sale = "transaction.sale.success";
    let hooks = [
        hook(1, HookOwner::Merchant(merchant("m_9f2")), &[sale]),
        hook(2, HookOwner::Merchant(merchant("m_9f2")), &[sale, "ach.failed"]),
        hook(3, HookOwner::Operator, &["webhook.failing", sale]),
        client(4, manager(20), &[sale]),
    ];
    let table = RouteTable::build(tenants(), &hooks, []);
    let of = |key: &str| Tenant::Merchant(merchant(key));
    assert_eq!(routed(&table, sale, &of("m_9f2"), None), Ok(vec![1, 2]));
    assert_eq!(routed(&table, "ach.failed", &of("m_9f2"), None), Ok(vec![2]));
    assert_eq!(routed(&table, sale, &of("m_2"), None), refused("notSubscribed"));
    assert_eq!(routed(&table, sale, &of("m_x"), None), refused("unknownTenant"));
    assert_eq!(routed(&table, "webhook.failing", &Tenant::Operator, None), Ok(vec![3]));
    assert_eq!(
        routed(&table, "webhook.suspended", &Tenant::Operator, None),
        refused("notSubscribed")
    );
    assert_eq!(table.issuer(&of("m_9f2")), Some(&IssuerId("7001".into())));
    assert_eq!(table.issuer(&pm(30)), Some(&IssuerId("7002".into())));
    assert_eq!(table.issuer(&Tenant::Operator), None);
}

fn wish(
    owner: Scope,
    of: Option<i64>,
    product_id: Option<&str>,
    is_active: bool,
    codes: &[u32],
) -> Configuration {
    Configuration {
        owner,
        manager: of.map(PmId),
        product: product_id.map(product),
        is_active,
        message_types: MessageTypes::from_codes(codes.iter().copied()).expect("codes 0 to 6"),
    }
}

/// Whether the only webhook takes a 112.
fn takes(table: &RouteTable, manager: i64, of: Option<&str>, mtid: Option<&str>) -> bool {
    let (tenant, product) = (pm(manager), of.map(product));
    let facts = EventFacts {
        event_type: "112",
        tenant: &tenant,
        product: product.as_ref(),
        needs_configuration: true,
        mtid,
    };
    match table.route(&facts) {
        Decision::Routed(_) => true,
        Decision::Filtered(reason) => {
            assert_eq!(reason, FilterReason::Configuration);
            false
        }
        Decision::BadTenant => unreachable!("the products here are those of their managers"),
    }
}

#[test]
fn the_decision_table_of_the_specification_holds() {
    type Wish = Option<(bool, &'static [u32])>;
    const NONE: Wish = None;
    const ALL: Wish = Some((true, &[0]));
    const OFF: Wish = Some((false, &[0]));
    const ONE: Wish = Some((true, &[1]));
    const OFF_ONE: Wish = Some((false, &[1]));
    const FIVE: Wish = Some((true, &[5]));
    let rows: [(Wish, Wish, Wish, [bool; 4]); 7] = [
        (NONE, NONE, NONE, [false, false, false, false]),
        (ALL, NONE, NONE, [true, true, true, true]),
        (ALL, ONE, NONE, [true, true, false, true]),
        (ALL, OFF, NONE, [false, false, false, true]),
        (ALL, ONE, FIVE, [false, true, false, true]),
        (NONE, OFF_ONE, ONE, [true, false, false, false]),
        (OFF, ONE, NONE, [true, true, false, false]),
    ];
    for (row, (global, of_manager, of_product, expected)) in rows.into_iter().enumerate() {
        // The product's configuration may name its manager too.
        for product_manager in [None, Some(20)] {
            let add = |wanted: Wish, of, product| {
                wanted.map(|(active, codes)| wish(issuer(), of, product, active, codes))
            };
            let configurations: Vec<Configuration> = [
                add(global, None, None),
                add(of_manager, Some(20), None),
                add(of_product, product_manager, Some("345678")),
            ]
            .into_iter()
            .flatten()
            .collect();
            let hooks = [client(1, issuer(), &["112"])];
            let table = RouteTable::build(tenants(), &hooks, &configurations);
            let got = [
                takes(&table, 20, Some("345678"), Some("0100")),
                takes(&table, 20, Some("other"), Some("0100")),
                takes(&table, 20, Some("other"), Some("0400")),
                takes(&table, 21, None, Some("0100")),
            ];
            assert_eq!(got, expected, "row {row}, {product_manager:?}");
        }
    }
}

#[test]
fn a_configuration_speaks_only_for_its_owner() {
    let hooks = [client(1, issuer(), &["112"]), client(2, manager(20), &["112"])];
    let build = |wishes: &[Configuration]| RouteTable::build(tenants(), &hooks, wishes);
    let of = |wishes: &[Configuration]| routed(&build(wishes), "112", &pm(20), None);
    let issuers = wish(issuer(), None, None, true, &[0]);
    let managers = wish(manager(20), None, None, true, &[0]);
    assert_eq!(of(std::slice::from_ref(&issuers)), Ok(vec![1]));
    assert_eq!(of(std::slice::from_ref(&managers)), Ok(vec![2]));
    assert_eq!(of(&[issuers, managers.clone()]), Ok(vec![1, 2]));
    assert_eq!(of(&[wish(issuer(), Some(20), None, false, &[0]), managers]), Ok(vec![2]));
    // A manager that names itself means all its own.
    assert_eq!(of(&[wish(manager(20), Some(20), None, true, &[1])]), Ok(vec![2]));
}

#[test]
fn a_configuration_with_manager_and_product_needs_both() {
    let hooks = [client(1, issuer(), &["112"])];
    let both = [wish(issuer(), Some(20), Some("345678"), true, &[1, 2, 3])];
    let table = RouteTable::build(tenants(), &hooks, &both);
    assert!(takes(&table, 20, Some("345678"), Some("0120")));
    assert!(!takes(&table, 20, Some("other"), Some("0120")));
    assert!(!takes(&table, 20, None, Some("0120")));
    assert!(!takes(&table, 21, Some("other"), Some("0120")));
    let foreign = [wish(issuer(), Some(21), Some("345678"), true, &[0])];
    let table = RouteTable::build(tenants(), &hooks, &foreign);
    assert!(!takes(&table, 20, Some("345678"), Some("0120")));
}

#[test]
fn filter_codes_are_the_message_types_of_the_documents() {
    let wants = |codes: &[u32], mtid| {
        MessageTypes::from_codes(codes.iter().copied()).expect("codes 0 to 6").wants(mtid)
    };
    let mtids = ["0100", "0120", "0200", "0220", "0400", "0420"];
    for (code, mtid) in (1..).zip(mtids) {
        for other in mtids {
            assert_eq!(wants(&[code], Some(other)), mtid == other);
        }
        assert!(wants(&[0], Some(mtid)) && wants(&[3, 0], Some(mtid)));
    }
    assert!(wants(&[1, 2], Some("0120")) && !wants(&[1, 2], Some("0200")));
    for odd in ["0110", "100", "", "0800"] {
        assert!(!wants(&[0], Some(odd)), "{odd}");
    }
    assert!(wants(&[0], None) && wants(&[1, 0], None) && !wants(&[1, 2, 3, 4, 5, 6], None));
    assert_eq!(MessageTypes::from_codes([7]), None);
    assert_eq!(MessageTypes::from_codes([1, 64]), None);
}

#[test]
fn the_facts_of_a_decoded_event_route_it() {
    let catalogue = Catalogue::builtin();
    let kind = catalogue.get("112").unwrap();
    let sample = kind.sample(Timestamp::from_secs(1_730_214_990), 1, 20, "");
    let event = decode(&catalogue, Some("112"), &sample).unwrap();
    let mtid = event.mtid();
    let facts = EventFacts::of(&event, mtid.as_deref());
    assert_eq!(facts.mtid, Some("0100"));
    let hooks = [client(1, manager(20), &["112"])];
    let table = RouteTable::build(tenants(), &hooks, []);
    assert_eq!(table.route(&facts), Decision::Filtered(FilterReason::Configuration));
    let wanted = [wish(manager(20), None, None, true, &[1])];
    let table = RouteTable::build(tenants(), &hooks, &wanted);
    assert!(matches!(table.route(&facts), Decision::Routed(targets) if targets.len() == 1));
}
