//! The catalogue: every type, its sample, and a type added from a file only.

use std::collections::BTreeSet;

use tidings_catalogue::{Catalogue, Surface, decode};
use tidings_types::Lane;

use super::NOW;

const EDS: [&str; 14] = [
    "101", "102", "103", "104", "105", "106", "107", "108", "109", "110", "111", "112", "115",
    "117",
];

#[test]
fn all_types_of_the_documents_are_there_and_no_other() {
    let catalogue = Catalogue::builtin();
    let names = |surface| -> Vec<&str> {
        catalogue.types().filter(|it| it.surface() == surface).map(|it| it.name()).collect()
    };
    assert_eq!(names(Surface::Eds), EDS);
    assert_eq!(
        names(Surface::Ops),
        [
            "webhook.certificate-expiring",
            "webhook.failing",
            "webhook.recovered",
            "webhook.suspended"
        ]
    );
    let merchant: BTreeSet<&str> = names(Surface::Merchant).into_iter().collect();
    let expected: BTreeSet<&str> = "ach.failed ach.note_added ach.returned ach.settled \
        ach.submitted ach.voided cau.account_closed cau.contact_customer cau.created cau.submitted \
        cau.updated_card cau.updated_expiration product.inventory.adjusted \
        product.inventory.ordered settlement.batch.failure settlement.batch.success \
        transaction.refund.success transaction.refund.voided transaction.sale.adjusted \
        transaction.sale.captured transaction.sale.failure transaction.sale.queued \
        transaction.sale.success transaction.sale.unvoided transaction.sale.voided"
        .split_whitespace()
        .collect();
    assert_eq!(merchant, expected);
    assert_eq!(merchant.len(), 25);
}

#[test]
fn the_platform_treats_types_as_the_contract_says() {
    let catalogue = Catalogue::builtin();
    for kind in catalogue.types() {
        let name = kind.name();
        let urgent = ["101", "102", "105", "107", "115"].contains(&name) || kind.is_ops();
        assert_eq!(kind.lane() == Lane::Urgent, urgent, "{name}");
        assert_eq!(kind.is_state(), ["103", "109"].contains(&name), "{name}");
        assert_eq!(kind.deadline(), (name == "107").then_some("otpExpirationDate"), "{name}");
        assert_eq!(kind.ladder(), if kind.is_merchant() { "merchant" } else { "standard" });
        let partitions = if ["101", "103", "112"].contains(&name) { 12 } else { 3 };
        assert_eq!(kind.partitions(), partitions, "{name}");
        assert_eq!(kind.has_raw_envelope(), ["105", "117"].contains(&name), "{name}");
        assert_eq!(kind.needs_configuration(), name == "112", "{name}");
        let order_key = match name {
            "101" | "103" => "tokenId",
            "104" | "106" | "107" | "108" | "109" | "110" => "publicToken",
            "112" => "token",
            "102" => "fraudAlertId",
            "105" => "transactionId",
            "111" => "card.externalId",
            "115" => "CardId",
            "117" => "openbanking_customer_id",
            _ => "object.key",
        };
        assert_eq!(kind.order_key(), Some(order_key), "{name}");
        let topic = if kind.is_ops() { "ops" } else { name };
        assert_eq!(kind.topic().as_str(), format!("tidings.events.{topic}"));
    }
    assert_eq!(catalogue.get("101").unwrap().description(), "Fraud Alert");
    assert_eq!(catalogue.get("107").unwrap().ephemeral(), ["otpValue"]);
}

#[test]
fn types_are_found_by_code_name_and_other_name() {
    let catalogue = Catalogue::builtin();
    assert_eq!(catalogue.by_code(112).unwrap().code(), Some(112));
    for code in [0, -1, 113, 114, 116, 999, 1 << 40] {
        assert!(catalogue.by_code(code).is_none(), "{code}");
    }
    let alias = catalogue.get("cardupdate.submitted").unwrap();
    assert_eq!((alias.name(), alias.wire_name()), ("cau.submitted", Some("cardupdate.submitted")));
    assert_eq!(alias.code(), None);
}

#[test]
fn every_sample_is_a_valid_event_and_no_two_are_one() {
    let catalogue = Catalogue::builtin();
    let mut ids = BTreeSet::new();
    for kind in catalogue.types() {
        for seed in 0..3 {
            let sample = kind.sample(NOW, seed, 20, "m_\"9f2");
            assert_eq!(
                sample,
                kind.sample(NOW, seed, 20, "m_\"9f2"),
                "the same seed, the same event"
            );
            assert!(!sample.contains(&b'\n'));
            let topic = kind.topic();
            let topic = topic.as_str().strip_prefix("tidings.events.");
            let event = decode(&catalogue, topic, &sample).unwrap();
            assert_eq!(event.kind().name(), kind.name());
            assert_eq!(event.unknown_fields(), 0, "{}: {}", kind.name(), event.text());
            assert!(!event.text().contains("{{"), "{}", event.text());
            assert!(event.order_key().is_some(), "{}", kind.name());
            let tenant = match kind.surface() {
                Surface::Eds => "pm:20",
                Surface::Merchant => "m:m_\"9f2",
                Surface::Ops => "ops",
            };
            assert_eq!(event.tenant().to_string(), tenant);
            assert!(ids.insert(event.producer_id().unwrap().to_owned()));
            assert_eq!(event.notification_time().map(|time| time.as_secs()), Some(NOW.as_secs()));
        }
    }
}

#[test]
fn a_new_type_needs_a_file_and_no_code() {
    let file = r#"
        [[type]]
        name = "118"
        surface = "eds"
        description = "Loyalty"
        lane = "urgent"
        order_key = "card.id"
        fields = ["card.id id required", "points[].value number", "note string nullable"]
        sample = '{"card":{"id":"{{digits9:card}}"},"points":[{"value":1.5}],"note":null}'
    "#;
    let catalogue = Catalogue::builtin().with_file("loyalty.toml", file).unwrap();
    let kind = catalogue.by_code(118).unwrap();
    assert_eq!((kind.partitions(), kind.lane()), (3, Lane::Urgent));
    let sample = kind.sample(NOW, 1, 20, "");
    assert!(decode(&catalogue, Some("118"), &sample).is_ok());
    let judge = |payload: &str| {
        super::verdict(&decode(&catalogue, None, super::eds(118, payload).as_bytes()))
    };
    assert_eq!(judge(r#"{}"#), "ok 118", "the card itself is optional");
    assert_eq!(judge(r#"{"card":{}}"#), "BAD_FIELD payload.card.id");
    assert_eq!(
        judge(r#"{"points":[{"value":1},{"value":"1"}]}"#),
        "BAD_FIELD payload.points[1].value"
    );
    assert_eq!(judge(r#"{"points":[1]}"#), "BAD_FIELD payload.points[0]");
    assert_eq!(judge(r#"{"points":null}"#), "BAD_FIELD payload.points");
}

#[test]
fn a_wrong_file_is_refused_with_what_is_wrong() {
    let refused =
        |text: &str| Catalogue::builtin().with_file("x.toml", text).unwrap_err().to_string();
    let with = |line: &str| {
        format!(
            "[[type]]\nname = \"118\"\nsurface = \"eds\"\ndescription = \"d\"\nsample = \"{{}}\"\n{line}"
        )
    };
    assert!(Catalogue::builtin().with_file("x.toml", &with("")).is_ok());
    for (text, part) in [
        ("name = 1", "unknown field"),
        (&with("colour = 1"), "unknown field `colour`"),
        (&with("fields = [\"a\"]"), "needs a path and a type"),
        (&with("fields = [\"a text\"]"), "unknown type `text`"),
        (&with("fields = [\"a string always\"]"), "unknown word `always`"),
        (&with("fields = [\"a..b string\"]"), "empty part"),
        (&with("order_key = \"a\""), "`fields` has no `a`"),
        (&with("partitions = 0"), "at least 1"),
        (&with("").replace("118", "101"), "type `101` exists already"),
        (&with("").replace("118", "99"), "`99` is no event code"),
        (&with("").replace("{}", "{"), "`sample` is no JSON"),
        (&with("").replace("description", "#"), "`description` is missing"),
    ] {
        let error = refused(text);
        assert!(error.contains(part) && error.contains("x.toml"), "{text}: {error}");
    }
}
