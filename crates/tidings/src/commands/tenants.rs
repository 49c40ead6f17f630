//! `tidings tenants apply`: sends the tenants document to the API.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use serde_json::{Map, Value};

use super::{Failure, say};
use crate::{cli::ClientArgs, client::Client};

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
            return Err(answer.refused());
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

/// The document as JSON in camelCase; `value_file` is read here, beside FILE.
fn to_json(value: toml::Value, base: &Path) -> Result<Value, Failure> {
    Ok(match value {
        toml::Value::Table(table) => {
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
