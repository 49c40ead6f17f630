//! The fold's rule, record by record.

use std::collections::BTreeMap;

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use tidings_proto::v1::{self, registry_record::State};
use tidings_registry::{EntityKey, Fold, Verdict};
use tidings_signing::KeyRing;
use tidings_types::Timestamp;

const DAY: i64 = 24 * 3600 * 1000;

fn record(entity: &str, expected_version: u64, claims: &[&str]) -> v1::RegistryRecord {
    v1::RegistryRecord {
        entity: entity.to_owned(),
        expected_version,
        claims: claims.iter().map(|name| (*name).to_owned()).collect(),
        state: Some(State::Issuer(v1::Issuer { id: entity.to_owned(), name: String::new() })),
        ..Default::default()
    }
}

struct Log {
    fold: Fold,
    ring: KeyRing,
    next: u64,
}

impl Log {
    fn new() -> Self {
        Self { fold: Fold::default(), ring: KeyRing::generate(&[7; 32]), next: 0 }
    }

    fn at(&mut self, millis: i64, record: &v1::RegistryRecord) -> Verdict {
        let offset = self.next;
        self.next += 1;
        let time = Timestamp::from_millis(millis);
        let _unreadable = self.fold.apply(offset, time, record, &self.ring);
        self.fold.verdict(offset).unwrap().clone()
    }

    fn add(&mut self, record: &v1::RegistryRecord) -> Verdict {
        self.at(0, record)
    }
}

fn accepted(version: u64) -> Verdict {
    Verdict::Accepted { version }
}

fn claimed(name: &str, by: &str) -> Verdict {
    Verdict::Claimed { name: name.to_owned(), by: EntityKey(by.into()) }
}

#[test]
fn a_record_is_accepted_at_the_version_that_it_expects_and_no_other() {
    let mut log = Log::new();
    assert_eq!(log.add(&record("a", 1, &[])), Verdict::Conflict { current: 0 });
    assert_eq!(log.add(&record("a", 0, &[])), accepted(1));
    assert_eq!(log.add(&record("a", 0, &[])), Verdict::Conflict { current: 1 });
    assert_eq!(log.add(&record("a", 1, &[])), accepted(2));
    assert_eq!(log.add(&record("a", 1, &[])), Verdict::Conflict { current: 2 });
    assert_eq!(log.add(&record("b", 0, &[])), accepted(1));
    assert_eq!(log.fold.snapshot().version, 6);
}

#[test]
fn a_name_belongs_to_one_entity_until_it_lets_go() {
    let mut log = Log::new();
    assert_eq!(log.add(&record("a", 0, &["x", "y"])), accepted(1));
    assert_eq!(log.add(&record("b", 0, &["z", "y"])), claimed("y", "a"));
    assert_eq!(log.fold.snapshot().claimed_by("z"), None, "nothing of a refused record counts");
    assert_eq!(log.add(&record("a", 1, &["y"])), accepted(2));
    assert_eq!(log.add(&record("b", 0, &["x"])), accepted(1));
    let gone = v1::RegistryRecord {
        state: Some(State::Deleted(v1::Deleted::default())),
        ..record("a", 2, &[])
    };
    assert_eq!(log.add(&gone), accepted(3));
    assert_eq!(log.add(&record("b", 1, &["x", "y"])), accepted(2));
    // A deleted entity keeps counting, so an old writer never hits by chance.
    assert_eq!(log.add(&record("a", 0, &[])), Verdict::Conflict { current: 3 });
    assert_eq!(log.add(&record("a", 3, &[])), accepted(4));
}

#[test]
fn a_repeated_command_gets_the_first_ones_answer_for_a_day() {
    let mut log = Log::new();
    let command = |entity: &str, expected, hash: &'static [u8]| v1::RegistryRecord {
        command_id: "c".to_owned(),
        command_hash: hash.into(),
        ..record(entity, expected, &[])
    };
    let repeated = |same_body| Verdict::Repeated { entity: EntityKey("a".into()), same_body };
    assert_eq!(log.at(0, &command("a", 7, b"1")), Verdict::Conflict { current: 0 });
    assert_eq!(log.at(0, &command("a", 0, b"1")), accepted(1), "a refused command may come again");
    assert_eq!(log.at(1, &command("b", 0, b"1")), repeated(true));
    assert_eq!(log.at(1, &command("b", 0, b"2")), repeated(false));
    assert_eq!(log.at(DAY - 1, &command("b", 0, b"1")), repeated(true));
    // A clock that goes back brings nothing back.
    assert_eq!(log.at(DAY, &record("z", 0, &[])), accepted(1));
    assert_eq!(log.at(5, &command("b", 0, b"1")), accepted(1));
}

#[test]
fn a_kept_answer_is_forgotten_after_a_day_with_all_that_it_holds() {
    let mut log = Log::new();
    let answer = |expected| v1::RegistryRecord {
        state: Some(State::Command(v1::Command::default())),
        ..record("command/c", expected, &["n"])
    };
    let version = |log: &Log| log.fold.snapshot().entity_version(&EntityKey::new("command", "c"));
    assert_eq!(log.at(0, &answer(0)), accepted(1));
    assert_eq!(log.at(DAY - 1, &answer(1)), accepted(2));
    assert_eq!(version(&log), 2);
    assert_eq!(log.at(DAY, &record("a", 0, &["n"])), accepted(1));
    assert_eq!(version(&log), 0);
    assert!(log.fold.snapshot().commands.is_empty());
    assert_eq!(log.at(DAY, &answer(2)), Verdict::Conflict { current: 0 });
}

#[test]
fn the_kinds_of_a_later_release_count_versions_and_names() {
    let mut log = Log::new();
    let later =
        |expected| v1::RegistryRecord { state: None, ..record("later/1", expected, &["n"]) };
    assert_eq!(log.add(&later(0)), accepted(1));
    assert_eq!(log.add(&record("a", 0, &["n"])), claimed("n", "later/1"));
    assert_eq!(log.add(&later(1)), accepted(2));
}

#[test]
fn what_cannot_be_read_keeps_its_former_state_and_is_named() {
    let mut log = Log::new();
    let pm = |expected, state| v1::RegistryRecord {
        state: Some(state),
        ..record("merchant/m", expected, &["n"])
    };
    let key = v1::SourceKey { id: "k".to_owned(), value: None };
    let good = v1::Merchant { key: "m".to_owned(), programme_manager: 20, source_keys: vec![] };
    let bad = v1::Merchant { source_keys: vec![key], programme_manager: 21, ..good.clone() };
    assert_eq!(log.add(&pm(0, State::Merchant(good.clone()))), accepted(1));
    assert_eq!(log.add(&pm(1, State::Merchant(bad))), accepted(2));
    assert_eq!(log.fold.snapshot().unreadable().len(), 1);
    let merchants = |log: &Log| {
        let merchants = log.fold.snapshot().merchants.values();
        merchants.map(|merchant| merchant.programme_manager.0).collect::<Vec<_>>()
    };
    assert_eq!(merchants(&log), [20]);
    assert_eq!(log.add(&record("b", 0, &["n"])), claimed("n", "merchant/m"));
    assert_eq!(log.add(&pm(2, State::Merchant(good))), accepted(3));
    assert!(log.fold.snapshot().unreadable().is_empty());
}

fn any_record() -> impl Strategy<Value = (i64, v1::RegistryRecord)> {
    let state = prop_oneof![
        Just(None),
        Just(Some(State::Deleted(v1::Deleted::default()))),
        Just(Some(State::Issuer(v1::Issuer::default()))),
        // Its key is missing: cannot be read.
        Just(Some(State::DeploymentKeys(v1::DeploymentKeys::default()))),
        Just(Some(State::Command(v1::Command::default()))),
    ];
    let entity = prop_oneof![Just("a"), Just("b"), Just("command/c"), Just("command/d")];
    let claims = proptest::collection::vec(prop_oneof![Just("x"), Just("y"), Just("z")], 0..3);
    let command = prop_oneof![3 => Just(""), 1 => Just("c1"), 1 => Just("c2")];
    (0..3 * DAY, entity, 0..4_u64, claims, command, any::<bool>(), state).prop_map(
        |(time, entity, expected, claims, command, hash, state)| {
            let record = v1::RegistryRecord {
                command_id: command.to_owned(),
                command_hash: if hash { b"1".as_slice().into() } else { b"2".as_slice().into() },
                state,
                ..record(entity, expected, &claims)
            };
            (time, record)
        },
    )
}

proptest! {
    /// Readers with other keys, or that know less, come to the same verdicts, and
    /// a name never has two holders.
    #[test]
    fn every_reader_comes_to_the_same_verdicts(
        records in proptest::collection::vec(any_record(), 0..60),
    ) {
        let (mut one, mut two) = (Log::new(), Log::new());
        two.ring = KeyRing::generate(&[8; 32]);
        let mut holders: BTreeMap<String, String> = BTreeMap::new();
        for (time, record) in &records {
            let verdict = one.at(*time, record);
            let mut blind = record.clone();
            blind.state = None;
            prop_assert_eq!(&verdict, &two.at(*time, &blind));
            if matches!(verdict, Verdict::Accepted { .. }) {
                for name in &record.claims {
                    let holder = one.fold.snapshot().claimed_by(name);
                    prop_assert_eq!(holder.map(EntityKey::as_str), Some(record.entity.as_str()));
                }
                holders.retain(|_, holder| *holder != record.entity);
                holders.extend(record.claims.iter().map(|name| (name.clone(), record.entity.clone())));
            }
            for name in ["x", "y", "z"] {
                // Held by whom the model says, or by nobody once a command's time is over.
                if let Some(holder) = one.fold.snapshot().claimed_by(name) {
                    prop_assert!(holders.get(name).is_some_and(|model| model == holder.as_str()));
                }
            }
        }
        prop_assert_eq!(one.fold.snapshot().version, u64::try_from(records.len()).unwrap());
    }
}
