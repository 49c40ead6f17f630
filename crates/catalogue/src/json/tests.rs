//! The scanner against tables of texts, and against serde_json.

use proptest::prelude::*;

use super::*;

fn refused(text: &str) -> QuarantineCode {
    Document::parse(text.as_bytes()).unwrap_err().code
}

fn path_of_fault(text: &str) -> Option<String> {
    Document::parse(text.as_bytes()).unwrap_err().path
}

#[test]
fn what_is_not_exactly_one_document_is_refused() {
    for text in [
        "",
        " ",
        "{",
        "[",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "[1,]",
        "[1 2]",
        "{a:1}",
        "{'a':1}",
        "{\"a\" 1}",
        "{1:1}",
        "{,}",
        "[,]",
        "}",
        "]",
        "[}",
        "{]",
        "{}{}",
        "{} x",
        "1 2",
        "nul",
        "nulls",
        "tru",
        "True",
        "NaN",
        "Infinity",
        "-",
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x10",
        "\"",
        "\"a",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\n\"",
        "\"\u{0}\"",
        "\"\u{1f}\"",
        "\u{feff}{}",
        "{}\u{0}",
        "/* */{}",
        "[1}",
        "{\"a\":1]",
        "\"\\u+123\"",
    ] {
        assert_eq!(refused(text), QuarantineCode::BadJson, "{text:?}");
    }
}

#[test]
fn what_is_json_is_taken_however_odd() {
    for text in [
        "{}",
        " [ ] ",
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-0.0",
        "1e400",
        "1E-9",
        "9007199254740993",
        "0.123456789012345678901234567890",
        "\"\"",
        "\"\\u0000\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\ud800\"",
        "\"\\ud800x\"",
        "\"\\ud800\\n\"",
        "{\"\\ud800\":1,\"\\ud801\":2}",
        "\"\u{7f}\"",
        "\"é😀\"",
        "\"\\/\\b\\f\\n\\r\\t\\\\\\\"\"",
        "{\"\":0}",
        "\t\r\n{ \"a\" : [ 1 , 2 ] }\n",
    ] {
        let document = Document::parse(text.as_bytes()).unwrap();
        assert_eq!(document.root().raw(), text.trim(), "{text:?}");
    }
}

#[test]
fn broken_utf8_is_named_as_such() {
    for bytes in
        [&b"\"\xff\""[..], b"\"\xc3\"", b"\"\xed\xa0\x80\"", b"\xff\xfe{\0}\0", b"\"\xc0\xaf\""]
    {
        assert_eq!(Document::parse(bytes).unwrap_err().code, QuarantineCode::BadUtf8);
    }
}

#[test]
fn a_repeated_key_is_refused_with_its_path() {
    assert_eq!(path_of_fault(r#"{"a":1,"a":1}"#).as_deref(), Some("a"));
    assert_eq!(
        path_of_fault(r#"{"p":{"x":[{},{"b":1,"\u0062":2}]}}"#).as_deref(),
        Some("p.x[1].b")
    );
    assert_eq!(refused(r#"{"p":{"x":[{},{"b":1,"\u0062":2}]}}"#), QuarantineCode::DuplicateKey);
    // One key in two objects is no repetition.
    Document::parse(br#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}"#).unwrap();
}

#[test]
fn a_repeated_key_among_many_is_found_wherever_it_stands() {
    for count in [2, 12, 13, 40, 300] {
        for (one, other) in [(0, 1), (0, count - 1), (count / 2, count - 1)] {
            let members: Vec<String> = (0..count)
                .map(|index| format!("\"k{}\":0", if index == other { one } else { index }))
                .collect();
            let text = format!("{{{}}}", members.join(","));
            if one != other {
                assert_eq!(refused(&text), QuarantineCode::DuplicateKey, "{count} {one} {other}");
            }
        }
        let members: Vec<String> = (0..count).map(|index| format!("\"k{index}\":0")).collect();
        Document::parse(format!("{{{}}}", members.join(",")).as_bytes()).unwrap();
    }
}

#[test]
fn keys_made_to_collide_are_told_apart_in_a_short_time() {
    // The same length, head and tail: one fingerprint for all.
    let members: Vec<String> =
        (0..20_000).map(|index| format!("\"aaaaaaaa{index:06}zzzzzzzz\":0")).collect();
    let text = format!("{{{}}}", members.join(","));
    Document::parse(text.as_bytes()).unwrap();
    let twice = text.replace("aaaaaaaa019999", "aaaaaaaa000000");
    assert_eq!(refused(&twice), QuarantineCode::DuplicateKey);
}

#[test]
fn nesting_ends_at_the_limit_without_using_the_stack() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    Document::parse(nested(MAX_DEPTH).as_bytes()).unwrap();
    assert_eq!(refused(&nested(MAX_DEPTH + 1)), QuarantineCode::TooDeep);
    assert_eq!(refused(&"[".repeat(1_000_000)), QuarantineCode::TooDeep);
    assert_eq!(refused(&"{\"a\":".repeat(200_000)), QuarantineCode::TooDeep);
}

#[test]
fn array_elements_are_counted_over_the_document() {
    let elements = |count: usize| vec!["0"; count].join(",");
    Document::parse(format!("[{}]", elements(MAX_ELEMENTS - 1)).as_bytes()).unwrap();
    assert_eq!(refused(&format!("[{}]", elements(MAX_ELEMENTS))), QuarantineCode::TooLarge);
    let halves = format!("[[{0}],[{0}]]", elements(MAX_ELEMENTS / 2));
    assert_eq!(refused(&halves), QuarantineCode::TooLarge);
}

#[test]
fn values_are_found_by_path_and_say_theirs() {
    let text = r#"{"a":{"b":[1,{"c":"x\ty"},null]},"\u0064":-0,"e":1.5,"5555666677778888":1}"#;
    let document = Document::parse(text.as_bytes()).unwrap();
    let root = document.root();
    let list = root.at("a.b").unwrap();
    let inner = list.children().nth(1).unwrap().get("c").unwrap();
    assert_eq!(inner.path(), "a.b[1].c");
    assert_eq!(inner.string().unwrap(), "x\ty");
    assert_eq!(inner.raw(), r#""x\ty""#);
    assert_eq!(list.children().nth(2).unwrap().kind(), Kind::Null);
    assert_eq!(root.get("d").unwrap().id_text().unwrap(), "0");
    assert_eq!(root.get("d").unwrap().path(), "d");
    assert_eq!(root.get("e").unwrap().kind(), Kind::Decimal);
    assert_eq!(root.get("e").unwrap().id_text(), None);
    assert_eq!(root.get("5555666677778888").unwrap().path(), "*", "a card number is not printed");
    assert_eq!(root.path(), "");
    assert!(root.at("a.b.c").is_none());
    assert!(root.get("A").is_none());
}

#[test]
fn a_member_is_taken_out_with_its_comma_and_nothing_else() {
    let cases = [
        (r#"{"a":1, "x":2, "b":3}"#, r#"{"a":1, "b":3}"#),
        (r#"{ "x" : 2, "b":3}"#, r#"{ "b":3}"#),
        (r#"{"a":1 , "x":2 }"#, r#"{"a":1 }"#),
        (r#"{ "x":{"a":1} }"#, r#"{  }"#),
        (r#"{"a":1,"x":2,"y":3,"b":4}"#, r#"{"a":1,"b":4}"#),
        (r#"{"x":2,"y":3,"b":4}"#, r#"{"b":4}"#),
        (r#"{"x":2,"y":3}"#, r#"{}"#),
        (r#"{"a":{"x":1}}"#, r#"{"a":{"x":1}}"#),
        (r#"{"x":1,"a":2,"y":3,"b":4}"#, r#"{"a":2,"b":4}"#),
    ];
    for (before, after) in cases {
        let document = Document::parse(before.as_bytes()).unwrap();
        let left = without(document.root(), |member| member.key_is("x") || member.key_is("y"));
        assert_eq!(String::from_utf8(left.clone()).unwrap(), after, "{before}");
        Document::parse(&left).unwrap();
    }
}

/// JSON text with the oddities that matter here, and sometimes none.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?",
        "[a-zé\"\\\\\u{1}-\u{20}]{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        "(\\\\u[0-9a-fA-F]{4}|\\\\[nrt/]|[a-z]){0,6}".prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8)
                .prop_map(|items| format!("[ {} ]", items.join(" ,"))),
            prop::collection::vec(("[a-e]{1,2}", inner), 0..8).prop_map(|members| {
                let members: Vec<String> =
                    members.iter().map(|(key, value)| format!("\"{key}\" :{value}")).collect();
                format!("{{{}}}", members.join(", "))
            }),
        ]
    })
}

/// Whether a parser that keeps to the grammar takes the text: also numbers that no
/// `f64` holds and escapes of half a surrogate pair, which the grammar allows.
fn oracle(bytes: &[u8]) -> bool {
    let beyond_grammar = ["number out of range", "hex escape"];
    serde_json::from_slice::<Box<serde_json::value::RawValue>>(bytes).is_ok()
        && serde_json::from_slice::<serde_json::Value>(bytes)
            .map_err(|error| error.to_string())
            .map_or_else(|error| beyond_grammar.iter().any(|it| error.contains(it)), |_| true)
}

/// Whether each object of a tree has the members that ours has.
fn same(ours: Value<'_>, theirs: &serde_json::Value) -> bool {
    match theirs {
        serde_json::Value::Null => ours.kind() == Kind::Null,
        serde_json::Value::Bool(_) => ours.kind() == Kind::Boolean,
        serde_json::Value::Number(_) => matches!(ours.kind(), Kind::Integer | Kind::Decimal),
        serde_json::Value::String(text) => ours.string().as_deref() == Some(text),
        serde_json::Value::Array(items) => {
            ours.kind() == Kind::Array
                && ours.children().count() == items.len()
                && ours.children().zip(items).all(|(ours, theirs)| same(ours, theirs))
        }
        serde_json::Value::Object(members) => {
            ours.kind() == Kind::Object
                && ours.children().count() == members.len()
                && members
                    .iter()
                    .all(|(key, theirs)| ours.get(key).is_some_and(|ours| same(ours, theirs)))
        }
    }
}

proptest! {
    #[test]
    fn the_checker_agrees_with_a_parser_on_json(text in any_json()) {
        match Document::parse(text.as_bytes()) {
            Ok(document) => {
                prop_assert!(oracle(text.as_bytes()), "{}", text);
                if let Ok(theirs) = serde_json::from_str::<serde_json::Value>(&text) {
                    prop_assert!(same(document.root(), &theirs), "{}", text);
                }
            }
            Err(error) if error.code == QuarantineCode::DuplicateKey => {}
            Err(_) => prop_assert!(!oracle(text.as_bytes()), "{}", text),
        }
    }

    #[test]
    fn the_checker_agrees_with_a_parser_on_damaged_json(
        text in any_json(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        match Document::parse(&bytes) {
            Ok(_) => prop_assert!(oracle(&bytes)),
            Err(error) if error.code == QuarantineCode::DuplicateKey => {}
            Err(_) => prop_assert!(!oracle(&bytes)),
        }
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(Document::parse(&bytes).is_ok(), oracle(&bytes));
    }

    #[test]
    fn every_value_has_a_path_that_leads_to_it(text in any_json()) {
        if let Ok(document) = Document::parse(text.as_bytes()) {
            for member in document.members() {
                let path = member.path();
                if !path.contains('[') {
                    let found = document.root().at(&path).unwrap();
                    prop_assert_eq!(found.span(), member.span());
                }
            }
        }
    }
}
