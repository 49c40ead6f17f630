//! The administrator's routes: tenants, the account, the quarantine, raw writes.

pub(crate) mod account;
pub(crate) mod quarantine;
pub(crate) mod raw;
pub(crate) mod tenants;
