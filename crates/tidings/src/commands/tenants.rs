//! `tidings tenants apply`: sends the tenants document to the API.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::{Failure, say};
use crate::{
    cli::ClientArgs,
    client::{Answer, Client},
};

pub(crate) fn apply(file: &Path, prune: bool, args: &ClientArgs) -> Result<(), Failure> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read {}", file.display()))
        .map_err(Failure::Usage)?;
    let table: toml::Table = text
        .parse()
        .with_context(|| format!("{} is not TOML", file.display()))
        .map_err(Failure::Usage)?;
    let base = file.parent().unwrap_or_else(|| Path::new("."));
    let document = to_json(toml::Value::Table(table), base)?;
    let body = serde_json::to_vec(&document).context("cannot encode the tenants document")?;
    Client::with(args, &["admin"], async move |client| {
        let path = if prune { "/admin/v1/tenants?prune=true" } else { "/admin/v1/tenants" };
        let answer = client.send("PUT", path, "application/json", body).await?;
        if answer.status != 200 {
            return Err(refused(&answer, &text));
        }
        let response = answer.response()?;
        let count = |name: &str| response.get(name).and_then(Value::as_u64).unwrap_or(0);
        say(format!(
            "added {} changed {} removed {}",
            count("added"),
            count("changed"),
            count("removed")
        ));
        Ok(())
    })
}

/// Every refused line with its number, its text and what is wrong with it.
fn refused(answer: &Answer, text: &str) -> Failure {
    let lines: Vec<String> = answer
        .errors()
        .iter()
        .map(|error| {
            let member = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
            let (field, message) = (member("field"), member("message"));
            let what = match (member("code"), field) {
                (code, "") => format!("{code}: {message}"),
                (code, field) => format!("{code} {field}: {message}"),
            };
            match line_of(text, field) {
                // A line with a value may hold a merchant's key.
                Some((number, line)) if line.contains("value") => format!("line {number}: {what}"),
                Some((number, line)) => format!("line {number} `{line}`: {what}"),
                None => what,
            }
        })
        .collect();
    if lines.is_empty() || answer.status == 401 {
        return answer.refused();
    }
    Failure::Wrong(anyhow!("refused, nothing was applied:\n{}", lines.join("\n")))
}

/// The line of the document that a field such as `merchants[0].programmeManager`
/// stands in, or the nearest one around it that is there.
fn line_of<'t>(text: &'t str, field: &str) -> Option<(usize, &'t str)> {
    let document = DeTable::parse(text).ok()?;
    let mut at = None;
    let mut table = Some(document.get_ref());
    for step in field.split('.') {
        let (name, index) = match step.strip_suffix(']').and_then(|step| step.split_once('[')) {
            Some((name, index)) => (name, index.parse::<usize>().ok()),
            None => (step, None),
        };
        let Some((key, value)) =
            table.and_then(|table| table.iter().find(|(key, _)| camel_case(key.get_ref()) == name))
        else {
            break;
        };
        at = Some(key.span().start);
        let value = match (index, value.get_ref()) {
            (Some(index), DeValue::Array(items)) => match items.get(index) {
                Some(item) => {
                    at = Some(item.span().start);
                    item.get_ref()
                }
                None => break,
            },
            (_, value) => value,
        };
        table = value.as_table();
    }
    let before = text.get(..at?)?;
    let number = before.matches('\n').count();
    Some((number + 1, text.lines().nth(number)?.trim()))
}

/// The document as JSON in camelCase; `value_file` is read here, beside FILE.
fn to_json(value: toml::Value, base: &Path) -> Result<Value, Failure> {
    Ok(match value {
        toml::Value::Table(table) => {
            if table.contains_key("value") && table.contains_key("value_file") {
                return Err(Failure::Wrong(anyhow!(
                    "a source key has both value and value_file; give one"
                )));
            }
            let mut object = Map::new();
            for (name, value) in table {
                if name == "value_file" {
                    let path = base.join(value.as_str().unwrap_or_default());
                    let text = std::fs::read_to_string(&path)
                        .with_context(|| format!("cannot read value_file {}", path.display()))
                        .map_err(Failure::Usage)?;
                    object.insert("value".to_owned(), Value::String(text.trim_end().to_owned()));
                } else {
                    object.insert(camel_case(&name), to_json(value, base)?);
                }
            }
            Value::Object(object)
        }
        toml::Value::Array(items) => Value::Array(
            items.into_iter().map(|item| to_json(item, base)).collect::<Result<_, _>>()?,
        ),
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => Value::from(number),
        toml::Value::Boolean(flag) => Value::Bool(flag),
        toml::Value::Datetime(time) => {
            return Err(Failure::Wrong(anyhow!("{time}: the tenants document has no times")));
        }
    })
}

fn camel_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut upper = false;
    for letter in name.chars() {
        if letter == '_' {
            upper = true;
        } else if upper {
            out.extend(letter.to_uppercase());
            upper = false;
        } else {
            out.push(letter);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_field_is_found_in_the_file() {
        let text = "\
[[issuers]]
id = \"7001\"

[[programme_managers]]
id = 20
code = \"21\"
[[programme_managers]]
id = 21
[[merchants]]
key = \"m\"
source_keys = [{ id = \"a\", value = \"v\" }]
";
        let line = |field| line_of(text, field);
        assert_eq!(line("issuers[0].id"), Some((2, "id = \"7001\"")));
        assert_eq!(line("programmeManagers[0].code"), Some((6, "code = \"21\"")));
        let (number, _) = line("programmeManagers[1].code").unwrap();
        assert_eq!(number, 7, "a member that is missing: its entry");
        assert_eq!(line("merchants[0].sourceKeys[0].id").map(|(number, _)| number), Some(11));
        assert_eq!(line("nothing[0].here"), None);
    }
}
