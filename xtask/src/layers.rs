//! The layers of the crates (ARCHITECTURE.md, "Code map") and the doors of heavy
//! libraries. `tidy` compares the manifests with this table.

/// Our crates with their layer. A crate may use those of lower layers only, and
/// those named in [`GRANTED`].
pub(crate) const LAYERS: &[(&str, u8)] = &[
    ("types", 0),
    ("catalogue", 1),
    ("routing", 1),
    ("delivery", 1),
    ("signing", 1),
    ("proto", 1),
    ("broker", 2),
    ("egress", 2),
    ("eventlog", 2),
    ("telemetry", 2),
    ("registry", 3),
    ("auth", 3),
    ("api", 4),
    ("router", 4),
    ("sender", 4),
    ("recorder", 4),
    ("tidings", 5),
];

/// Sideways uses that are wanted, each with its reason.
pub(crate) const GRANTED: &[(&str, &str, &str)] = &[(
    "routing",
    "catalogue",
    "the facts of an event that routing decides on are the catalogue's",
)];

/// Layers 0 and 1 do no I/O and have no clock: none of these.
pub(crate) const NOT_IN_PURE: &[&str] =
    &["tokio", "tokio-util", "hyper", "hyper-util", "axum", "rand", "tracing", "futures"];

/// Libraries with one door.
pub(crate) const DOORS: &[(&str, &[&str])] = &[
    ("fjall", &["broker"]),
    ("rdkafka", &["broker"]),
    ("sled", &["eventlog"]),
    ("crossbeam-epoch", &["eventlog"]),
    ("clap", &["tidings"]),
    ("anyhow", &["tidings"]),
    ("hickory-resolver", &["egress"]),
    ("socket2", &["egress"]),
    ("jsonwebtoken", &["auth"]),
    ("axum", &["api"]),
];
