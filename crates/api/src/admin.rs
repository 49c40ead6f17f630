//! The administrator's routes: tenants, the account, pauses, the quarantine, raw writes.

pub(crate) mod account;
pub(crate) mod explain;
pub(crate) mod pauses;
pub(crate) mod quarantine;
pub(crate) mod raw;
pub(crate) mod tenants;
