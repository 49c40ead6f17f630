//! One event type, read from its file.

use serde::Deserialize;
use tidings_types::{Lane, Timestamp, TopicName, names};

use crate::{
    json::Document,
    sample,
    schema::{Field, FieldRule, Schema},
};

/// Which of the three kinds of event a type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Surface {
    /// A code of the Event Delivery Service; belongs to a programme manager.
    Eds,
    /// A merchant's event with a dotted name.
    Merchant,
    /// An event of Tidings itself, for the operator's hooks.
    Ops,
}

/// What the platform knows of one event type.
#[derive(Clone, Debug)]
pub struct EventType {
    name: Box<str>,
    pub(crate) aliases: Vec<String>,
    wire_name: Option<Box<str>>,
    surface: Surface,
    description: Box<str>,
    lane: Lane,
    ladder: Box<str>,
    partitions: u32,
    is_state: bool,
    has_raw_envelope: bool,
    needs_configuration: bool,
    order_key: Option<Box<str>>,
    product: Option<Box<str>>,
    deadline: Option<Box<str>>,
    deadline_default_minutes: u32,
    sensitive: Vec<String>,
    ephemeral: Vec<String>,
    schema: Schema,
    sample: Box<str>,
}

/// What a file says of a type, or of all its types under `[defaults]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TypeFile {
    pub(crate) name: Option<String>,
    #[serde(default)]
    aliases: Vec<String>,
    wire_name: Option<String>,
    surface: Option<Surface>,
    description: Option<String>,
    lane: Option<LaneName>,
    ladder: Option<String>,
    partitions: Option<u32>,
    state: Option<bool>,
    raw_envelope: Option<bool>,
    configuration: Option<bool>,
    order_key: Option<String>,
    product: Option<String>,
    deadline: Option<String>,
    deadline_default_minutes: Option<u32>,
    #[serde(default)]
    sensitive: Vec<String>,
    #[serde(default)]
    ephemeral: Vec<String>,
    #[serde(default)]
    fields: Vec<String>,
    sample: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LaneName {
    Urgent,
    Standard,
}

/// How many partitions a topic has whose file does not say.
const PARTITIONS: u32 = 3;
/// How long after `notificationTime` a deadline is that the event leaves out,
/// in minutes (design §6).
const DEADLINE_DEFAULT: u32 = 15;

impl EventType {
    /// Reads a type; what it leaves out comes from `defaults`.
    pub(crate) fn build(own: TypeFile, defaults: &TypeFile) -> Result<Self, String> {
        let base = defaults.clone();
        let surface = own.surface.or(base.surface).ok_or("`surface` is missing")?;
        let name = own.name.ok_or("`name` is missing")?;
        if !TopicName::is_legal(&name) {
            return Err(format!("`{name}` cannot be part of a topic's name"));
        }
        if surface == Surface::Eds
            && !(name.len() == 3 && name.parse::<u16>().is_ok_and(|code| code >= 100))
        {
            return Err(format!("`{name}` is no event code: 100 to 999"));
        }
        let mut rules = Vec::new();
        for field in base.fields.iter().chain(&own.fields) {
            rules.push(field.parse::<FieldRule>()?);
        }
        let sample = own.sample.or(base.sample).ok_or("`sample` is missing")?;
        let ladder = own.ladder.or(base.ladder).unwrap_or_else(|| "standard".to_owned());
        let both = |mut first: Vec<String>, second: Vec<String>| {
            first.extend(second);
            first
        };
        let boxed = |text: Option<String>| text.map(String::into_boxed_str);
        let built = Self {
            name: name.into(),
            aliases: own.aliases,
            wire_name: boxed(own.wire_name),
            surface,
            description: own.description.ok_or("`description` is missing")?.into(),
            lane: match own.lane.or(base.lane) {
                Some(LaneName::Urgent) => Lane::Urgent,
                Some(LaneName::Standard) | None => Lane::Standard,
            },
            ladder: ladder.into(),
            partitions: own.partitions.or(base.partitions).unwrap_or(PARTITIONS),
            is_state: own.state.or(base.state).unwrap_or(false),
            has_raw_envelope: own.raw_envelope.or(base.raw_envelope).unwrap_or(false),
            needs_configuration: own.configuration.or(base.configuration).unwrap_or(false),
            order_key: boxed(own.order_key.or(base.order_key)),
            product: boxed(own.product.or(base.product)),
            deadline: boxed(own.deadline.or(base.deadline)),
            deadline_default_minutes: own
                .deadline_default_minutes
                .or(base.deadline_default_minutes)
                .unwrap_or(DEADLINE_DEFAULT),
            sensitive: both(base.sensitive, own.sensitive),
            ephemeral: both(base.ephemeral, own.ephemeral),
            schema: Schema::build(&rules),
            sample: sample::compact(&sample).into(),
        };
        built.check()?;
        Ok(built)
    }

    fn check(&self) -> Result<(), String> {
        if self.partitions == 0 {
            return Err("`partitions` must be at least 1".to_owned());
        }
        if self.description.is_empty() || self.description.len() > 200 {
            return Err("`description` must have 1 to 200 characters".to_owned());
        }
        let named = self
            .order_key
            .iter()
            .chain(&self.product)
            .chain(&self.deadline)
            .map(AsRef::as_ref)
            .chain(self.sensitive.iter().chain(&self.ephemeral).map(String::as_str));
        for path in named {
            if !self.schema.has(path) {
                return Err(format!("`fields` has no `{path}`"));
            }
        }
        if self.ephemeral.iter().any(|path| path.contains('.')) {
            return Err("`ephemeral` names members of the payload itself".to_owned());
        }
        let text = self.sample(Timestamp::ZERO, 0, 1, "m");
        match Document::parse(&text) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("`sample` is no JSON: {error}")),
        }
    }

    /// `101`, or `transaction.sale.success`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn surface(&self) -> Surface {
        self.surface
    }

    /// Whether it is a code that webhooks of the EDS API subscribe to.
    pub fn is_eds(&self) -> bool {
        self.surface == Surface::Eds
    }

    /// Whether it is an event that merchants' hooks subscribe to.
    pub fn is_merchant(&self) -> bool {
        self.surface == Surface::Merchant
    }

    /// Whether it is an event of Tidings itself, for the operator's hooks only.
    pub fn is_ops(&self) -> bool {
        self.surface == Surface::Ops
    }

    /// The code of an EDS type, 100 to 999.
    pub fn code(&self) -> Option<u16> {
        if self.is_eds() { self.name.parse().ok() } else { None }
    }

    /// What the subscriptions answer says of it; 1 to 200 characters.
    pub fn description(&self) -> &str {
        &self.description
    }

    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// The retry ladder of webhooks that name none.
    pub fn ladder(&self) -> &str {
        &self.ladder
    }

    pub(crate) fn set_partitions(&mut self, partitions: u32) {
        self.partitions = partitions;
    }

    /// How many partitions its topic is made with.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The topic that its events are published to.
    pub fn topic(&self) -> TopicName {
        match self.surface {
            Surface::Eds | Surface::Merchant => names::events(&self.name),
            Surface::Ops => names::events(crate::catalogue::OPS),
        }
    }

    /// Whether each event replaces the earlier ones of its order key, so that a
    /// webhook may have those dropped (`supersede`).
    pub fn is_state(&self) -> bool {
        self.is_state
    }

    /// Whether the delivered body keeps `programManagerId` and `messageHeaders`
    /// (105 and 117).
    pub fn has_raw_envelope(&self) -> bool {
        self.has_raw_envelope
    }

    /// Whether a recipient also needs a transaction configuration (112).
    pub fn needs_configuration(&self) -> bool {
        self.needs_configuration
    }

    /// The name that hooks with `wireNames: "vendor"` get instead.
    pub fn wire_name(&self) -> Option<&str> {
        self.wire_name.as_deref()
    }

    /// The payload's field by which events are ordered, if it has one.
    pub fn order_key(&self) -> Option<&str> {
        self.order_key.as_deref()
    }

    /// The payload's field that names the product.
    pub fn product(&self) -> Option<&str> {
        self.product.as_deref()
    }

    /// The payload's field that ends a notification's life.
    pub fn deadline(&self) -> Option<&str> {
        self.deadline.as_deref()
    }

    pub(crate) fn deadline_default_minutes(&self) -> u32 {
        self.deadline_default_minutes
    }

    /// The payload's fields that people see masked.
    pub fn sensitive(&self) -> &[String] {
        &self.sensitive
    }

    /// The payload's own members that nobody may keep past the deadline.
    pub fn ephemeral(&self) -> &[String] {
        &self.ephemeral
    }

    /// What its payload (of a merchant event, its `event_body`) has.
    pub fn fields(&self) -> &[Field] {
        self.schema.fields()
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// A whole valid event on one line, as a producer publishes it. Its times are
    /// around `now`; samples with different seeds are different events.
    pub fn sample(
        &self,
        now: Timestamp,
        seed: u64,
        programme_manager: i64,
        merchant: &str,
    ) -> Vec<u8> {
        let frame = sample::Frame { now, seed, programme_manager, merchant };
        sample::fill(&sample::envelope(self, &self.sample), self.name(), &frame)
    }
}
