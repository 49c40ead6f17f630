//! The members of a token's header and claims, each with one type and no other.
//!
//! A member that stands twice, or has another type than its own, makes the token
//! invalid; `null` counts as another type. The tenant's claims alone are treated
//! apart: a bad one leaves the token valid and its bearer without access.

use std::{collections::BTreeMap, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// A JSON object that knows which members stood twice.
#[derive(Debug, Default)]
pub(crate) struct Members {
    members: BTreeMap<String, Value>,
    repeated: Vec<String>,
}

/// The members of the tenant (`spec.md` §1.2).
pub(crate) const TENANT: [&str; 2] = ["issuerid", "pmid"];

/// A claim that is missing or has another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadClaim;

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Members::default();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.members.insert(name.clone(), value).is_some() {
                        members.repeated.push(name);
                    }
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

impl Members {
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    pub(crate) fn is_repeated(&self, name: &str) -> bool {
        self.repeated.iter().any(|repeated| repeated == name)
    }

    /// Whether a member other than the tenant's stood twice.
    pub(crate) fn has_repeated(&self) -> bool {
        self.repeated.iter().any(|name| !TENANT.contains(&name.as_str()))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.members.get(name)
    }

    /// A text, if the member is there.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, BadClaim> {
        self.get(name).map(|value| value.as_str().ok_or(BadClaim)).transpose()
    }

    /// A time in seconds: an integer that is not negative.
    pub(crate) fn seconds(&self, name: &str) -> Result<Option<i64>, BadClaim> {
        let read = |value: &Value| value.as_i64().filter(|time| *time >= 0).ok_or(BadClaim);
        self.get(name).map(read).transpose()
    }

    /// Whether `aud` names `audience`, alone or among others.
    pub(crate) fn is_for(&self, audience: &str) -> bool {
        match self.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(several)) => {
                several.iter().all(Value::is_string)
                    && several.iter().any(|one| one.as_str() == Some(audience))
            }
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => {
                false
            }
        }
    }
}
