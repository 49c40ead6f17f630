//! Who owns what: issuer, programme manager, product, merchant.

use std::{fmt, sync::Arc};

/// The id of an issuer (BIN sponsor), as in the token claim `issuerid`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IssuerId(pub Arc<str>);

/// The id of a programme manager, as in the token claim `pmid` and the event's
/// `context.programManagerId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PmId(pub i64);

/// The id of a product. Compared as text, because events carry it as a number
/// or as a string (spec §6.5); canonical decimal without leading zeros when it
/// came as a number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProductId(pub Arc<str>);

/// The key of a merchant, `event_body.merchant.merch_key`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MerchantKey(pub Arc<str>);

/// Whose webhook or configuration it is: the issuer's or one manager's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Issuer(IssuerId),
    ProgrammeManager(PmId),
}

impl fmt::Display for IssuerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for ProductId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for MerchantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
