//! Ids. Each kind is a type of its own, so that one cannot be passed for another.

use std::{fmt, str::FromStr};

use uuid::Uuid;

/// A text that is not an id of the kind asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID in its 36-character form")]
pub struct IdError;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The 16 bytes as they stand in records. `None` for another length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }

            /// Writes the 36 characters of the text form, lower case.
            pub fn encode_text(&self, buffer: &mut [u8; 36]) {
                self.0.hyphenated().encode_lower(buffer);
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0.hyphenated(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                if text.len() != 36 {
                    return Err(IdError);
                }
                Uuid::try_parse(text).map(Self).map_err(|_bad| IdError)
            }
        }
    };
}

uuid_id! {
    /// A webhook of a client or a hook of a merchant: random, UUIDv4.
    WebhookId
}
uuid_id! {
    /// One event for one webhook: UUIDv8 of HMAC(deployment key, event uid and
    /// webhook id), so the same on any router at any time (design §4).
    NotificationId
}
uuid_id! {
    /// One going-through of the ladder: [`RunId::FIRST`] for the first delivery,
    /// UUIDv7 for a resend.
    RunId
}

impl RunId {
    /// The run of a first delivery, so that a router's replay has the same run.
    pub const FIRST: Self = Self::from_bytes([0; 16]);

    pub fn is_first(&self) -> bool {
        *self == Self::FIRST
    }
}

impl WebhookId {
    /// Makes a UUIDv4 of 16 random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }
}

impl NotificationId {
    /// Makes a UUIDv8 of the first 122 free bits of `digest`.
    pub fn from_digest(digest: [u8; 16]) -> Self {
        Self(uuid::Builder::from_custom_bytes(digest).into_uuid())
    }
}

impl RunId {
    /// Makes a UUIDv7 of a time and random bytes.
    pub fn from_parts(now: crate::Timestamp, random: [u8; 10]) -> Self {
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }
}

/// SHA-256 over what makes an event this event (design §4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventUid(pub [u8; 32]);

impl EventUid {
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for EventUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EventUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventUid({self})")
    }
}

/// The 16 bytes of a W3C trace id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// Whose a hook is, where webhooks of clients and hooks of merchants meet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HookOwner {
    /// A webhook of the EDS API.
    Client(crate::Scope),
    /// A hook of a merchant.
    Merchant(crate::MerchantKey),
    /// The operator's own hook: takes `webhook.*` events only.
    Operator,
}

/// Whether `text` can be an id that a producer or client made up:
/// `[0-9A-Za-z-]{1,64}` (design §10).
pub fn is_opaque_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
