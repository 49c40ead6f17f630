//! How long the index takes to build and to ask: `cargo bench -p tidings-routing`.

use std::{hint::black_box, sync::Arc, time::Instant};

use tidings_catalogue::Tenant;
use tidings_routing::{EventFacts, Hook, RouteTable, Tenants};
use tidings_types::{HookOwner, IssuerId, PmId, Scope, Shape, WebhookId, WebhookStatus};

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
#[expect(clippy::print_stdout, reason = "a bench prints what it measured")]
fn measure(name: &str, rounds: u32, mut run: impl FnMut()) {
    let start = Instant::now();
    for _ in 0..rounds {
        run();
    }
    println!("{name:<32} {:>9} ns", (start.elapsed() / rounds).as_nanos());
}

fn main() {
    let types: Vec<Arc<str>> = ["101", "102", "103", "112", "115"].map(Arc::from).into();
    let managers: Vec<(PmId, IssuerId)> =
        (0..10_000).map(|id| (PmId(id), IssuerId("7001".into()))).collect();
    let hooks: Vec<Hook> = (0..10_000_i64)
        .map(|id| Hook {
            webhook: WebhookId::from_bytes(u128::from(id.unsigned_abs()).to_be_bytes()),
            owner: HookOwner::Client(Scope::ProgrammeManager(PmId(id))),
            product: None,
            status: WebhookStatus::Active,
            events: types.clone(),
            shape: Shape::Plain,
        })
        .collect();
    let tenants = Tenants { managers, ..Tenants::default() };
    measure("build with 10,000 webhooks", 50, || {
        black_box(RouteTable::build(tenants.clone(), &hooks, []));
    });
    let table = RouteTable::build(tenants.clone(), &hooks, []);
    let tenant = Tenant::ProgrammeManager(PmId(4711));
    let event = EventFacts {
        event_type: "103",
        tenant: &tenant,
        product: None,
        needs_configuration: false,
        mtid: None,
    };
    measure("route to one of 10,000", 1_000_000, || {
        black_box(table.route(black_box(&event)));
    });
}
