//! The delivered body, byte for byte.

use proptest::prelude::*;
use tidings_catalogue::{
    Catalogue, decode,
    json::{self, Document},
    render::{HOLE, Rendered, effective_shape, fill, render, render_redacted},
};
use tidings_types::Shape;

use super::{NOW, PAYLOAD_101, eds};

const ID: &[u8; HOLE] = b"f47ac10b-58cc-4372-a567-0e02b2c3d479";

fn rendered(text: &str, shape: Shape) -> Rendered {
    let catalogue = Catalogue::builtin();
    render(&decode(&catalogue, None, text.as_bytes()).expect("a valid event"), shape, NOW)
}

/// The body with its hole filled.
fn body(text: &str, shape: Shape) -> String {
    let Rendered { mut bytes, hole, .. } = rendered(text, shape);
    if let Some(hole) = hole {
        assert!(fill(&mut bytes, hole, ID));
    }
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn an_eds_body_is_a_new_context_and_the_payload_as_published() {
    let odd = PAYLOAD_101.replacen('{', "{ \"odd\" :\t[ -0, 1e400,\n\"\\u0000\\/é\" ] ,", 1);
    let text = format!(
        r#"{{ "payload" : {odd} , "x":1, "context":{{"notificationType":"T","creator":"C","custom" : {{ "a":1 }},"notificationTime":"2024-01-24T23:20:28.5Z","eventCode":101,"programManagerId":20,"productId":1,"correlationId":"c","notificationId":"mine","k\u0065y":null}}, "messageHeaders":{{}} }}"#
    );
    let expected = format!(
        r#"{{"context":{{"notificationId":"f47ac10b-58cc-4372-a567-0e02b2c3d479","eventCode":101,"eventVersion":"v1","notificationTime":"2024-01-24T23:20:28.5Z","custom":{{ "a":1 }},"k\u0065y":null}},"payload":{odd}}}"#
    );
    for shape in Shape::ALL {
        assert_eq!(body(&text, *shape), expected, "{shape}");
    }
    let made = rendered(&text, Shape::Plain);
    assert_eq!(&made.bytes[made.payload], odd.as_bytes());
}

#[test]
fn a_missing_time_is_the_routers_in_seconds() {
    let made = body(&eds(101, PAYLOAD_101), Shape::Plain);
    assert!(made.contains(r#""notificationTime":"2024-10-29T15:16:30Z"},"payload""#), "{made}");
}

#[test]
fn the_raw_envelope_keeps_manager_and_headers_and_drops_the_id_on_request() {
    let text = r#"{"context":{"programManagerId":16,"eventCode":105,"notificationTime":"t"},"payload":{"a":1},"messageHeaders":{"schemaId": 1}}"#;
    assert_eq!(
        body(text, Shape::Plain),
        r#"{"context":{"notificationId":"f47ac10b-58cc-4372-a567-0e02b2c3d479","eventCode":105,"eventVersion":"v1","notificationTime":"t","programManagerId":16},"messageHeaders":{"schemaId": 1},"payload":{"a":1}}"#
    );
    let strict = rendered(text, Shape::StrictLegacy);
    assert_eq!(strict.hole, None);
    assert_eq!(
        body(text, Shape::StrictLegacy),
        r#"{"context":{"eventCode":105,"eventVersion":"v1","notificationTime":"t","programManagerId":16},"messageHeaders":{"schemaId": 1},"payload":{"a":1}}"#
    );
    let bare = text.replace(r#","messageHeaders":{"schemaId": 1}"#, "");
    assert!(!body(&bare, Shape::Plain).contains("messageHeaders"));
}

#[test]
fn a_merchant_body_is_the_producers_bytes_but_for_the_vendors_name() {
    let text = r#" {"event_id":"e", "event_type" : "cau.submitted","event_body":{ "merchant":{"merch_key":"m"},"object":{"status":"cau.submitted"}} }"#;
    assert_eq!(body(text, Shape::Plain), text);
    let wire = text.replacen("cau.", "cardupdate.", 1);
    assert_eq!(body(text, Shape::WireNames), wire);
    // What came with the vendor's name goes on with it.
    assert_eq!(body(&wire, Shape::Plain), wire);
    assert_eq!(body(&wire, Shape::WireNames), wire);
    let sale = text.replace("cau.submitted", "transaction.sale.success");
    assert_eq!(body(&sale, Shape::WireNames), sale);
    let made = rendered(text, Shape::WireNames);
    assert_eq!((made.hole, made.payload), (None, 0..wire.len()));
}

#[test]
fn a_shape_counts_only_where_it_changes_something() {
    let catalogue = Catalogue::builtin();
    let shape = |name: &str, wanted| effective_shape(catalogue.get(name).unwrap(), wanted);
    assert_eq!(shape("105", Shape::StrictLegacy), Shape::StrictLegacy);
    assert_eq!(shape("101", Shape::StrictLegacy), Shape::Plain);
    assert_eq!(shape("cau.created", Shape::WireNames), Shape::WireNames);
    assert_eq!(shape("ach.failed", Shape::WireNames), Shape::Plain);
}

#[test]
fn a_one_time_code_is_taken_out_and_nothing_else() {
    let catalogue = Catalogue::builtin();
    let text = eds(107, r#"{"publicToken":1, "otpValue" : "4711" ,"otpReason":"PAYMENT"}"#);
    let event = decode(&catalogue, None, text.as_bytes()).unwrap();
    let whole = render(&event, Shape::Plain, NOW);
    let redacted = render_redacted(&event, Shape::Plain, NOW).unwrap();
    assert_eq!(redacted.hole, whole.hole);
    let left = std::str::from_utf8(&redacted.bytes).unwrap();
    assert!(left.ends_with(r#""payload":{"publicToken":1 ,"otpReason":"PAYMENT"}}"#), "{left}");
    assert_eq!(&redacted.bytes[..whole.payload.start], &whole.bytes[..whole.payload.start]);
    Document::parse(&redacted.bytes).unwrap();
    // Ingest seals the value in place, and the router puts it back.
    let spans = event.ephemeral_spans();
    assert_eq!(text.get(spans[0].clone()), Some(r#""4711""#));
    let sealed = json::replace(text.as_bytes(), &[(spans[0].clone(), br#""sealed""#)]);
    let held = decode(&catalogue, None, &sealed).unwrap();
    let span = held.ephemeral_spans().remove(0);
    assert_eq!(json::replace(&sealed, &[(span, br#""4711""#)]), text.as_bytes());
    // Other types have nothing to take out.
    let other = eds(101, PAYLOAD_101);
    let other = decode(&catalogue, None, other.as_bytes()).unwrap();
    assert!(render_redacted(&other, Shape::Plain, NOW).is_none());
}

#[test]
fn every_sample_in_every_shape_is_one_json_document_around_its_payload() {
    let catalogue = Catalogue::builtin();
    for kind in catalogue.types() {
        let sample = kind.sample(NOW, 1, 20, "m");
        let topic = kind.topic();
        let topic = topic.as_str().strip_prefix("tidings.events.");
        let event = decode(&catalogue, topic, &sample).unwrap();
        for shape in Shape::ALL {
            let made = render(&event, *shape, NOW);
            let document = Document::parse(&made.bytes).unwrap();
            let root = document.root();
            if kind.is_eds() {
                assert_eq!(root.get("payload").unwrap().span(), made.payload);
                assert_eq!(&made.bytes[made.payload], event.payload().as_bytes());
                let id = root.at("context.notificationId").map(|id| id.span().start + 1);
                assert_eq!(made.hole, id);
            } else {
                assert_eq!(made.hole, None);
            }
        }
    }
}

#[test]
fn a_hole_outside_the_body_is_not_filled() {
    let mut short = vec![0; HOLE];
    assert!(!fill(&mut short, 1, ID));
    assert!(!fill(&mut short, usize::MAX, ID));
    assert!(fill(&mut short, 0, ID));
}

proptest! {
    #[test]
    fn a_payload_goes_through_byte_for_byte(
        text in "[ -~é😀]{0,40}",
        number in "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?",
        space in "[ \t\r\n]{0,4}",
    ) {
        let text = serde_json::to_string(&text).unwrap();
        let more = format!("{{{space}\"x\"{space}:{space}[{number}{space},{text}]{space},");
        let payload = PAYLOAD_101.replacen('{', &more, 1);
        let made = rendered(&eds(101, &payload), Shape::Plain);
        prop_assert_eq!(&made.bytes[made.payload.clone()], payload.as_bytes());
    }
}
