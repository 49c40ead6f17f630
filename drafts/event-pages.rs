//! `docs/events`: a page for each event type, written from the catalogue. A test
//! compares; with `TIDINGS_WRITE_GENERATED=1` it writes.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use tidings_catalogue::{Catalogue, EventType, decode, render};
use tidings_types::{Shape, Timestamp};

/// 2024-01-24T23:20:28Z, the time of the documents' samples.
const WHEN: Timestamp = Timestamp::from_secs(1_706_138_428);

/// The `fields` of every type: those of its file's defaults, then its own.
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
        let file: toml::Value = toml::from_str(&text).unwrap();
        let defaults = lines(file.get("defaults"));
        for kind in file.get("type").and_then(toml::Value::as_array).into_iter().flatten() {
            let name = kind.get("name").and_then(toml::Value::as_str).unwrap().to_owned();
            let all = defaults.iter().cloned().chain(lines(Some(kind))).collect();
            fields.insert(name, all);
        }
    }
    fields
}

/// The payload on several lines, and without what one pretty-printer would change.
fn pretty(bytes: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    serde_json::to_string_pretty(&value).unwrap()
}

fn page(kind: &EventType, fields: &[String]) -> String {
    let mut text = String::new();
    let facts: [(&str, String); 6] = [
        ("Lane", kind.lane().as_str().to_owned()),
        ("Order key", kind.order_key().unwrap_or("the event itself").to_owned()),
        ("Product", kind.product().unwrap_or("none in the payload").to_owned()),
        ("Deadline", kind.deadline().unwrap_or("none").to_owned()),
        (
            "A later one replaces it",
            if kind.is_state() { "if the webhook wants that" } else { "no" }.to_owned(),
        ),
        (
            "Needs a configuration",
            if kind.needs_configuration() { "yes (`/Configs`)" } else { "no" }.to_owned(),
        ),
    ];
    writeln!(text, "# {}: {}\n", kind.name(), kind.description()).unwrap();
    writeln!(text, "| | |\n|---|---|").unwrap();
    for (name, value) in facts {
        writeln!(text, "| {name} | {value} |").unwrap();
    }
    writeln!(text, "\n## Fields\n").unwrap();
    writeln!(text, "Paths are relative to `{}`. Fields that are not listed pass.\n", body_of(kind))
        .unwrap();
    writeln!(text, "| field | type | |\n|---|---|---|").unwrap();
    for field in fields {
        let mut words = field.split(' ');
        let (path, kind) = (words.next().unwrap(), words.next().unwrap());
        let rest: Vec<_> = words.collect();
        writeln!(text, "| `{path}` | {kind} | {} |", rest.join(", ")).unwrap();
    }
    if !kind.sensitive().is_empty() {
        writeln!(text, "\nMasked in the console and in logs: `{}`.", kind.sensitive().join("`, `"))
            .unwrap();
    }
    let published = kind.sample(WHEN, 1, 20, "m_9f2");
    // What Tidings says of itself comes from no producer.
    if let Ok(event) = decode(&Catalogue::builtin(), None, &published) {
        let rendered = render::render(&event, Shape::Plain, WHEN);
        let mut body = rendered.bytes.clone();
        if let Some(hole) = rendered.hole {
            body[hole..hole + 36].copy_from_slice(b"3c9a52c4-0f0e-8d6b-9c1f-7f2a6d1b0e55");
        }
        writeln!(text, "\n## As it is delivered\n\n```json\n{}\n```", pretty(&body)).unwrap();
    }
    writeln!(text, "\n## As a producer publishes it\n\n```json\n{}\n```", pretty(&published))
        .unwrap();
    text
}

fn body_of(kind: &EventType) -> &'static str {
    if kind.is_eds() { "payload" } else { "event_body" }
}

fn pages() -> BTreeMap<String, String> {
    let fields = fields();
    let catalogue = Catalogue::builtin();
    let mut index = "# Event types\n\nWritten from the catalogue (`crates/catalogue/types`).\n\n\
                     | type | what it says | lane | order key |\n|---|---|---|---|\n"
        .to_owned();
    let mut pages = BTreeMap::new();
    for kind in catalogue.types() {
        let name = kind.name();
        writeln!(
            index,
            "| [{name}]({name}.md) | {} | {} | {} |",
            kind.description(),
            kind.lane().as_str(),
            kind.order_key().unwrap_or("the event itself"),
        )
        .unwrap();
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
            "docs/events/{name} is stale: run the test with TIDINGS_WRITE_GENERATED=1"
        );
    }
}
