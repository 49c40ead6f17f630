//! `docs/events`: a page for each event type, written from the catalogue. A test
//! compares; with `TIDINGS_WRITE_GENERATED=1` it writes.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use tidings_catalogue::{
    Catalogue, EventType, decode,
    json::{Document, Kind, Value},
    render,
};
use tidings_types::{Lane, Shape, Timestamp};

/// 2024-01-24T23:20:28Z, the time of the documents' samples.
const WHEN: Timestamp = Timestamp::from_secs(1_706_138_428);
/// The notification id in the samples.
const ID: &[u8; render::HOLE] = b"3c9a52c4-0f0e-8d6b-9c1f-7f2a6d1b0e55";

/// The `fields` of every type by their paths: those of its file's defaults, then
/// its own, of which the later one counts.
fn fields() -> BTreeMap<String, Vec<String>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("types");
    let lines = |table: Option<&toml::Value>| -> Vec<String> {
        let listed = table.and_then(|table| table.get("fields")).and_then(toml::Value::as_array);
        let texts = listed.into_iter().flatten().filter_map(toml::Value::as_str);
        texts.map(str::to_owned).collect()
    };
    let mut fields = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let file: toml::Table = toml::from_str(&text).unwrap();
        let defaults = lines(file.get("defaults"));
        for kind in file.get("type").and_then(toml::Value::as_array).into_iter().flatten() {
            let name = kind.get("name").and_then(toml::Value::as_str).unwrap().to_owned();
            let mut own: Vec<String> = Vec::new();
            for line in defaults.iter().cloned().chain(lines(Some(kind))) {
                let same = |known: &String| path_of(known) == path_of(&line);
                match own.iter().position(same) {
                    Some(place) => own[place] = line,
                    None => own.push(line),
                }
            }
            fields.insert(name, own);
        }
    }
    fields
}

fn path_of(line: &str) -> &str {
    line.split_whitespace().next().unwrap()
}

/// A document with a member on each line; order and values as they stand.
fn pretty(bytes: &[u8]) -> String {
    let mut text = String::new();
    write_value(Document::parse(bytes).unwrap().root(), 0, &mut text);
    text
}

fn write_value(value: Value<'_>, depth: usize, text: &mut String) {
    let (open, close) = match value.kind() {
        Kind::Object => ('{', '}'),
        Kind::Array => ('[', ']'),
        Kind::Null | Kind::Boolean | Kind::Integer | Kind::Decimal | Kind::String => {
            text.push_str(value.raw());
            return;
        }
    };
    text.push(open);
    let mut is_first = true;
    for child in value.children() {
        text.push_str(if is_first { "\n" } else { ",\n" });
        is_first = false;
        text.push_str(&"  ".repeat(depth + 1));
        if value.kind() == Kind::Object {
            write!(text, "\"{}\": ", child.raw_key()).unwrap();
        }
        write_value(child, depth + 1, text);
    }
    if !is_first {
        text.push('\n');
        text.push_str(&"  ".repeat(depth));
    }
    text.push(close);
}

fn page(kind: &EventType, fields: &[String]) -> String {
    let mut text = String::new();
    writeln!(text, "# {}: {}\n", kind.name(), kind.description()).unwrap();
    writeln!(text, "| | |\n|---|---|").unwrap();
    for (name, value) in facts(kind) {
        writeln!(text, "| {name} | {value} |").unwrap();
    }
    let inside = if kind.is_eds() { "payload" } else { "event_body" };
    writeln!(text, "\n## Fields\n\nPaths are relative to `{inside}`, `[]` is each element of an array. Members that are not listed pass unchanged, so read what you know and leave the rest.\n").unwrap();
    writeln!(text, "| field | type | |\n|---|---|---|").unwrap();
    for field in fields {
        let mut words = field.split_whitespace();
        let (path, kind) = (words.next().unwrap(), words.next().unwrap());
        let kind = match kind {
            "id" => "string or integer",
            "guid" => "string or integer: 1 to 64 letters, digits and hyphens",
            "amount" => "string or number",
            other => other,
        };
        let rest: Vec<_> = words.collect();
        writeln!(text, "| `{path}` | {kind} | {} |", rest.join(", ")).unwrap();
    }
    if !kind.sensitive().is_empty() {
        let listed = kind.sensitive().join("`, `");
        writeln!(text, "\nSensitive, and masked wherever people look: `{listed}`.").unwrap();
    }
    if !kind.ephemeral().is_empty() {
        let listed = kind.ephemeral().join("`, `");
        writeln!(text, "\nGone for good at the deadline, from history too: `{listed}`.").unwrap();
    }
    samples(kind, &mut text);
    text
}

fn facts(kind: &EventType) -> Vec<(&'static str, String)> {
    let code = |text: &str| format!("`{text}`");
    let mut facts = vec![
        ("Topic", code(kind.topic().as_str())),
        ("Lane", lane(kind.lane()).to_owned()),
        ("Order key", kind.order_key().map_or_else(|| "none: the event itself".to_owned(), code)),
        ("Retries", format!("ladder `{}`, unless the webhook names another", kind.ladder())),
        ("Deadline", kind.deadline().map_or_else(|| "none".to_owned(), code)),
    ];
    if let Some(product) = kind.product() {
        facts.push(("Product", format!("`context.productId`, else `{product}`")));
    }
    if kind.is_state() {
        let what = "a later event of the same order key replaces a waiting one, if the webhook's \
                    `stuckKey` is `supersede`";
        facts.push(("State", what.to_owned()));
    }
    if kind.needs_configuration() {
        facts.push((
            "Needs",
            "a configuration (`POST /Configs`) beside the subscription".to_owned(),
        ));
    }
    if let Some(wire) = kind.wire_name() {
        facts.push(("Vendor's name", format!("`{wire}`, for hooks with `wireNames` `vendor`")));
    }
    facts
}

fn lane(lane: Lane) -> &'static str {
    match lane {
        Lane::Urgent => "urgent: never behind standard ones",
        Lane::Standard => "standard",
    }
}

fn samples(kind: &EventType, text: &mut String) {
    let published = kind.sample(WHEN, 1, 20, "m_9f2");
    let catalogue = Catalogue::builtin();
    let topic = kind.is_ops().then_some("ops");
    let event = decode(&catalogue, topic, &published).unwrap();
    let rendered = render::render(&event, Shape::Plain, WHEN);
    let mut body = rendered.bytes;
    if let Some(hole) = rendered.hole {
        assert!(render::fill(&mut body, hole, ID), "the hole is in the body");
    }
    let block = |bytes: &[u8]| format!("```json\n{}\n```", pretty(bytes));
    writeln!(text, "\n## As it is delivered\n").unwrap();
    writeln!(text, "`webhook-id: {}`\n\n{}", String::from_utf8_lossy(ID), block(&body)).unwrap();
    if kind.is_eds() {
        writeln!(text, "\n## As a producer publishes it\n\n{}", block(&published)).unwrap();
    } else if kind.is_merchant() {
        writeln!(text, "\nA producer publishes the same bytes.").unwrap();
    } else {
        writeln!(text, "\nTidings itself publishes it; no producer may.").unwrap();
    }
}

fn pages() -> BTreeMap<String, String> {
    let fields = fields();
    let catalogue = Catalogue::builtin();
    let mut index = "# Event types\n\nWritten from the catalogue (`crates/catalogue/types`). \
                     How to verify a request: [docs/verify](../verify/README.md).\n\n\
                     | type | what it says | lane | order key |\n|---|---|---|---|\n"
        .to_owned();
    let mut pages = BTreeMap::new();
    for kind in catalogue.types() {
        let name = kind.name();
        let key = kind
            .order_key()
            .map_or_else(|| "the event itself".to_owned(), |key| format!("`{key}`"));
        let (what, lane) = (kind.description(), kind.lane().as_str());
        writeln!(index, "| [{name}]({name}.md) | {what} | {lane} | {key} |").unwrap();
        pages.insert(format!("{name}.md"), page(kind, &fields[name]));
    }
    pages.insert("README.md".to_owned(), index);
    pages
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a switch of the developer, not a setting")]
fn every_event_type_has_its_page_as_the_catalogue_says() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/events");
    let pages = pages();
    if std::env::var("TIDINGS_WRITE_GENERATED").is_ok() {
        fs::create_dir_all(&directory).unwrap();
        for (name, text) in &pages {
            fs::write(directory.join(name), text).unwrap();
        }
    }
    let listed = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut listed: Vec<String> = listed.map(|name| name.into_string().unwrap()).collect();
    listed.sort_unstable();
    assert_eq!(listed, pages.keys().cloned().collect::<Vec<_>>());
    for (name, text) in pages {
        let committed = fs::read_to_string(directory.join(&name)).unwrap();
        assert!(
            committed == text,
            "docs/events/{name} differs from the catalogue: look at the change, then run the \
             test with TIDINGS_WRITE_GENERATED=1"
        );
    }
}
