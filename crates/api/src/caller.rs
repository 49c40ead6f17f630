//! Who calls, and whose resources the call is about (`spec.md` §1.2, design §10).
//!
//! The tenant comes from the verified token alone. `X-PM-Code` and ids in bodies
//! only select inside what the token allows; what is unknown and what is foreign
//! get the same answer.

use http::{HeaderMap, StatusCode};
use tidings_auth::{AuthError, Principal};
use tidings_registry::{ProgrammeManager, Snapshot};
use tidings_types::{HookOwner, IssuerId, PmId, Scope};

use crate::errors::{ApiError, Challenge, Code, Fault};

/// The part of the tenants' tree that a call is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// The issuer's own, and for reading that of its managers too.
    Issuer(IssuerId),
    /// One programme manager's.
    Manager(PmId),
}

impl Sight {
    /// Who owns what is created.
    pub(crate) fn scope(&self) -> Scope {
        match self {
            Self::Issuer(id) => Scope::Issuer(id.clone()),
            Self::Manager(id) => Scope::ProgrammeManager(*id),
        }
    }

    /// Whether this call may see what `owner` has.
    pub(crate) fn sees(&self, owner: &HookOwner, snapshot: &Snapshot) -> bool {
        match owner {
            HookOwner::Client(scope) => self.sees_scope(scope, snapshot),
            HookOwner::Merchant(_) | HookOwner::Operator => false,
        }
    }

    /// Whether this call may see what `scope` has.
    pub(crate) fn sees_scope(&self, scope: &Scope, snapshot: &Snapshot) -> bool {
        match (self, scope) {
            (Self::Issuer(mine), Scope::Issuer(theirs)) => mine == theirs,
            (Self::Issuer(_), Scope::ProgrammeManager(id)) => self.has_manager(*id, snapshot),
            (Self::Manager(mine), Scope::ProgrammeManager(theirs)) => mine == theirs,
            (Self::Manager(_), Scope::Issuer(_)) => false,
        }
    }

    /// Whether a programme manager is in this part of the tree.
    pub(crate) fn has_manager(&self, pm: PmId, snapshot: &Snapshot) -> bool {
        match self {
            Self::Manager(mine) => *mine == pm,
            Self::Issuer(mine) => {
                snapshot.pms.get(&pm).is_some_and(|manager| manager.issuer == *mine)
            }
        }
    }
}

/// Says what a call is about.
///
/// # Errors
/// The `PMCODE_…` codes of `spec.md` §1.2, `FORBIDDEN` for a token whose tenant is
/// not registered.
pub(crate) fn resolve(
    caller: &Principal,
    headers: &HeaderMap,
    snapshot: &Snapshot,
) -> Result<Sight, ApiError> {
    let code = pm_code(headers)?;
    if let Some(pm) = caller.pm {
        return manager(caller, pm, code.as_deref(), snapshot);
    }
    let Some(issuer) = &caller.issuer else {
        return Err(match code {
            Some(_) => mismatch("X-PM-Code"),
            None => ApiError::new(Code::PmcodeRequired),
        });
    };
    if !snapshot.issuers.contains_key(issuer) {
        return Err(ApiError::new(Code::Forbidden));
    }
    let own = Sight::Issuer(issuer.clone());
    match code {
        None => Ok(own),
        Some(code) => select(caller, &own, (&code, "X-PM-Code"), snapshot),
    }
}

fn manager(
    caller: &Principal,
    pm: PmId,
    code: Option<&str>,
    snapshot: &Snapshot,
) -> Result<Sight, ApiError> {
    let known = snapshot.pms.get(&pm).ok_or_else(|| mismatch(""))?;
    if caller.issuer.as_ref().is_some_and(|issuer| *issuer != known.issuer) {
        return Err(ApiError::new(Code::Forbidden));
    }
    match code {
        Some(code) if !is_named(known, code) => Err(mismatch("X-PM-Code")),
        Some(_) | None => Ok(Sight::Manager(pm)),
    }
}

/// The manager that `text` names, inside what `sight` covers.
///
/// # Errors
/// `PMCODE_NOT_VALID`: 403 if the token is a manager's and names another, else 400.
pub(crate) fn select(
    caller: &Principal,
    sight: &Sight,
    (text, field): (&str, &str),
    snapshot: &Snapshot,
) -> Result<Sight, ApiError> {
    let named = snapshot
        .pms
        .values()
        .find(|pm| is_named(pm, text))
        .filter(|pm| sight.has_manager(pm.id, snapshot));
    match named {
        Some(pm) => Ok(Sight::Manager(pm.id)),
        None if caller.pm.is_some() => Err(mismatch(field)),
        None => Err(ApiError::at(Code::PmcodeNotValid, field)),
    }
}

/// Whether `text` is the manager's code or its id.
fn is_named(pm: &ProgrammeManager, text: &str) -> bool {
    pm.code == text || pm.id.to_string() == text
}

fn mismatch(field: &str) -> ApiError {
    ApiError::at(Code::PmcodeNotValid, field).with_status(StatusCode::FORBIDDEN)
}

fn pm_code(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all("x-pm-code").iter();
    let (first, second) = (values.next(), values.next());
    let Some(value) = first else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| second.is_none());
    let text = text.ok_or_else(|| ApiError::at(Code::PmcodeNotValid, "X-PM-Code"))?;
    Ok(Some(text.trim().to_owned()))
}

/// Checks `X-Region`; absent is region 0 of a deployment that serves any.
///
/// # Errors
/// `INVALID_REGION`.
pub(crate) fn check_region(headers: &HeaderMap, pinned: Option<u8>) -> Result<(), ApiError> {
    let mut values = headers.get_all("x-region").iter();
    let region = match (values.next().map(http::HeaderValue::as_bytes), values.next()) {
        (None, _) => return Ok(()),
        (Some(b"0"), None) => 0,
        (Some(b"1"), None) => 1,
        (Some(b"2"), None) => 2,
        (Some(_), _) => return Err(ApiError::at(Code::InvalidRegion, "X-Region")),
    };
    match pinned {
        Some(pinned) if pinned != region => Err(ApiError::at(Code::InvalidRegion, "X-Region")),
        Some(_) | None => Ok(()),
    }
}

/// A token that is not taken, as the caller sees it: no word of which check failed.
pub(crate) fn refused(error: AuthError) -> ApiError {
    let (code, challenge) = match error {
        AuthError::Missing => (Code::Unauthorized, None),
        AuthError::Invalid(_) => (Code::Unauthorized, Some(Challenge::InvalidToken)),
        AuthError::Tenant => (Code::Forbidden, Some(Challenge::InvalidToken)),
        AuthError::Scope(scope) => (Code::Forbidden, Some(Challenge::InsufficientScope(scope))),
    };
    ApiError { challenge, ..Fault::new(code).saying(error.to_string()).into() }
}

/// The token of `Authorization: Bearer …`.
///
/// # Errors
/// `UNAUTHORIZED` if there is none, or several.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let refuse = || ApiError::new(Code::Unauthorized);
    let mut values = headers.get_all(http::header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(refuse()) };
    let text = value.to_str().map_err(|_not_ascii| refuse())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(refuse)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
        return Err(refuse());
    }
    Ok(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_zero_one_or_two_or_the_pinned_one() {
        let region = |text: &str, pinned| {
            let mut headers = HeaderMap::new();
            headers.insert("x-region", text.parse().unwrap());
            check_region(&headers, pinned).is_ok()
        };
        for text in ["0", "1", "2"] {
            assert!(region(text, None), "{text}");
        }
        for text in ["3", "-1", "", "00", "EMEA", "1 "] {
            assert!(!region(text, None), "{text}");
        }
        assert!(region("1", Some(1)));
        assert!(!region("0", Some(1)));
        assert!(check_region(&HeaderMap::new(), Some(1)).is_ok());
        let mut two = HeaderMap::new();
        two.append("x-region", "1".parse().unwrap());
        two.append("x-region", "2".parse().unwrap());
        assert!(check_region(&two, None).is_err());
    }

    #[test]
    fn a_bearer_token_is_taken_from_one_header_only() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("authorization", value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned).ok()
        };
        assert_eq!(of(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(of(&["bearer abc"]).as_deref(), Some("abc"));
        for bad in [&[][..], &["Bearer "], &["abc"], &["Basic abc"], &["Bearer a", "Bearer b"]] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }
}
