//! What a verified token says about its bearer.

use std::collections::BTreeSet;

use tidings_types::{IssuerId, PmId};

use crate::verify::AuthError;

/// The scopes that exist (contract §2).
pub mod scopes {
    pub const READ: &str = "eds.read";
    pub const WRITE: &str = "eds.write";
    pub const PUBLISH: &str = "eds.publish";
    pub const ADMIN: &str = "admin";

    pub const ALL: &[&str] = &[READ, WRITE, PUBLISH, ADMIN];
}

/// The bearer of a verified token. Only [`crate::Verifier`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Principal {
    pub subject: String,
    pub scopes: BTreeSet<String>,
    /// Claim `issuerid`.
    pub issuer: Option<IssuerId>,
    /// Claim `pmid`.
    pub pm: Option<PmId>,
}

impl Principal {
    /// Checks that the token carries a scope.
    ///
    /// # Errors
    /// [`AuthError::Scope`] if it does not.
    pub fn require(&self, scope: &'static str) -> Result<(), AuthError> {
        if self.scopes.contains(scope) { Ok(()) } else { Err(AuthError::Scope(scope)) }
    }

    /// The tenant that the token names; `None` if it names none.
    pub fn tenant(&self) -> Option<TenantScope> {
        (self.issuer.is_some() || self.pm.is_some())
            .then(|| TenantScope { issuer: self.issuer.clone(), pm: self.pm })
    }
}

/// Whose data a call may touch. It can be made of a verified token and of nothing
/// else, so what asks for one cannot be called without (`reliability-security.md`
/// §3.5).
///
/// ```compile_fail
/// let forged = tidings_auth::TenantScope { issuer: None, pm: None };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantScope {
    issuer: Option<IssuerId>,
    pm: Option<PmId>,
}

impl TenantScope {
    pub fn issuer(&self) -> Option<&IssuerId> {
        self.issuer.as_ref()
    }

    pub fn pm(&self) -> Option<PmId> {
        self.pm
    }
}
