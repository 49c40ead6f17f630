//! Golden records: one of every kind, in every form that a release wrote, as hex in
//! `golden/`. They are read as what they say and written as the same bytes.
//!
//! A file stays as it is for ever. A record that gets a new field gets a second
//! value and a second file: `TIDINGS_WRITE_GENERATED=1` writes files that are
//! missing, and no other.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::BTreeSet,
    fmt::Debug,
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use prost::Message;
use tidings_proto::{decode, encode, v1};

/// The golden records that were compared.
#[derive(Default)]
struct Golden {
    names: BTreeSet<String>,
}

impl Golden {
    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
    }

    /// Compares a value with its golden record.
    #[track_caller]
    #[expect(clippy::disallowed_methods, reason = "a switch of the developer, not a setting")]
    fn check<M: Message + Default + PartialEq + Debug>(&mut self, name: &str, value: &M) {
        let file = format!("{name}.hex");
        let path = Self::folder().join(&file);
        let written = hex(&encode(value));
        if std::env::var("TIDINGS_WRITE_GENERATED").is_ok() && !path.exists() {
            fs::write(&path, &written).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        let read: M = decode(unhex(&committed)).unwrap();
        assert_eq!(read, *value, "{name} is read as something else than was written");
        assert_eq!(committed, written, "{name} is written otherwise than it was");
        self.names.insert(file);
    }
}

fn pauses(known: &mut Golden) {
    use v1::pause::Of;
    let of = [
        ("everything", Of::Everything(true)),
        ("event-type", Of::EventType(text("104"))),
        ("webhook", Of::Webhook(id(1))),
        ("issuer", Of::Issuer(text("7001"))),
        ("manager", Of::ProgrammeManager(20)),
        ("merchant", Of::Merchant(text("m_9f2"))),
    ];
    for (name, of) in of {
        let pause = v1::Pause {
            of: Some(of),
            reason: text("maintenance"),
            actor: text("tester"),
            since: 1_767_225_600_000,
        };
        let state = v1::registry_record::State::Pause(pause);
        known.check(&format!("registry-pause-{name}-1"), &registry(state));
    }
}

#[test]
fn every_record_that_a_release_wrote_is_read_as_it_was_meant_and_written_the_same() {
    let mut known = Golden::default();
    routed(&mut known);
    delivery(&mut known);
    outcomes(&mut known);
    slots(&mut known);
    keys_and_quarantine(&mut known);
    webhooks(&mut known);
    other_entities(&mut known);
    pauses(&mut known);
    let listed = fs::read_dir(Golden::folder()).unwrap();
    let listed: BTreeSet<String> =
        listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(listed, known.names, "a golden record is never removed");
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn id(byte: u8) -> Bytes {
    Bytes::from(vec![byte; 16])
}

fn source() -> v1::Source {
    v1::Source { topic: text("tidings.events.101"), partition: 7, offset: 1 << 40 }
}

fn sealed(key: &str) -> v1::Sealed {
    v1::Sealed { key: text(key), nonce: bytes("twelve bytes"), data: bytes("cipher and tag") }
}

fn body(shape: v1::Shape) -> v1::Body {
    v1::Body {
        sealed: Some(sealed("k1/body/7001/2026-01")),
        hole: Some(30),
        payload_start: 120,
        payload_len: 300,
        shape: shape.into(),
    }
}

fn decision(what: v1::decision::What) -> v1::RoutedRecord {
    let decision = v1::Decision {
        source: Some(source()),
        skipped: 3,
        registry_version: 12,
        time: 1_767_225_600_123,
        traceparent: text("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        what: Some(what),
    };
    v1::RoutedRecord { took: 41, kind: Some(v1::routed_record::Kind::Decision(decision)) }
}

fn took() -> v1::Took {
    v1::Took { owner: id(9), time: 1_767_225_600_000 }
}

fn routed(known: &mut Golden) {
    let took = v1::routed_record::Kind::TookOver(took());
    known.check("routed-took-1", &v1::RoutedRecord { took: 0, kind: Some(took) });
    let target = |shape: v1::Shape, suspended| v1::RoutedTarget {
        webhook: id(1),
        notification: id(2),
        shape: shape.into(),
        suspended,
    };
    let routed = v1::Routed {
        uid: Bytes::from(vec![5; 32]),
        event_type: text("107"),
        tenant: text("pm:20"),
        issuer: text("7001"),
        lane: v1::Lane::Urgent.into(),
        deadline: 1_767_226_500_000,
        order_key: text("t1"),
        producer_id: text("c-1"),
        bodies: vec![body(v1::Shape::Plain), body(v1::Shape::StrictLegacy)],
        targets: vec![
            target(v1::Shape::Plain, false),
            target(v1::Shape::StrictLegacy, true),
            target(v1::Shape::WireNames, false),
        ],
        redacted: Some(body(v1::Shape::Plain)),
        fraud_alert_id: text("a-1"),
    };
    known.check("routed-routed-1", &decision(v1::decision::What::Routed(routed)));
    let filtered = v1::Filtered {
        uid: Bytes::from(vec![5; 32]),
        event_type: text("101"),
        tenant: text("m:m_9f2"),
        reason: text("notSubscribed"),
    };
    known.check("routed-filtered-1", &decision(v1::decision::What::Filtered(filtered)));
    let quarantined = v1::Quarantined { code: text("BAD_FIELD"), field: text("payload.x") };
    known.check("routed-quarantined-1", &decision(v1::decision::What::Quarantined(quarantined)));
}

fn delivery(known: &mut Golden) {
    let record = v1::DeliveryRecord {
        notification: id(2),
        run: id(3),
        uid: Bytes::from(vec![5; 32]),
        event_type: text("101"),
        tenant: text("pm:20"),
        issuer: text("7001"),
        lane: v1::Lane::Urgent.into(),
        deadline: 1_767_226_500_000,
        order_key: text("t1"),
        body: Some(body(v1::Shape::WireNames)),
        source: Some(source()),
        created: 1_767_225_600_123,
        traceparent: text("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        resends: 2,
        number: 77,
        number_lane: None,
    };
    known.check("delivery-1", &record);
    let resent = v1::DeliveryRecord { number_lane: Some(v1::Lane::Urgent.into()), ..record };
    known.check("delivery-numbered-1", &resent);
}

fn outcomes(known: &mut Golden) {
    let outcome = |kind: v1::OutcomeKind, reason: &str| v1::Outcome {
        webhook: id(1),
        notification: id(2),
        run: id(3),
        partition: Some(1),
        offset: Some(0),
        kind: kind.into(),
        reason: text(reason),
        time: 1_767_225_600_456,
        attempt: 4,
        ladder_step: 3,
        first_failure: 1_767_225_500_000,
        next_due: 1_767_225_700_000,
        code: text("HTTP_503"),
        http_status: 503,
        duration_ms: 45,
        snippet: Some(sealed("k1/snippet")),
        lane: v1::Lane::Urgent.into(),
        number: 77,
        first_attempt: 1_767_225_400_000,
    };
    let outcomes = vec![
        outcome(v1::OutcomeKind::TakenUp, ""),
        outcome(v1::OutcomeKind::AttemptFailed, ""),
        outcome(v1::OutcomeKind::Delivered, ""),
        outcome(v1::OutcomeKind::Undelivered, "exhausted"),
        outcome(v1::OutcomeKind::Expired, "expired"),
        outcome(v1::OutcomeKind::Cancelled, "cancelled"),
        outcome(v1::OutcomeKind::Superseded, "superseded"),
        outcome(v1::OutcomeKind::Joined, ""),
        outcome(v1::OutcomeKind::Duplicate, ""),
        outcome(v1::OutcomeKind::ResendAsked, ""),
    ];
    let batch = |took, writer: v1::Writer, outcomes| v1::OutcomeBatch {
        slot: 127,
        took,
        writer: writer.into(),
        outcomes,
    };
    known.check("outcomes-sender-1", &batch(Some(0), v1::Writer::Sender, outcomes));
    let bare = v1::Outcome {
        partition: None,
        offset: None,
        snippet: None,
        ..outcome(v1::OutcomeKind::Cancelled, "cancelled")
    };
    known.check("outcomes-router-1", &batch(None, v1::Writer::Router, vec![bare.clone()]));
    known.check("outcomes-api-1", &batch(None, v1::Writer::Api, vec![bare]));
}

fn slots(known: &mut Golden) {
    let entry = v1::OpenEntry {
        offset: 12,
        notification: id(2),
        run: id(3),
        attempts: 4,
        ladder_step: 3,
        first_attempt: 1_767_225_400_000,
        first_failure: 1_767_225_500_000,
        due: 1_767_225_700_000,
        number: 77,
        lane: v1::Lane::Urgent.into(),
        queue: id(6),
        state: id(7),
    };
    let checkpoint = v1::Checkpoint {
        webhook: id(1),
        partition: 1,
        next: 13,
        open: vec![entry.clone()],
        folded: vec![v1::FoldedEntry { entry: Some(entry), ended: true }],
        standard_number: 500,
        urgent_number: 77,
        failing_since: 1_767_225_500_000,
        gone: vec![1_767_225_500_001, 1_767_225_500_002],
        last_notification: id(2),
        last_run: id(3),
        part: 1,
        parts: 2,
        cut: 9,
        failed: vec![id(2), id(4)],
        paused_until: 1_767_225_800_000,
        alarm: Some(v1::Alarm {
            since: 1_767_225_500_000,
            raised: 1_767_225_500_001,
            suspended: 1_767_225_500_002,
            untold: vec![v1::Notice {
                kind: text("suspended"),
                since: 1_767_225_500_000,
                at: 1_767_225_500_002,
                code: text("HTTP_503"),
                reason: text("failing"),
            }],
        }),
        // As written before lanes had pauses of their own.
        standard_paused_until: 0,
        urgent_paused_until: 0,
    };
    let lanes = v1::Checkpoint {
        standard_paused_until: 1_767_225_900_000,
        urgent_paused_until: 1_767_225_800_000,
        ..checkpoint.clone()
    };
    let mark = v1::Mark { outcomes_next: 99, time: 1_767_225_600_000 };
    let record = |kind| v1::SlotRecord { took: 41, kind: Some(kind) };
    known.check("slot-took-1", &record(v1::slot_record::Kind::TookOver(took())));
    known.check("slot-checkpoint-1", &record(v1::slot_record::Kind::Checkpoint(checkpoint)));
    known.check("slot-checkpoint-2", &record(v1::slot_record::Kind::Checkpoint(lanes)));
    known.check("slot-mark-1", &record(v1::slot_record::Kind::Mark(mark)));
}

fn keys_and_quarantine(known: &mut Golden) {
    let key = v1::BucketKey {
        id: text("bucket/1767225600/0a"),
        expires: 1_767_247_200_000,
        wrapped: Some(sealed("k1/wrap")),
    };
    known.check("bucket-key-1", &key);
    let record = v1::QuarantineRecord {
        source: Some(source()),
        code: text("BAD_JSON"),
        field: text("payload.x"),
        time: 1_767_225_600_000,
        original: Some(sealed("k1/quarantine")),
        sha256: Bytes::from(vec![8; 32]),
        headers: vec![v1::HeaderEntry { name: text("traceparent"), value: bytes("00-") }],
        key: bytes("t1"),
        redrive_of: text(""),
    };
    known.check("quarantine-1", &record);
    known.check("quarantine-redrive-1", &v1::QuarantineRecord { redrive_of: text("17"), ..record });
}

fn registry(state: v1::registry_record::State) -> v1::RegistryRecord {
    v1::RegistryRecord {
        entity: text("webhook/00000000-0000-8000-8000-000000000001"),
        expected_version: 3,
        command_id: text("0a0b"),
        command_hash: Bytes::from(vec![4; 32]),
        claims: vec![text("scope/pm:20/345678"), text("code/TRD")],
        actor: text("tester"),
        time: 1_767_225_600_000,
        trace: text("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        state: Some(state),
    }
}

fn webhook(owner: v1::webhook::Owner) -> v1::Webhook {
    let secret = |number: &str, not_after| v1::SigningSecret {
        id: text(number),
        value: Some(sealed("k1/registry")),
        not_after,
        ed25519_seed: Some(sealed("k1/registry")),
    };
    v1::Webhook {
        id: id(1),
        owner: Some(owner),
        product: text("345678"),
        events: vec![text("101"), text("112")],
        status: text("suspended"),
        url: text("https://client_domain.com/webhook"),
        headers: vec![v1::CustomHeader {
            name: text("key 1"),
            value: Some(sealed("k1/registry")),
            secret: true,
        }],
        signing_secrets: vec![secret("1", 1_767_312_000_000), secret("2", 0)],
        settings: Some(v1::Settings {
            ordering: text("perKey"),
            stuck_key: text("supersede"),
            ladder: text("standard"),
            rate_limit_per_second: 10,
            max_in_flight: 64,
            timeout_ms: 15_000,
            signatures: vec![text("v1"), text("v1a")],
            strict_legacy_envelope: true,
        }),
        created: 1_767_225_600_000,
        modified: 1_767_225_600_001,
        label: text("a label"),
        basic: Some(v1::BasicAuth { username: text("u"), password: Some(sealed("k1/registry")) }),
        merchant_signature: Some(v1::MerchantSignature {
            kind: text("signatureKey"),
            source_key_id: text("src1"),
            signature_key: Some(sealed("k1/registry")),
        }),
        wire_names: true,
        endpoint_sign_in: bytes("sign-in"),
        tls_identity: bytes("identity"),
        partitions: 2,
        suspended_reason: text("failing"),
        suspended_at: 1_767_225_600_002,
        suspended_failing_since: 1_767_225_600_001,
        suspended_last_code: text("HTTP_503"),
    }
}

fn webhooks(known: &mut Golden) {
    let owners = [
        ("issuer", v1::webhook::Owner::Issuer(text("7001"))),
        ("manager", v1::webhook::Owner::ProgrammeManager(20)),
        ("merchant", v1::webhook::Owner::Merchant(text("m_9f2"))),
        ("operator", v1::webhook::Owner::Operator(true)),
    ];
    for (name, owner) in owners {
        let state = v1::registry_record::State::Webhook(webhook(owner));
        known.check(&format!("registry-webhook-{name}-1"), &registry(state));
    }
}

fn other_entities(known: &mut Golden) {
    use v1::registry_record::State;
    let configuration = |owner| v1::Configuration {
        id: text("5789653-20250602063331"),
        owner: Some(owner),
        pm: Some(0),
        product: text("345678"),
        active: true,
        filter: vec![0, 6],
        created: 1_767_225_600_000,
        modified: 1_767_225_600_001,
        status: text("active"),
    };
    let issuers = configuration(v1::configuration::Owner::Issuer(text("7001")));
    let managers = configuration(v1::configuration::Owner::ProgrammeManager(20));
    let states = [
        ("deleted", State::Deleted(v1::Deleted { topic_deleted: true, time: 1_767_225_600_000 })),
        ("issuer", State::Issuer(v1::Issuer { id: text("7001"), name: text("Issuer 7001") })),
        (
            "manager",
            State::ProgrammeManager(v1::ProgrammeManager {
                id: 20,
                code: text("TRD"),
                issuer: text("7001"),
                name: text("Trader"),
            }),
        ),
        ("product", State::Product(v1::Product { id: text("345678"), programme_manager: 20 })),
        (
            "merchant",
            State::Merchant(v1::Merchant {
                key: text("m_9f2"),
                programme_manager: 20,
                source_keys: vec![v1::SourceKey {
                    id: text("src1"),
                    value: Some(sealed("k1/registry")),
                }],
            }),
        ),
        ("configuration-issuer", State::Configuration(issuers)),
        ("configuration-manager", State::Configuration(managers)),
        (
            "deployment-keys",
            State::DeploymentKeys(v1::DeploymentKeys { id_key: Some(sealed("k1/registry")) }),
        ),
        (
            "command",
            State::Command(v1::Command {
                subject: text("7001\n20\ntester"),
                status: 201,
                answer: Some(sealed("k1/command")),
                runs: vec![v1::CommandRun { notification: id(2), run: id(3) }],
                done: true,
                expires: 1_767_312_000_000,
                headers: vec![v1::HeaderEntry { name: text("etag"), value: bytes("\"1\"") }],
            }),
        ),
    ];
    for (name, state) in states {
        known.check(&format!("registry-{name}-1"), &registry(state));
    }
}

/// Lines of 32 bytes each.
fn hex(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(32).map(|chunk| line(chunk) + "\n").collect()
}

fn unhex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}
