//! All event types, from their files.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;

use crate::event_type::{EventType, TypeFile};

/// The most partitions that a setting may give a topic.
const MAX_PARTITIONS: u32 = 1000;

/// The part of a topic's name for Tidings' own events.
pub(crate) const OPS: &str = "ops";

/// The files that every deployment has.
const BUILTIN: &[(&str, &str)] = &[
    ("fraud.toml", include_str!("../types/fraud.toml")),
    ("card.toml", include_str!("../types/card.toml")),
    ("tokenisation.toml", include_str!("../types/tokenisation.toml")),
    ("authentication.toml", include_str!("../types/authentication.toml")),
    ("transaction.toml", include_str!("../types/transaction.toml")),
    ("open-banking.toml", include_str!("../types/open-banking.toml")),
    ("ach.toml", include_str!("../types/ach.toml")),
    ("card-updater.toml", include_str!("../types/card-updater.toml")),
    ("inventory.toml", include_str!("../types/inventory.toml")),
    ("sale.toml", include_str!("../types/sale.toml")),
    ("settlement.toml", include_str!("../types/settlement.toml")),
    ("ops.toml", include_str!("../types/ops.toml")),
];

/// The event types that a deployment knows. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// EDS codes first, then merchants' types, then Tidings' own, by name.
    types: Arc<[EventType]>,
    by_name: Arc<BTreeMap<String, usize>>,
}

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event types in {file}: {problem}")]
pub struct CatalogueError {
    pub file: String,
    /// What is wrong and where, for the author of the file.
    pub problem: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    defaults: TypeFile,
    #[serde(rename = "type")]
    types: Vec<TypeFile>,
}

impl Catalogue {
    /// The types that Tidings comes with: 14 EDS codes, 25 merchant types and
    /// three of its own.
    pub fn builtin() -> Self {
        Self::from_files(BUILTIN.iter().copied())
            .expect("the files in `types/` are whole: a test reads them")
    }

    /// The types of the given files, by file name and text.
    ///
    /// # Errors
    /// A file that is not TOML, has an unknown key, lacks what it must have, or
    /// names a type that another file has too.
    pub fn from_files<'a>(
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, CatalogueError> {
        Self { types: Arc::new([]), by_name: Arc::default() }.with_files(files)
    }

    /// This catalogue and one more file, such as one from the settings.
    ///
    /// # Errors
    /// As [`Self::from_files`].
    pub fn with_file(&self, name: &str, text: &str) -> Result<Self, CatalogueError> {
        self.with_files([(name, text)])
    }

    /// The same types with other numbers of partitions for some topics.
    ///
    /// # Errors
    /// A name that no type has, or no partition at all.
    pub fn with_partitions(
        &self,
        partitions: &BTreeMap<String, u32>,
    ) -> Result<Self, CatalogueError> {
        let mut types = self.types.to_vec();
        for (name, count) in partitions {
            let refuse = |problem: &str| CatalogueError {
                file: "partitions".to_owned(),
                problem: format!("`{name}`: {problem}"),
            };
            let index = self.by_name.get(name).ok_or_else(|| refuse("no such event type"))?;
            if !(1..=MAX_PARTITIONS).contains(count) {
                return Err(refuse("must be 1 to 1000"));
            }
            types[*index].set_partitions(*count);
        }
        Ok(Self { types: types.into(), by_name: Arc::clone(&self.by_name) })
    }

    fn with_files<'a>(
        &self,
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, CatalogueError> {
        let mut types = self.types.to_vec();
        for (name, text) in files {
            let refuse = |problem: String| CatalogueError { file: name.to_owned(), problem };
            let file: File = toml::from_str(text).map_err(|error| refuse(error.to_string()))?;
            for own in file.types {
                let label = own.name.clone().unwrap_or_default();
                let built = EventType::build(own, &file.defaults)
                    .map_err(|problem| refuse(format!("type `{label}`: {problem}")))?;
                if types.iter().any(|other| share_a_name(other, &built)) {
                    return Err(refuse(format!("type `{label}` exists already")));
                }
                types.push(built);
            }
        }
        types.sort_by(|one, other| {
            (one.surface(), one.name()).cmp(&(other.surface(), other.name()))
        });
        let by_name = types
            .iter()
            .enumerate()
            .flat_map(|(index, kind)| all_names(kind).map(move |name| (name.to_owned(), index)))
            .collect();
        Ok(Self { types: types.into(), by_name: Arc::new(by_name) })
    }

    /// All types: EDS codes, merchants', Tidings' own; each by name.
    pub fn types(&self) -> impl Iterator<Item = &EventType> {
        self.types.iter()
    }

    /// The type of a code (`101`), a name or another name for it
    /// (`cardupdate.submitted` is `cau.submitted`).
    pub fn get(&self, name: &str) -> Option<&EventType> {
        self.by_name.get(name).map(|index| &self.types[*index])
    }

    /// The EDS type of a code.
    pub fn by_code(&self, code: i64) -> Option<&EventType> {
        let name = u16::try_from(code).ok()?.to_string();
        self.get(&name).filter(|kind| kind.is_eds())
    }
}

fn all_names(kind: &EventType) -> impl Iterator<Item = &str> {
    std::iter::once(kind.name()).chain(kind.aliases.iter().map(String::as_str))
}

fn share_a_name(one: &EventType, other: &EventType) -> bool {
    all_names(one).any(|name| all_names(other).any(|taken| taken == name))
}
