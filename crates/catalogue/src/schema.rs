//! What a payload must look like: which members are there, and of what type.
//!
//! Members that a schema does not name pass; they are counted, because a
//! producer that sends them has changed its schema.

use std::str::FromStr;

use tidings_types::{QuarantineCode, is_opaque_id};

use crate::{
    Refusal,
    json::{Kind, Value},
};

/// The JSON type that a field must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    String,
    Integer,
    Number,
    Boolean,
    Object,
    Array,
    /// A string or an integer (contract §4).
    Id,
    /// An id that a request may name: of 1 to 64 letters, digits and hyphens (design §10).
    Guid,
    /// An amount: a string or a number.
    Amount,
    Any,
}

/// One field of a type's file: `transaction.amount integer`.
///
/// The path is relative to the payload (of a merchant event, to `event_body`),
/// its parts are separated by dots, and `[]` stands for every element of an
/// array. The type may be followed by `required` and `nullable`. A required
/// field in an object that is itself absent is not missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldRule {
    pub(crate) path: String,
    kind: FieldType,
    is_required: bool,
    is_nullable: bool,
}

/// The members of one object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schema {
    /// In the order of the file, which is that of the documents' samples.
    fields: Vec<Field>,
    /// The places in `fields`, in the order of the names.
    by_name: Vec<usize>,
    required: usize,
}

/// A member of an object, as the type's file describes it.
#[derive(Clone, Debug)]
pub struct Field {
    name: Box<str>,
    kind: FieldType,
    is_required: bool,
    is_nullable: bool,
    members: Schema,
    element: Option<Box<Self>>,
}

impl FieldType {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            "object" => Self::Object,
            "array" => Self::Array,
            "id" => Self::Id,
            "amount" => Self::Amount,
            "guid" => Self::Guid,
            "any" => Self::Any,
            _ => return None,
        })
    }

    const fn accepts(self, kind: Kind) -> bool {
        match self {
            Self::String => matches!(kind, Kind::String),
            Self::Integer => matches!(kind, Kind::Integer),
            Self::Number => matches!(kind, Kind::Integer | Kind::Decimal),
            Self::Boolean => matches!(kind, Kind::Boolean),
            Self::Object => matches!(kind, Kind::Object),
            Self::Array => matches!(kind, Kind::Array),
            Self::Id | Self::Guid => matches!(kind, Kind::String | Kind::Integer),
            Self::Amount => matches!(kind, Kind::String | Kind::Integer | Kind::Decimal),
            Self::Any => true,
        }
    }

    /// What to tell a producer whose field has another type.
    const fn expected(self) -> &'static str {
        match self {
            Self::String => "must be a string",
            Self::Integer => "must be an integer",
            Self::Number => "must be a number",
            Self::Boolean => "must be true or false",
            Self::Object => "must be an object",
            Self::Array => "must be an array",
            Self::Id | Self::Guid => "must be a string or an integer",
            Self::Amount => "must be a string or a number",
            Self::Any => "must be present",
        }
    }
}

impl FromStr for FieldRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let (Some(path), Some(kind)) = (words.next(), words.next()) else {
            return Err(format!("field `{text}` needs a path and a type"));
        };
        let kind = FieldType::from_name(kind)
            .ok_or_else(|| format!("field `{text}` has an unknown type `{kind}`"))?;
        let mut rule = Self { path: path.to_owned(), kind, is_required: false, is_nullable: false };
        for word in words {
            match word {
                "required" => rule.is_required = true,
                "nullable" => rule.is_nullable = true,
                other => return Err(format!("field `{text}` has an unknown word `{other}`")),
            }
        }
        if path.split('.').any(|part| part.trim_end_matches("[]").is_empty()) {
            return Err(format!("field `{text}` has an empty part in its path"));
        }
        Ok(rule)
    }
}

impl Schema {
    /// Builds a schema; of two rules with one path the later counts.
    pub(crate) fn build(rules: &[FieldRule]) -> Self {
        let mut schema = Self::default();
        for rule in rules {
            let mut parts: Vec<&str> = Vec::new();
            for part in rule.path.split('.') {
                let name = part.trim_end_matches("[]");
                parts.push(name);
                parts.extend(std::iter::repeat_n("[]", (part.len() - name.len()) / 2));
            }
            schema.place(&parts, rule);
        }
        schema.finish();
        schema
    }

    fn place(&mut self, parts: &[&str], rule: &FieldRule) {
        let Some((name, rest)) = parts.split_first() else { return };
        let index = match self.fields.iter().position(|field| *field.name == **name) {
            Some(index) => index,
            None => {
                self.fields.push(Field::open(name));
                self.fields.len() - 1
            }
        };
        self.fields[index].place(rest, rule);
    }

    fn finish(&mut self) {
        self.required = self.fields.iter().filter(|field| field.is_required).count();
        self.by_name = (0..self.fields.len()).collect();
        let fields = &self.fields;
        self.by_name.sort_by(|one, other| fields[*one].name.cmp(&fields[*other].name));
        for field in &mut self.fields {
            field.finish();
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        let found = self.by_name.binary_search_by(|index| (*self.fields[*index].name).cmp(name));
        found.ok().map(|place| self.by_name[place])
    }

    /// Checks an object's members and adds up those that the schema does not name.
    pub(crate) fn check(&self, object: Value<'_>, unknown: &mut usize) -> Result<(), Refusal> {
        let mut required = 0;
        // Producers keep to the documents' order more often than not.
        let mut guess = 0;
        for member in object.children() {
            let index = match self.fields.get(guess) {
                Some(field) if member.key_is(&field.name) => guess,
                Some(_) | None => match self.find(&member.key()) {
                    Some(index) => index,
                    None => {
                        *unknown += 1;
                        continue;
                    }
                },
            };
            let field = &self.fields[index];
            guess = index + 1;
            required += usize::from(field.is_required);
            field.check(member, unknown)?;
        }
        if required < self.required {
            return Err(self.missing(object));
        }
        Ok(())
    }

    fn missing(&self, object: Value<'_>) -> Refusal {
        let missing = self
            .fields
            .iter()
            .find(|field| field.is_required && object.get(&field.name).is_none())
            .map_or("", |field| &field.name);
        Refusal::field(object.path_of(missing), "is required")
    }

    /// The members, in the order of the file.
    pub(crate) fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Whether the schema has this dotted path, arrays left out.
    pub(crate) fn has(&self, dotted: &str) -> bool {
        let (name, rest) = match dotted.split_once('.') {
            Some((name, rest)) => (name, Some(rest)),
            None => (dotted, None),
        };
        let Some(index) = self.find(name) else { return false };
        rest.is_none_or(|rest| self.fields[index].members.has(rest))
    }
}

impl Field {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn kind(&self) -> FieldType {
        self.kind
    }

    pub fn is_required(&self) -> bool {
        self.is_required
    }

    pub fn is_nullable(&self) -> bool {
        self.is_nullable
    }

    /// Of an object; empty if it is an open one.
    pub fn members(&self) -> &[Self] {
        &self.members.fields
    }

    /// What each element of an array must be, if the file says it.
    pub fn element(&self) -> Option<&Self> {
        self.element.as_deref()
    }

    fn open(name: &str) -> Self {
        Self {
            name: name.into(),
            kind: FieldType::Any,
            is_required: false,
            is_nullable: false,
            members: Schema::default(),
            element: None,
        }
    }

    fn place(&mut self, parts: &[&str], rule: &FieldRule) {
        match parts.split_first() {
            None => {
                self.kind = rule.kind;
                self.is_required = rule.is_required;
                self.is_nullable = rule.is_nullable;
            }
            Some((&"[]", rest)) => {
                self.element.get_or_insert_with(|| Box::new(Self::open("[]"))).place(rest, rule);
            }
            Some(_) => self.members.place(parts, rule),
        }
    }

    /// A field that only has something below it is what that needs.
    fn finish(&mut self) {
        if self.kind == FieldType::Any {
            if self.element.is_some() {
                self.kind = FieldType::Array;
            } else if !self.members.fields.is_empty() {
                self.kind = FieldType::Object;
            }
        }
        self.members.finish();
        if let Some(element) = &mut self.element {
            element.finish();
        }
    }

    fn check(&self, value: Value<'_>, unknown: &mut usize) -> Result<(), Refusal> {
        let kind = value.kind();
        if kind == Kind::Null && self.is_nullable {
            return Ok(());
        }
        if !self.kind.accepts(kind) {
            return Err(Refusal::new(
                QuarantineCode::BadField,
                Some(value.path()),
                self.kind.expected(),
            ));
        }
        // Nobody could name another one, in an answer to a fraud alert for instance.
        if self.kind == FieldType::Guid && !value.id_text().is_some_and(|text| is_opaque_id(&text))
        {
            let message = "must have 1 to 64 letters, digits and hyphens";
            return Err(Refusal::field(value.path(), message));
        }
        // An object of which the file names no member is open.
        if kind == Kind::Object && !self.members.fields.is_empty() {
            self.members.check(value, unknown)?;
        }
        if let (Kind::Array, Some(element)) = (kind, &self.element) {
            for item in value.children() {
                element.check(item, unknown)?;
            }
        }
        Ok(())
    }
}
