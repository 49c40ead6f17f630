//! Writers and readers of the topic.

use std::{sync::Arc, time::Duration};

use tidings_broker::{AppendBatch, Fault, NewRecord};
use tidings_registry::{
    CommandRecord, CommandRef, Configuration, EntityKey, Issuer, Merchant, ProgrammeManager,
    ProposeError, Registry, RegistryError, SourceKey, State,
};
use tidings_signing::{KeyRing, Secret};
use tidings_testkit::SeededRng;
use tidings_types::{
    IssuerId, MerchantKey, NotificationId, PmId, RunId, Scope, TopicPartition, names,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::world::{MASTER, NOW, World, change, create, holds, webhook};

fn issuer(name: &str) -> State {
    State::Issuer(Issuer { id: IssuerId("7001".into()), name: name.to_owned() })
}

fn issuer_key() -> EntityKey {
    EntityKey::new("issuer", "7001")
}

#[tokio::test(start_paused = true)]
async fn an_accepted_change_is_in_the_answers_snapshot_and_in_every_process() {
    let world = World::new();
    let (one, two) = (world.process(1).await, world.process(2).await);
    let accepted = one.propose(create(&webhook(1))).await.unwrap();
    assert_eq!(accepted.version, 1);
    assert_eq!(**accepted.snapshot.webhooks.get(&webhook(1).id).unwrap(), webhook(1));
    let seen = two.fold_to_end().await.unwrap();
    assert_eq!(seen.version, accepted.offset + 1);
    assert_eq!(**seen.webhooks.get(&webhook(1).id).unwrap(), webhook(1));
    let slot = webhook(1).slot;
    assert_eq!(
        seen.webhooks_in_slot(slot).map(|hook| hook.id).collect::<Vec<_>>(),
        [webhook(1).id]
    );
}

#[tokio::test(start_paused = true)]
async fn two_writers_at_once_never_merge() {
    let world = World::new();
    let (one, two) = (world.process(1).await, world.process(2).await);
    one.propose(change(issuer_key(), 0, issuer("first"))).await.unwrap();
    two.fold_to_end().await.unwrap();
    let (left, right) = tokio::join!(
        one.propose(change(issuer_key(), 1, issuer("left"))),
        two.propose(change(issuer_key(), 1, issuer("right"))),
    );
    let (winner, loser) = if left.is_ok() { (left, right) } else { (right, left) };
    assert_eq!(winner.unwrap().version, 2);
    assert_eq!(loser.unwrap_err(), ProposeError::VersionConflict { current: 2 });
}

#[tokio::test(start_paused = true)]
async fn a_claimed_name_goes_to_one_of_two_writers() {
    let world = World::new();
    let (one, two) = (world.process(1).await, world.process(2).await);
    let claim = |number| tidings_registry::Change {
        claims: vec!["scope/pm:20//0".to_owned()],
        ..create(&webhook(number))
    };
    let (left, right) = tokio::join!(one.propose(claim(1)), two.propose(claim(2)));
    let (winner, loser, by) =
        if left.is_ok() { (left, right, webhook(1).id) } else { (right, left, webhook(2).id) };
    let snapshot = winner.unwrap().snapshot;
    let by = EntityKey::new("webhook", by);
    assert_eq!(snapshot.claimed_by("scope/pm:20//0"), Some(&by));
    let name = "scope/pm:20//0".to_owned();
    assert_eq!(loser.unwrap_err(), ProposeError::Claimed { name, by });
}

#[tokio::test(start_paused = true)]
async fn a_repeated_command_is_told_what_the_first_one_made() {
    let world = World::new();
    let one = world.process(1).await;
    let command = |number, hash| tidings_registry::Change {
        command: Some(CommandRef { id: "c".to_owned(), hash: [hash; 32] }),
        ..create(&webhook(number))
    };
    one.propose(command(1, 1)).await.unwrap();
    let entity = EntityKey::new("webhook", webhook(1).id);
    for same_body in [true, false] {
        let again = one.propose(command(2, if same_body { 1 } else { 2 })).await.unwrap_err();
        assert_eq!(again, ProposeError::Repeated { entity: entity.clone(), same_body });
    }
    world.later(Duration::from_secs(24 * 3600)).await;
    one.propose(command(2, 1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn everything_is_the_same_after_a_restart() {
    let world = World::new();
    let one = world.process(1).await;
    one.propose(change(issuer_key(), 0, issuer("a name"))).await.unwrap();
    let pm = ProgrammeManager {
        id: PmId(20),
        code: "TRD".to_owned(),
        issuer: IssuerId("7001".into()),
        name: "n".to_owned(),
    };
    one.propose(change(EntityKey::new("pm", 20), 0, State::ProgrammeManager(pm))).await.unwrap();
    let source_keys = vec![SourceKey { id: "s".to_owned(), value: Secret::from("the-source-key") }];
    let key = MerchantKey("m".into());
    let merchant = Merchant { key, programme_manager: PmId(20), source_keys };
    one.propose(change(EntityKey::new("merchant", "m"), 0, State::Merchant(merchant)))
        .await
        .unwrap();
    let configuration = Configuration {
        id: "c-1".to_owned(),
        owner: Scope::Issuer(IssuerId("7001".into())),
        pm: Some(PmId(20)),
        product: None,
        active: true,
        filter: vec![0, 3],
        created: NOW,
        modified: NOW,
    };
    one.propose(change(EntityKey::new("config", "c-1"), 0, State::Configuration(configuration)))
        .await
        .unwrap();
    let command = CommandRecord {
        subject: "s".to_owned(),
        hash: [3; 32],
        status: 201,
        answer: Secret::from("the-first-answer"),
        headers: vec![("etag".to_owned(), "\"1\"".to_owned())],
        runs: vec![(NotificationId::from_bytes([1; 16]), RunId::from_bytes([2; 16]))],
        done: true,
        expires: NOW + Duration::from_secs(86_400),
        version: 1,
    };
    one.propose(change(EntityKey::new("command", "c"), 0, State::Command(command))).await.unwrap();
    one.propose(create(&webhook(1))).await.unwrap();
    one.propose(create(&webhook(2))).await.unwrap();
    for topic_deleted in [false, true] {
        let entity = EntityKey::new("webhook", webhook(2).id);
        let version = 1 + u64::from(topic_deleted);
        let at = world.clock.now();
        one.propose(change(entity, version, State::Deleted { topic_deleted, at })).await.unwrap();
        world.later(Duration::from_secs(5)).await;
    }
    let before = one.fold_to_end().await.unwrap();
    assert_eq!(before.deleted_webhooks.len(), 1);
    let stone = before.deleted_webhooks.get(&webhook(2).id).unwrap();
    assert_eq!((stone.topic_deleted, stone.deleted, stone.version), (true, NOW, 3));
    assert!(!before.webhooks.contains_key(&webhook(2).id));

    let after = world.process(9).await.snapshot();
    assert_eq!(before.id_key(), after.id_key());
    assert!(before.id_key().is_some());
    assert_eq!((before.version, &before.issuers), (after.version, &after.issuers));
    assert_eq!((&before.pms, &before.merchants), (&after.pms, &after.merchants));
    assert_eq!(before.configurations, after.configurations);
    assert_eq!(
        (&before.webhooks, &before.deleted_webhooks),
        (&after.webhooks, &after.deleted_webhooks)
    );
    assert_eq!(before.commands.get("c"), after.commands.get("c"));
    assert!(after.commands.contains_key("c"));
    for entity in [issuer_key(), EntityKey::new("webhook", webhook(2).id)] {
        assert_eq!(before.entity_version(&entity), after.entity_version(&entity));
    }
}

#[tokio::test(start_paused = true)]
async fn no_secret_stands_in_the_topic_or_in_a_debug_text() {
    let world = World::new();
    let one = world.process(1).await;
    one.propose(create(&webhook(1))).await.unwrap();
    let source_keys = vec![SourceKey { id: "s".to_owned(), value: Secret::from("the-source-key") }];
    let key = MerchantKey("m".into());
    let merchant = Merchant { key, programme_manager: PmId(20), source_keys };
    one.propose(change(EntityKey::new("merchant", "m"), 0, State::Merchant(merchant)))
        .await
        .unwrap();
    let bytes = world.bytes_of(names::REGISTRY).await;
    let snapshot = one.snapshot();
    let printed = format!("{snapshot:?}");
    let id_key = *snapshot.id_key().unwrap();
    let secrets: [&[u8]; 9] = [
        b"the-header-secret",
        b"the-basic-password",
        b"the-tls-key",
        b"the-oauth-secret",
        b"the-signature-key",
        b"the-source-key",
        &[b'a'; 32],
        &[b'b'; 32],
        &id_key,
    ];
    for secret in secrets {
        assert!(!holds(&bytes, secret));
        assert!(!holds(printed.as_bytes(), secret));
    }
    assert!(!printed.contains(&format!("{id_key:?}")));
    // The control: what is not secret is found the same way.
    for plain in [b"https://client.example/hook".as_slice(), b"key 1", b"user"] {
        assert!(holds(&bytes, plain));
        assert!(holds(printed.as_bytes(), plain));
    }
}

#[tokio::test(start_paused = true)]
async fn a_sealed_value_cannot_be_moved_to_another_entity() {
    use tidings_proto::{decode, encode, format_header, v1};

    let world = World::new();
    let one = world.process(1).await;
    let accepted = one.propose(create(&webhook(1))).await.unwrap();
    let place = TopicPartition::new(names::REGISTRY, 0);
    let records = world.broker.read(&place, accepted.offset, 1 << 20).await.unwrap();
    let mut record: v1::RegistryRecord = decode(records[0].value.clone().unwrap()).unwrap();
    record.entity = EntityKey::new("webhook", webhook(2).id).to_string();
    let forged = NewRecord {
        headers: vec![format_header()],
        value: Some(encode(&record)),
        ..Default::default()
    };
    for appended in
        world.broker.append(vec![AppendBatch { to: place, records: vec![forged] }]).await
    {
        appended.unwrap();
    }
    let snapshot = one.fold_to_end().await.unwrap();
    assert_eq!(snapshot.unreadable().len(), 1);
    assert_eq!(snapshot.webhooks.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_append_of_unknown_fate_is_read_on_until_it_is_known() {
    // The answer is lost, nothing is written, both; each twice in a row too.
    let rows: [&[Fault]; 5] = [
        &[Fault::LoseAnswer],
        &[Fault::DropSilently],
        &[Fault::LoseAnswer, Fault::LoseAnswer],
        &[Fault::DropSilently, Fault::DropSilently, Fault::LoseAnswer],
        &[Fault::DropSilently, Fault::Refuse],
    ];
    for faults in rows {
        let world = World::new();
        let one = world.process(1).await;
        *world.faults.0.lock() = faults.to_vec();
        let proposed = tidings_registry::Change {
            command: Some(CommandRef { id: "c".to_owned(), hash: [1; 32] }),
            claims: vec!["name".to_owned()],
            ..create(&webhook(1))
        };
        let accepted = one.propose(proposed).await.unwrap();
        assert_eq!(accepted.version, 1, "{faults:?}");
        assert!(world.faults.0.lock().len() < faults.len(), "{faults:?}");
        let snapshot = one.fold_to_end().await.unwrap();
        let entity = EntityKey::new("webhook", webhook(1).id);
        assert_eq!(snapshot.entity_version(&entity), 1, "{faults:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_surely_not_written_is_unavailable_at_once() {
    let world = World::new();
    let one = world.process(1).await;
    *world.faults.0.lock() = vec![Fault::Refuse];
    let started = world.clock.monotonic();
    let error = one.propose(create(&webhook(1))).await.unwrap_err();
    assert_eq!(error, ProposeError::Unavailable);
    assert!(world.clock.monotonic().since(started) < Duration::from_millis(100));
    one.propose(create(&webhook(1))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_fate_stays_unknown_is_unknown_after_a_while() {
    let world = World::new();
    let one = world.process(1).await;
    *world.faults.0.lock() = vec![Fault::DropSilently; 1000];
    let error = one.propose(create(&webhook(1))).await.unwrap_err();
    assert_eq!(error, ProposeError::Unknown);
}

#[tokio::test(start_paused = true)]
async fn processes_that_start_at_once_agree_on_the_id_key() {
    let world = World::new();
    let (one, two, three) = tokio::join!(world.process(1), world.process(2), world.process(3));
    let keys = [&one, &two, &three].map(|process| process.snapshot().id_key().copied());
    assert!(keys[0].is_some());
    assert!(keys.iter().all(|key| *key == keys[0]));
}

#[tokio::test(start_paused = true)]
async fn a_process_with_the_wrong_master_key_does_not_start() {
    let world = World::new();
    let one = world.process(1).await;
    let wrong = world.process_with(2, &KeyRing::generate(&[8; 32])).await.err();
    assert_eq!(wrong, Some(RegistryError::MasterKey(EntityKey::new("deployment", "keys"))));

    // A newer key that this process does not have.
    let text = KeyRing::generate(&MASTER).to_text();
    let both = KeyRing::parse(&format!(
        "{text}{}",
        KeyRing::generate(&[9; 32]).to_text().replace("k1", "k2")
    ));
    let newer = world.process_with(3, &both.unwrap()).await.unwrap();
    newer.propose(create(&webhook(1))).await.unwrap();
    let old = world.process_with(4, &KeyRing::generate(&MASTER)).await.err();
    let entity = EntityKey::new("webhook", webhook(1).id);
    assert_eq!(old, Some(RegistryError::MasterKey(entity)));
    drop(one);
}

#[tokio::test(start_paused = true)]
async fn a_record_of_another_format_is_void_and_passed() {
    use tidings_proto::{encode, v1};

    let world = World::new();
    let one = world.process(1).await;
    let issuer = v1::Issuer { id: "7001".to_owned(), name: String::new() };
    let record = v1::RegistryRecord {
        entity: issuer_key().to_string(),
        state: Some(v1::registry_record::State::Issuer(issuer)),
        ..Default::default()
    };
    let with = |headers, value| NewRecord { headers, value, ..Default::default() };
    let version = |text: &'static str| vec![(Arc::from("v"), text.into())];
    let records = vec![
        with(vec![], Some(encode(&record))),
        with(version("2"), Some(encode(&record))),
        with(version("1"), Some(b"\xff\xff".as_slice().into())),
        with(version("1"), None),
    ];
    let to = TopicPartition::new(names::REGISTRY, 0);
    for appended in world.broker.append(vec![AppendBatch { to, records }]).await {
        appended.unwrap();
    }
    let snapshot = one.fold_to_end().await.unwrap();
    assert_eq!(snapshot.version, 5);
    assert!(snapshot.issuers.is_empty());
    one.propose(change(
        issuer_key(),
        0,
        State::Issuer(Issuer { id: IssuerId("7001".into()), name: String::new() }),
    ))
    .await
    .unwrap();
    let mut metrics = prometheus_client::registry::Registry::default();
    one.register_metrics(&mut metrics);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &metrics).unwrap();
    assert!(text.contains(r#"tidings_registry_folded_records_total{verdict="Void"} 4"#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_route_table_is_made_once_for_as_long_as_it_holds() {
    let world = World::new();
    let one = world.process(1).await;
    let first = one.propose(create(&webhook(1))).await.unwrap().snapshot;
    let table = first.route_table();
    assert!(Arc::ptr_eq(&table, &first.route_table()));
    let command = CommandRecord {
        subject: String::new(),
        hash: [0; 32],
        status: 200,
        answer: Secret::from(""),
        headers: Vec::new(),
        runs: Vec::new(),
        done: false,
        expires: NOW,
        version: 1,
    };
    let other = one.propose(change(EntityKey::new("command", "c"), 0, State::Command(command)));
    assert!(Arc::ptr_eq(&table, &other.await.unwrap().snapshot.route_table()));
    let changed = one.propose(create(&webhook(2))).await.unwrap().snapshot;
    assert!(!Arc::ptr_eq(&table, &changed.route_table()));
    assert!(Arc::ptr_eq(&table, &first.route_table()));
}

#[tokio::test(start_paused = true)]
async fn a_crash_of_the_broker_loses_nothing_that_was_answered() {
    let mut world = World::new();
    let one = world.process(1).await;
    one.propose(create(&webhook(1))).await.unwrap();
    let tidings_broker::Broker::Local(local) = &world.broker else { panic!("the world is local") };
    let reopened = local.crash_and_reopen().unwrap();
    assert_eq!(one.propose(create(&webhook(2))).await.unwrap_err(), ProposeError::Unavailable);
    world.broker = tidings_broker::Broker::Local(reopened);
    let two = world.process(2).await;
    assert_eq!(two.snapshot().webhooks.len(), 1);
    two.propose(create(&webhook(2))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_key_that_only_another_process_has_ends_this_one_before_it_takes_a_webhook_for_absent() {
    let world = World::new();
    let old = KeyRing::generate(&MASTER);
    let text = old.to_text() + &KeyRing::line("k2", &[9; 32]);
    let new = KeyRing::parse(&text).unwrap();
    let (registry, task) = Registry::start(
        world.broker.clone(),
        old,
        Arc::clone(&world.clock),
        Arc::new(SeededRng::new(1)),
    )
    .await
    .unwrap();
    let mut running = JoinSet::new();
    running.spawn(task.run(CancellationToken::new()));
    let other = world.process_with(2, &new).await.unwrap();
    other.propose(change(issuer_key(), 0, issuer("a"))).await.unwrap();
    let before = registry.fold_to_end().await.unwrap();
    other.propose(create(&webhook(1))).await.unwrap();
    let ended = running.join_next().await.unwrap().unwrap();
    assert!(matches!(ended, Err(RegistryError::MasterKey(_))), "{ended:?}");
    // Whoever waits for the change goes on waiting, and nobody decides without it.
    assert_eq!(registry.snapshot().version, before.version);
    assert!(registry.fold_to_end().await.is_err());
}
