//! The table of routes. What it lists is what exists: requests are matched
//! against it, `dispatch` answers each [`Operation`] of it, and `openapi` is
//! written from it, so that the three cannot differ.
//!
//! Fixed words match without regard to case, one trailing slash is ignored, and
//! the EDS API stands under two prefixes (`spec.md` §1.3). Parameters are
//! percent-decoded and keep their case.

mod table;

use crate::errors::Code;

pub(crate) use table::{PREFIXES, ROUTES};

/// What a route does, by the group that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Operation {
    Open(Open),
    Platform(Platform),
    Eds(Eds),
}

/// What anybody may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Open {
    Health,
    Ready,
    Metrics,
    Describe,
    Keys,
}

/// What producers and administrators do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Platform {
    Ingest,
    ApplyTenants,
    CreateHook,
    ListHooks,
    GetHook,
    UpdateHook,
    DeleteHook,
    HookNotificationsByType,
    HookNotifications,
    HookUndelivered,
    HookResend,
    HookAttempts,
    FraudResponses,
    CreatePause,
    ListPauses,
    DeletePause,
    Account,
    Explain,
    ListQuarantine,
    ShowQuarantine,
    Redrive,
    Raw,
}

/// What clients of the EDS API do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Eds {
    CreateWebhook,
    ListWebhooks,
    GetWebhook,
    UpdateWebhook,
    SetStatus,
    DeleteWebhook,
    ListSubscriptions,
    AddSubscriptions,
    RemoveSubscription,
    RemoveSubscriptions,
    NotificationsByCode,
    Notifications,
    Undelivered,
    Resend,
    Attempts,
    RotateSecret,
    Heartbeat,
    Ping,
    AnswerFraudAlert,
    CreateConfiguration,
    ListConfigurations,
    GetConfiguration,
    UpdateConfiguration,
    EgressAddresses,
}

impl Operation {
    /// The operation's name, in descriptions and metrics.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Open(operation) => format!("{operation:?}"),
            Self::Platform(operation) => format!("{operation:?}"),
            Self::Eds(operation) => format!("{operation:?}"),
        }
    }

    /// Whether it answers from the registry as it was last folded, however old that is.
    pub(crate) fn reads_registry(self) -> bool {
        matches!(
            self,
            Self::Platform(Platform::ListHooks | Platform::GetHook | Platform::ListPauses)
                | Self::Eds(
                    Eds::ListWebhooks
                        | Eds::GetWebhook
                        | Eds::ListSubscriptions
                        | Eds::ListConfigurations
                        | Eds::GetConfiguration
                )
        )
    }

    /// Under which prefixes the operation's path stands.
    pub(crate) fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Open(_) | Self::Platform(_) => &[""],
            Self::Eds(_) => PREFIXES,
        }
    }
}

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody.
    Open,
    /// Bearers of a token with this scope.
    Scope(&'static str),
    /// As `Scope`, and only under `--dev`: otherwise the route does not exist.
    Dev(&'static str),
}

/// What body a route reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyRule {
    /// None; what is sent is not read.
    None,
    /// `application/json`, at most [`MAX_BODY`].
    Json,
    /// `application/json`, at most [`MAX_BATCH`].
    LargeJson,
    /// `application/json` or none, at most [`MAX_BATCH`].
    OptionalJson,
    /// `application/json` or `application/x-ndjson`, at most [`MAX_BATCH`].
    Events,
}

/// The largest body of a request that changes or reads settings.
pub(crate) const MAX_BODY: usize = 64 * 1024;
/// The largest body of a batch of events.
pub(crate) const MAX_BATCH: usize = 4 * 1024 * 1024;

impl BodyRule {
    pub(crate) const fn limit(self) -> usize {
        match self {
            Self::None => 0,
            Self::Json => MAX_BODY,
            Self::LargeJson | Self::OptionalJson | Self::Events => MAX_BATCH,
        }
    }
}

/// One route, with what the API's description says of it.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) operation: Operation,
    /// The first is the one of the documents, the others mean the same.
    pub(crate) methods: &'static [&'static str],
    /// Fixed words and `{parameters}`.
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    pub(crate) body: BodyRule,
    pub(crate) summary: &'static str,
    /// Names of the query parameters (`openapi` describes them).
    pub(crate) query: &'static [&'static str],
    /// Names of schemas in `openapi`; empty: none.
    pub(crate) request: &'static str,
    pub(crate) response: &'static str,
    pub(crate) status: u16,
    /// The codes that are this route's own.
    pub(crate) errors: &'static [Code],
}

/// What a path and a method come to.
#[derive(Debug)]
pub(crate) enum Match {
    Found {
        route: &'static Route,
        params: Vec<(&'static str, String)>,
    },
    /// The path exists, but not with this method; the value of `Allow`.
    OtherMethod(String),
    None,
}

/// Finds the route of a request.
pub(crate) fn find(method: &str, path: &str) -> Match {
    let trimmed = match path.strip_suffix('/') {
        Some(shorter) if !shorter.is_empty() => shorter,
        Some(_) | None => path,
    };
    let mut allowed: Vec<&str> = Vec::new();
    for route in ROUTES {
        for prefix in route.operation.prefixes() {
            let Some(rest) = strip_words(trimmed, prefix) else { continue };
            let Some(params) = match_path(rest, route.path) else { continue };
            let fits = |known: &&str| {
                *known == method
                    || (method == "HEAD" && *known == "GET" && route.access == Access::Open)
            };
            if route.methods.iter().any(fits) {
                return Match::Found { route, params };
            }
            for known in route.methods {
                if !allowed.contains(known) {
                    allowed.push(known);
                }
            }
        }
    }
    if allowed.is_empty() { Match::None } else { Match::OtherMethod(allowed.join(", ")) }
}

/// Takes the fixed words of `prefix` off `path`.
fn strip_words<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let (head, rest) = path.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The parameters of `path` if it has the form of `pattern`.
fn match_path(path: &str, pattern: &'static str) -> Option<Vec<(&'static str, String)>> {
    let mut params = Vec::new();
    let mut words = path.split('/');
    let mut expected = pattern.split('/');
    loop {
        match (words.next(), expected.next()) {
            (None, None) => return Some(params),
            (Some(word), Some(part)) => {
                match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                    Some(name) => params.push((name, percent_decode(word))),
                    None if word.eq_ignore_ascii_case(part) => {}
                    None => return None,
                }
            }
            (Some(_), None) | (None, Some(_)) => return None,
        }
    }
}

/// Resolves `%XX`; what is no UTF-8 afterwards becomes a replacement character,
/// which no id has.
fn percent_decode(word: &str) -> String {
    let bytes = word.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while let Some(byte) = bytes.get(place) {
        let pair = bytes.get(place + 1..place + 3).filter(|_| *byte == b'%');
        let value = pair
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match value {
            Some(value) => {
                out.push(value);
                place += 3;
            }
            None => {
                out.push(*byte);
                place += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> Option<(Operation, Vec<(&'static str, String)>)> {
        match find(method, path) {
            Match::Found { route, params } => Some((route.operation, params)),
            Match::OtherMethod(_) | Match::None => None,
        }
    }

    #[test]
    fn fixed_words_match_without_regard_to_case_and_ids_keep_theirs() {
        for path in [
            "/api/v1/Webhooks/AbC/Status",
            "/EDS/API/V1/webhooks/AbC/status/",
            "/eds/api/v1/WEBHOOKS/AbC/STATUS",
        ] {
            let (operation, params) = found("PATCH", path).unwrap();
            assert_eq!(operation, Operation::Eds(Eds::SetStatus), "{path}");
            assert_eq!(params, [("webhookId", "AbC".to_owned())], "{path}");
        }
    }

    #[test]
    fn a_literal_word_is_not_taken_for_an_id() {
        let (operation, _) = found("GET", "/api/v1/webhooks/x/notifications/undelivered").unwrap();
        assert_eq!(operation, Operation::Eds(Eds::Undelivered));
    }

    #[test]
    fn a_known_path_with_another_method_says_what_it_allows() {
        let Match::OtherMethod(allow) = find("TRACE", "/api/v1/webhooks/x/subscriptions") else {
            panic!("expected another method");
        };
        assert_eq!(allow, "GET, PUT, POST, DELETE");
    }

    #[test]
    fn an_encoded_slash_stays_inside_its_parameter() {
        let (_, params) = found("GET", "/api/v1/webhooks/a%2Fb").unwrap();
        assert_eq!(params[0].1, "a/b");
        assert!(matches!(find("GET", "/api/v1/webhooks/a/b"), Match::None));
    }

    #[test]
    fn every_route_is_found_under_its_own_path() {
        for route in ROUTES {
            for method in route.methods {
                for prefix in route.operation.prefixes() {
                    let path = format!("{prefix}{}", route.path);
                    let (operation, _) = found(method, &path).unwrap();
                    assert_eq!(operation, route.operation, "{method} {path}");
                }
            }
        }
    }
}
