//! The words for what becomes of an event and of a notification.

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word on the wire, in logs and in metric labels.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

named! {
    /// The state of a notification. The API shows `Expired`, `Cancelled` and
    /// `Superseded` as `Undelivered` with a reason (design §10).
    NotificationState {
        Pending = "pending",
        Delivered = "delivered",
        Undelivered = "undelivered",
        Expired = "expired",
        Cancelled = "cancelled",
        Superseded = "superseded",
    }
}

named! {
    /// Why a notification ended undelivered (contract §3, history item).
    EndReason {
        Exhausted = "exhausted",
        Gone = "gone",
        Suspended = "suspended",
        TooManyOpen = "tooManyOpen",
        Window = "window",
        Expired = "expired",
        Cancelled = "cancelled",
        Superseded = "superseded",
    }
}

named! {
    /// Why an event went to nobody, in the order of how far it got (contract §3).
    FilterReason {
        UnknownTenant = "unknownTenant",
        NotSubscribed = "notSubscribed",
        Product = "product",
        Configuration = "configuration",
        Inactive = "inactive",
    }
}

named! {
    /// Why a record was refused at ingest or set aside by the router
    /// (`reliability-security.md` §7.8).
    QuarantineCode {
        BadJson = "BAD_JSON",
        BadUtf8 = "BAD_UTF8",
        BadField = "BAD_FIELD",
        UnknownCode = "UNKNOWN_CODE",
        DuplicateKey = "DUPLICATE_KEY",
        TooDeep = "TOO_DEEP",
        TooLarge = "TOO_LARGE",
        BadTenant = "BAD_TENANT",
        BadHeader = "BAD_HEADER",
        ForbiddenData = "FORBIDDEN_DATA",
        Empty = "EMPTY",
    }
}

named! {
    /// Which form of an event's body a webhook gets (design §6).
    Shape {
        Plain = "plain",
        StrictLegacy = "strictLegacyEnvelope",
        WireNames = "wireNames",
    }
}

named! {
    /// A webhook's status. Only the platform sets `Suspended`.
    WebhookStatus {
        Active = "active",
        Inactive = "inactive",
        Suspended = "suspended",
    }
}

named! {
    /// In which order a webhook gets its notifications (design §4).
    Ordering {
        /// As they come.
        None = "none",
        /// One in flight per order key within a lane.
        PerKey = "perKey",
        /// Everything in one lane, one in flight.
        Strict = "strict",
    }
}

named! {
    /// What happens when the first notification of an order key does not get
    /// through.
    StuckKey {
        /// Its successors wait until it does, also past the end of its ladder.
        Wait = "wait",
        /// At the end of its ladder the next one has its turn.
        Skip = "skip",
        /// As `Skip`, and a newer state of the same key and type takes the place
        /// of one that has failed.
        Supersede = "supersede",
    }
}

named! {
    /// What an attempt came to, apart from the HTTP status, which stands beside
    /// it (`reliability-security.md` §7.5). `Http` is written `HTTP_<status>`.
    AttemptCode {
        Delivered = "DELIVERED",
        Http = "HTTP",
        RedirectRefused = "REDIRECT_REFUSED",
        ConnectRefused = "CONNECT_REFUSED",
        ConnectTimeout = "CONNECT_TIMEOUT",
        ConnectionReset = "CONNECTION_RESET",
        ClosedEarly = "CLOSED_EARLY",
        Timeout = "TIMEOUT",
        DnsNotFound = "DNS_NOT_FOUND",
        DnsFailed = "DNS_FAILED",
        BlockedAddress = "BLOCKED_ADDRESS",
        TlsCertTime = "TLS_CERT_TIME",
        TlsNameMismatch = "TLS_NAME_MISMATCH",
        TlsUntrusted = "TLS_UNTRUSTED",
        TlsRejected = "TLS_REJECTED",
        TlsProtocol = "TLS_PROTOCOL",
        TlsClientAuth = "TLS_CLIENT_AUTH",
        TlsClientAuthNotAsked = "TLS_CLIENT_AUTH_NOT_ASKED",
        OauthTokenFailed = "OAUTH_TOKEN_FAILED",
        ResponseHeadersTooLarge = "RESPONSE_HEADERS_TOO_LARGE",
        ProtocolError = "PROTOCOL_ERROR",
        /// The operator's proxy is not there or does not let us in.
        ProxyFailed = "PROXY_FAILED",
        /// The operator's source address is not one of this machine.
        BindFailed = "BIND_FAILED",
        BadConfig = "BAD_CONFIG",
    }
}

impl AttemptCode {
    /// Whether it says nothing of the endpoint: the fault is the operator's, and the
    /// attempt does not count.
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::ProxyFailed | Self::BindFailed)
    }

    /// Reads what [`AttemptCode::text`] writes.
    pub fn from_text(text: &str) -> Option<Self> {
        if text.starts_with("HTTP_") { Some(Self::Http) } else { Self::from_name(text) }
    }

    /// The code as clients see it: `HTTP_503` where the endpoint answered.
    pub fn text(self, http_status: u16) -> String {
        match self {
            Self::Http => format!("HTTP_{http_status}"),
            Self::Delivered
            | Self::RedirectRefused
            | Self::ConnectRefused
            | Self::ConnectTimeout
            | Self::ConnectionReset
            | Self::ClosedEarly
            | Self::Timeout
            | Self::DnsNotFound
            | Self::DnsFailed
            | Self::BlockedAddress
            | Self::TlsCertTime
            | Self::TlsNameMismatch
            | Self::TlsUntrusted
            | Self::TlsRejected
            | Self::TlsProtocol
            | Self::TlsClientAuth
            | Self::TlsClientAuthNotAsked
            | Self::OauthTokenFailed
            | Self::ResponseHeadersTooLarge
            | Self::ProtocolError
            | Self::ProxyFailed
            | Self::BindFailed
            | Self::BadConfig => self.as_str().to_owned(),
        }
    }
}
