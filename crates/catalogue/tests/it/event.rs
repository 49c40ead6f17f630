//! Which events are taken and which are refused, with code and field.

use std::time::Duration;

use proptest::prelude::*;
use tidings_catalogue::{
    Catalogue, Identity, MAX_ID, MAX_PAYLOAD, MAX_RECORD, Tenant, decode, header_id, write_uid,
};
use tidings_types::{QuarantineCode, Timestamp};

use super::{NOW, PAYLOAD_101, eds, judge};

fn with_context(members: &str) -> String {
    format!(
        r#"{{"context":{{"programManagerId":20,"eventCode":101{members}}},"payload":{PAYLOAD_101}}}"#
    )
}

/// A 101 whose payload has one more member.
fn with_extra(member: &str) -> String {
    eds(101, &PAYLOAD_101.replacen('{', &format!("{{{member},"), 1))
}

#[test]
fn p1_to_p3_what_cannot_be_read_is_refused_by_kind() {
    for topic in [Some("101"), None] {
        assert_eq!(judge(topic, "{"), "BAD_JSON");
        assert_eq!(judge(topic, "hello"), "BAD_JSON");
        assert_eq!(judge(topic, "[]"), "BAD_JSON");
        assert_eq!(judge(topic, "  "), "BAD_JSON");
        let good = eds(101, PAYLOAD_101);
        assert_eq!(judge(topic, good.trim_end_matches('}')), "BAD_JSON");
        assert_eq!(judge(topic, format!("{good}x")), "BAD_JSON");
        assert_eq!(judge(topic, format!("{good}{good}")), "BAD_JSON");
        assert_eq!(judge(topic, format!("\u{feff}{good}")), "BAD_JSON");
        assert_eq!(judge(topic, format!("{good}\n")), "ok 101");
        // Escapes leave as they came, also those that name no character.
        assert_eq!(judge(topic, with_extra(r#""x":"\ud800""#)), "ok 101");
        assert_eq!(judge(topic, with_extra(r#""x":"\ud80""#)), "BAD_JSON");
        assert_eq!(judge(topic, with_extra(r#""x":"\u0000""#)), "ok 101");
        assert_eq!(judge(topic, with_extra("\"x\":\"\0\"")), "BAD_JSON");
        let mut broken = with_extra(r#""x":"?""#).into_bytes();
        let at = broken.iter().position(|byte| *byte == b'?').unwrap();
        broken[at] = 0xFF;
        assert_eq!(judge(topic, broken), "BAD_UTF8");
    }
    assert_eq!(judge(Some("101"), ""), "EMPTY");
    assert_eq!(judge(Some("101"), "null"), "EMPTY");
    assert_eq!(judge(None, ""), "BAD_JSON", "records only are EMPTY");
    assert_eq!(judge(None, "null"), "BAD_JSON");
}

#[test]
fn p4_a_code_must_be_known_and_that_of_its_topic() {
    let code = |code: &str| {
        format!(
            r#"{{"context":{{"programManagerId":20,"eventCode":{code}}},"payload":{PAYLOAD_101}}}"#
        )
    };
    for (text, expected) in [
        ("101", "ok 101"),
        ("\"101\"", "BAD_FIELD context.eventCode"),
        ("101.0", "BAD_FIELD context.eventCode"),
        ("1e2", "BAD_FIELD context.eventCode"),
        ("null", "BAD_FIELD context.eventCode"),
        ("0", "UNKNOWN_CODE context.eventCode"),
        ("-1", "UNKNOWN_CODE context.eventCode"),
        ("1099511627776", "UNKNOWN_CODE context.eventCode"),
        ("113", "UNKNOWN_CODE context.eventCode"),
    ] {
        assert_eq!(judge(Some("101"), code(text)), expected, "{text}");
        assert_eq!(judge(None, code(text)), expected, "{text}");
    }
    assert_eq!(judge(Some("103"), code("101")), "BAD_FIELD context.eventCode");
    assert_eq!(judge(Some("118"), code("101")), "UNKNOWN_CODE");
}

#[test]
fn p5_missing_null_and_mistyped_fields_are_named() {
    let without = |name: &str| {
        let rest: Vec<String> = PAYLOAD_101
            .trim_matches(['{', '}'])
            .split(',')
            .filter(|member| !member.starts_with(&format!("\"{name}\"")))
            .map(str::to_owned)
            .collect();
        eds(101, &format!("{{{}}}", rest.join(",")))
    };
    for name in [
        "fraudAlertId",
        "transactionId",
        "tokenId",
        "transactionAmount",
        "currency",
        "dateTime",
        "notificationMessageContent",
    ] {
        assert_eq!(judge(None, without(name)), format!("BAD_FIELD payload.{name}"));
    }
    for (member, field) in [
        (r#""mcc":null"#, "payload.mcc"),
        (r#""mcc":4567"#, "payload.mcc"),
        (r#""productId":1.0"#, "payload.productId"),
        (r#""productId":true"#, "payload.productId"),
    ] {
        assert_eq!(judge(None, with_extra(member)), format!("BAD_FIELD {field}"));
    }
    assert_eq!(judge(None, with_extra(r#""productId":"123""#)), "ok 101");
    // An alert that nobody could name in an answer.
    let alert = |id: &str| {
        eds(101, &PAYLOAD_101.replace(r#""fraudAlertId":"a""#, &format!("\"fraudAlertId\":{id}")))
    };
    let (longest, longer) = ("a".repeat(64), "a".repeat(65));
    for good in ["7", r#""60b83k64-1""#, r#""\u0061""#, &format!("\"{longest}\"")] {
        assert_eq!(judge(None, alert(good)), "ok 101", "{good}");
    }
    for bad in [r#""""#, r#""a_b""#, r#""a b""#, r#""ä""#, &format!("\"{longer}\"")] {
        for topic in [None, Some("101")] {
            assert_eq!(judge(topic, alert(bad)), "BAD_FIELD payload.fraudAlertId", "{bad}");
        }
    }
    for (text, field) in [
        (r#"{}"#, "context"),
        (r#"{"context":1}"#, "context"),
        (r#"{"context":{}}"#, "context.eventCode"),
        (r#"{"context":{"eventCode":101}}"#, "context.programManagerId"),
        (r#"{"context":{"eventCode":101,"programManagerId":"20"}}"#, "context.programManagerId"),
        (
            r#"{"context":{"eventCode":101,"programManagerId":99999999999999999999}}"#,
            "context.programManagerId",
        ),
        (r#"{"context":{"eventCode":101,"programManagerId":20}}"#, "payload"),
        (r#"{"context":{"eventCode":101,"programManagerId":20},"payload":[]}"#, "payload"),
        (
            r#"{"context":{"eventCode":101,"programManagerId":20},"messageHeaders":1}"#,
            "messageHeaders",
        ),
    ] {
        assert_eq!(judge(None, text), format!("BAD_FIELD {field}"), "{text}");
    }
    for (members, expected) in [
        (r#","eventVersion":"v1""#, "ok 101"),
        (r#","eventVersion":"v2""#, "BAD_FIELD context.eventVersion"),
        (r#","eventVersion":1"#, "BAD_FIELD context.eventVersion"),
        (r#","notificationTime":5"#, "BAD_FIELD context.notificationTime"),
        (r#","notificationTime":"yesterday""#, "ok 101"),
        (r#","productId":{}"#, "BAD_FIELD context.productId"),
        (r#","productId":"p-1""#, "ok 101"),
        (r#","correlationId":17"#, "ok 101"),
        (r#","correlationId":"""#, "BAD_FIELD context.correlationId"),
        (r#","correlationId":null"#, "BAD_FIELD context.correlationId"),
    ] {
        assert_eq!(judge(None, with_context(members)), expected, "{members}");
    }
    let long = "x".repeat(MAX_ID + 1);
    let text = with_context(&format!(r#","correlationId":"{long}""#));
    assert_eq!(judge(None, text), "BAD_FIELD context.correlationId");
}

#[test]
fn p5_fields_that_may_be_null_may_be_null_and_nested_ones_are_checked() {
    assert_eq!(judge(None, eds(115, r#"{"AlertId":"a","AlertTime":null}"#)), "ok 115");
    assert_eq!(
        judge(None, eds(115, r#"{"AlertId":"a","EventTime":null}"#)),
        "BAD_FIELD payload.EventTime"
    );
    assert_eq!(judge(None, eds(117, r#"{"event_type":"done","event_trigger":null}"#)), "ok 117");
    let event = |rest: &str| eds(111, &format!(r#"{{"eventType":"F","transaction":{{}}{rest}}}"#));
    assert_eq!(judge(None, event("")), "ok 111");
    assert_eq!(
        judge(None, event(r#","challenges":[{"ttl":1},{"ttl":"1"}]"#)),
        "BAD_FIELD payload.challenges[1].ttl"
    );
    assert_eq!(judge(None, event(r#","card":{"tags":[]}"#)), "BAD_FIELD payload.card.tags");
    assert_eq!(judge(None, eds(105, "{}")), "ok 105", "nothing is marked as mandatory");
}

#[test]
fn p6_unknown_members_pass_and_are_counted() {
    let catalogue = Catalogue::builtin();
    let text = with_extra(r#""new":{"a":[1]},"newer":null"#);
    let event = decode(&catalogue, None, text.as_bytes()).unwrap();
    assert_eq!(event.unknown_fields(), 2);
    let text = text.replacen('{', r#"{"trace":{"x":1},"#, 1);
    assert_eq!(judge(None, text), "ok 101");
}

#[test]
fn p7_nesting_is_limited() {
    for (depth, expected) in
        [(30, "ok 101"), (31, "TOO_DEEP"), (64, "TOO_DEEP"), (400_000, "TOO_DEEP")]
    {
        let nested = format!("\"x\":{}{}", "[".repeat(depth), "]".repeat(depth));
        let verdict = judge(None, with_extra(&nested));
        assert!(verdict.starts_with(expected), "{depth}: {verdict:.60}");
    }
}

#[test]
fn p8_and_p18_sizes_are_limited() {
    let filled = |length: usize| {
        let payload = PAYLOAD_101.replacen('{', r#"{"pad":"","#, 1);
        let fill = "x".repeat(length - payload.len());
        eds(101, &payload.replacen(r#""pad":"""#, &format!(r#""pad":"{fill}""#), 1))
    };
    assert_eq!(judge(None, filled(MAX_PAYLOAD)), "ok 101");
    assert_eq!(judge(None, filled(MAX_PAYLOAD + 1)), "TOO_LARGE payload");
    let good = eds(101, PAYLOAD_101);
    let padded = |length: usize| format!("{good}{}", " ".repeat(length - good.len()));
    assert_eq!(judge(None, padded(MAX_RECORD)), "ok 101");
    assert_eq!(judge(None, padded(MAX_RECORD + 1)), "TOO_LARGE payload");
    assert_eq!(judge(Some("101"), " ".repeat(10 << 20)), "TOO_LARGE payload");
    let elements = vec!["0"; 100_000].join(",");
    let many =
        eds(117, &format!(r#"{{"event_type":"added","payload":{{"accounts":[{elements}]}}}}"#));
    assert!(many.len() < MAX_PAYLOAD);
    assert_eq!(judge(None, many), "TOO_LARGE payload");
}

#[test]
fn p10_repeated_members_are_refused_with_their_path() {
    assert_eq!(judge(None, with_extra(r#""mcc":"1","\u006dcc":"1""#)), "DUPLICATE_KEY payload.mcc");
    assert_eq!(judge(None, with_context(r#","eventCode":101"#)), "DUPLICATE_KEY context.eventCode");
    assert_eq!(judge(None, r#"{"context":{},"context":{}}"#), "DUPLICATE_KEY context");
}

#[test]
fn p12_card_secrets_are_not_taken_wherever_they_stand() {
    for (member, field) in [
        (r#""pan":"5168563000002547""#, "payload.pan"),
        (r#""PAN":5168"#, "payload.PAN"),
        (r#""x":[{"Cvv2":"123"}]"#, "payload.x[0].Cvv2"),
        (r#""pinBlock":"0F1E""#, "payload.pinBlock"),
        (r#""PINBLOCK":{"value":"12"}"#, "payload.PINBLOCK"),
        (r#""track1":["1"]"#, "payload.track1"),
        (r#""track2":"\u0031""#, "payload.track2"),
        (r#""\u0063vv":"123""#, "payload.cvv"),
        (r#""pin":0"#, "payload.pin"),
    ] {
        assert_eq!(judge(None, with_extra(member)), format!("FORBIDDEN_DATA {field}"));
    }
    assert_eq!(judge(None, with_context(r#","cvv":"1""#)), "FORBIDDEN_DATA context.cvv");
    for member in [r#""pan":"none""#, r#""pin":null"#, r#""span":"1""#, r#""pan_":"1""#] {
        assert_eq!(judge(None, with_extra(member)), "ok 101", "{member}");
    }
}

#[test]
fn p15_the_header_is_one_short_text() {
    let one = |value: &'static [u8]| header_id([value]).map_err(|it| it.code);
    assert_eq!(one(b"abc"), Ok(Some("abc")));
    assert_eq!(header_id([]), Ok(None));
    assert_eq!(one(b""), Err(QuarantineCode::BadHeader));
    assert_eq!(one(b"\xff"), Err(QuarantineCode::BadHeader));
    assert_eq!(one(&[b'x'; MAX_ID + 1]), Err(QuarantineCode::BadHeader));
    let twice = header_id([&b"a"[..], b"a"]).unwrap_err();
    assert_eq!(twice.code, QuarantineCode::BadHeader);
}

#[test]
fn a_merchant_event_names_its_merchant_and_its_type() {
    let event = |kind: &str, body: &str| format!(r#"{{"event_type":{kind},"event_body":{body}}}"#);
    let body = r#"{"merchant":{"merch_key":"m_9f2"},"object":{"key":"k"}}"#;
    let sale = "transaction.sale.success";
    assert_eq!(judge(None, event(r#""transaction.sale.success""#, body)), format!("ok {sale}"));
    assert_eq!(
        judge(Some(sale), event(r#""transaction.sale.success""#, body)),
        format!("ok {sale}")
    );
    assert_eq!(judge(None, event(r#""cardupdate.submitted""#, body)), "ok cau.submitted");
    assert_eq!(
        judge(Some("cau.submitted"), event(r#""cardupdate.submitted""#, body)),
        "ok cau.submitted"
    );
    assert_eq!(judge(Some(sale), event(r#""cau.submitted""#, body)), "BAD_FIELD event_type");
    for (kind, expected) in [
        (r#""transaction.sale.nice""#, "UNKNOWN_CODE event_type"),
        (r#""101""#, "UNKNOWN_CODE event_type"),
        (r#""webhook.failing""#, "UNKNOWN_CODE event_type"),
        ("101", "BAD_FIELD event_type"),
    ] {
        assert_eq!(judge(None, event(kind, body)), expected, "{kind}");
        assert_eq!(judge(Some(sale), event(kind, body)), expected, "{kind}");
    }
    for (body, field) in [
        ("{}", "event_body.merchant"),
        (r#"{"merchant":{}}"#, "event_body.merchant.merch_key"),
        (r#"{"merchant":{"merch_key":""}}"#, "event_body.merchant.merch_key"),
        (r#"{"merchant":{"merch_key":"m"}}"#, "event_body.object"),
        (r#"{"merchant":{"merch_key":"m"},"object":{"avs":1}}"#, "event_body.object.avs"),
        ("1", "event_body"),
    ] {
        let text = event(r#""transaction.sale.success""#, body);
        assert_eq!(judge(None, text), format!("BAD_FIELD {field}"), "{body}");
    }
    let text = event(r#""transaction.sale.success","type":"thing""#, body);
    assert_eq!(judge(None, text), "BAD_FIELD type");
    let untyped = format!(r#"{{"type":"event","event_body":{body}}}"#);
    assert_eq!(judge(None, untyped), "BAD_FIELD event_type");
    let ops = event(r#""webhook.failing""#, r#"{"object":{"key":"w"}}"#);
    assert_eq!(judge(Some("ops"), &ops), "ok webhook.failing");
    assert_eq!(judge(Some("ops"), eds(101, PAYLOAD_101)), "BAD_FIELD event_type");
}

#[test]
fn a_number_and_a_string_are_one_key_and_one_product() {
    let catalogue = Catalogue::builtin();
    let facts = |token: &str, product: &str, context: &str| {
        let text = with_extra(&format!(r#""productId":{product}"#))
            .replace(r#""tokenId":2"#, &format!(r#""tokenId":{token}"#))
            .replace(r#""eventCode":101"#, &format!(r#""eventCode":101{context}"#));
        let event = decode(&catalogue, None, text.as_bytes()).unwrap();
        let key = event.order_key().map(std::borrow::Cow::into_owned);
        (key, event.product().map(ToString::to_string))
    };
    let expected = (Some("545454121".to_owned()), Some("123".to_owned()));
    assert_eq!(facts("545454121", "123", ""), expected);
    assert_eq!(facts(r#""545454121""#, r#""123""#, ""), expected);
    assert_eq!(facts(r#""\u003545454121""#, "9", r#","productId":123"#), expected);
    assert_eq!(facts(r#""""#, r#""""#, ""), (None, None), "an empty text is no key");
    let event = eds(105, "{}");
    assert_eq!(decode(&catalogue, None, event.as_bytes()).unwrap().order_key(), None);
}

#[test]
fn a_one_time_code_ends_when_it_says_or_after_a_quarter_of_an_hour() {
    let catalogue = Catalogue::builtin();
    let event = |context: &str, payload: &str| {
        format!(
            r#"{{"context":{{"programManagerId":20,"eventCode":107{context}}},"payload":{{"publicToken":1,"otpValue":"1"{payload}}}}}"#
        )
    };
    let deadline = |context: &str, payload: &str| {
        let text = event(context, payload);
        let decoded = decode(&catalogue, None, text.as_bytes()).map(|it| it.deadline(NOW));
        decoded.map(|time| time.unwrap()).map_err(|refusal| refusal.field.unwrap())
    };
    let minutes = |count: u64| Duration::from_secs(count * 60);
    let at_noon = Timestamp::from_secs(1_730_203_200);
    let noon = r#","notificationTime":"2024-10-29T12:00:00Z""#;
    let at_one = r#","otpExpirationDate":"2024-10-29 13:00:00.000""#;
    assert_eq!(deadline(noon, at_one), Ok(at_noon + minutes(60)));
    assert_eq!(deadline("", at_one), Ok(at_noon + minutes(60)));
    assert_eq!(deadline(noon, ""), Ok(at_noon + minutes(15)));
    assert_eq!(deadline("", ""), Ok(NOW + minutes(15)));
    let bad = "payload.otpExpirationDate".to_owned();
    assert_eq!(deadline(noon, r#","otpExpirationDate":"soon""#), Err(bad.clone()));
    assert_eq!(deadline(noon, r#","otpExpirationDate":null"#), Err(bad));
    let unreadable = r#","notificationTime":"noon""#;
    assert_eq!(deadline(unreadable, ""), Err("context.notificationTime".to_owned()));
    assert_eq!(deadline(unreadable, at_one), Ok(at_noon + minutes(60)));
    let other = eds(101, PAYLOAD_101);
    assert_eq!(decode(&catalogue, None, other.as_bytes()).unwrap().deadline(NOW), None);
}

fn uid_bytes(text: &str, identity: Identity<'_>) -> Vec<u8> {
    let catalogue = Catalogue::builtin();
    let event = decode(&catalogue, None, text.as_bytes()).expect("a valid event");
    let mut bytes = Vec::new();
    write_uid(&event, identity, |part| bytes.extend_from_slice(part));
    bytes
}

#[test]
fn the_uid_is_of_tenant_type_id_and_payload_alone() {
    let id = Identity::Producer("7");
    let source = |offset| Identity::Source { epoch: 0, topic: "t", partition: 1, offset };
    let first = uid_bytes(&eds(101, PAYLOAD_101), id);
    let later = with_context(r#","notificationTime":"2024-10-29T12:00:00Z","eventVersion":"v1""#);
    assert_eq!(uid_bytes(&later, id), first, "the same event published again");
    let others = [
        uid_bytes(&eds(101, PAYLOAD_101), Identity::Producer("8")),
        uid_bytes(&eds(101, PAYLOAD_101), source(7)),
        uid_bytes(&eds(101, PAYLOAD_101), source(8)),
        uid_bytes(&eds(101, PAYLOAD_101).replace(":20,", ":21,"), id),
        uid_bytes(&eds(101, &PAYLOAD_101.replace("USD", "EUR")), id),
        uid_bytes(&eds(101, &PAYLOAD_101.replacen('{', "{ ", 1)), id),
    ];
    for (index, other) in others.iter().enumerate() {
        assert_ne!(*other, first, "{index}");
        assert!(others[..index].iter().all(|earlier| earlier != other), "{index}");
    }
}

#[test]
fn tenants_are_read_as_they_are_written() {
    for text in ["pm:20", "pm:-1", "m:m_9f2", "m:", "ops"] {
        assert_eq!(Tenant::from_text(text).unwrap().to_string(), text);
    }
    for text in ["", "pm:", "pm:x", "x:1", "20"] {
        assert_eq!(Tenant::from_text(text), None);
    }
}

#[test]
fn nothing_prints_what_an_event_holds() {
    let catalogue = Catalogue::builtin();
    let text = with_extra(r#""secret":"4111111111111111""#);
    let event = decode(&catalogue, None, text.as_bytes()).unwrap();
    assert_eq!(format!("{event:?}"), format!("Event(101, pm:20, {} bytes)", text.len()));
    let refused = with_extra(r#""4111111111111111":{"pan":"4111111111111111"}"#);
    let refusal = decode(&catalogue, None, refused.as_bytes()).unwrap_err();
    assert_eq!(refusal.field.as_deref(), Some("payload.*.pan"));
    assert!(!format!("{refusal} {refusal:?}").contains("4111"));
}

proptest! {
    #[test]
    fn damaged_samples_never_panic(
        kind in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let catalogue = Catalogue::builtin();
        let kinds: Vec<_> = catalogue.types().collect();
        let kind = kinds[kind.index(kinds.len())];
        let mut sample = kind.sample(NOW, 1, 20, "m");
        let at = at.index(sample.len());
        sample[at] = byte;
        if let Ok(event) = decode(&catalogue, None, &sample) {
            prop_assert_eq!(event.text().as_bytes(), &sample[..]);
        }
    }
}
