//! Says what kind of address an address is: whether it belongs to the public
//! internet or to something that a customer's URL must not reach.
//!
//! The rule is "globally reachable unicast" by both IANA special-purpose address
//! registries, multicast taken out, and every IPv6 form that carries an IPv4
//! address refused whatever it carries (`reliability-security.md` §3.1, §7.11).
//! Pure; what an operator lets through all the same is [`crate::Policy`]'s.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is. Only [`Class::Global`] may be dialled without the
/// operator's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Public unicast.
    Global,
    /// 0.0.0.0/8 and `::`.
    Unspecified,
    Loopback,
    /// RFC 1918, unique local and site-local.
    Private,
    /// Carrier-grade NAT, 100.64.0.0/10; some clouds' metadata.
    SharedNat,
    /// Link-local; most clouds' metadata.
    LinkLocal,
    /// A cloud's metadata service at a public address.
    CloudMetadata,
    /// IETF protocol assignments, benchmarking, discard, segment routing.
    Special,
    Documentation,
    Multicast,
    /// Class E, broadcast, and all IPv6 outside 2000::/3 that nothing else names.
    Reserved,
    /// IPv6 that carries an IPv4 address: mapped, compatible, translated, NAT64,
    /// 6to4, Teredo, ISATAP; and the 6to4 relay.
    Embedded,
    /// Named by the operator, whatever it is.
    Denied,
}

impl Class {
    pub const ALL: &'static [Self] = &[
        Self::Global,
        Self::Unspecified,
        Self::Loopback,
        Self::Private,
        Self::SharedNat,
        Self::LinkLocal,
        Self::CloudMetadata,
        Self::Special,
        Self::Documentation,
        Self::Multicast,
        Self::Reserved,
        Self::Embedded,
        Self::Denied,
    ];

    /// The word in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::SharedNat => "shared_nat",
            Self::LinkLocal => "link_local",
            Self::CloudMetadata => "cloud_metadata",
            Self::Special => "special",
            Self::Documentation => "documentation",
            Self::Multicast => "multicast",
            Self::Reserved => "reserved",
            Self::Embedded => "embedded",
            Self::Denied => "denied",
        }
    }
}

/// Says what `address` is.
pub fn classify(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

fn classify_v4(address: Ipv4Addr) -> Class {
    match address.octets() {
        [0, ..] => Class::Unspecified,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Class::Private,
        [100, 64..=127, ..] => Class::SharedNat,
        [127, ..] => Class::Loopback,
        [169, 254, ..] => Class::LinkLocal,
        // Azure's host, the one metadata service at a public address.
        [168, 63, 129, 16] => Class::CloudMetadata,
        [192, 0, 0, _] | [198, 18..=19, ..] => Class::Special,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Class::Documentation,
        [192, 88, 99, _] => Class::Embedded,
        [224..=239, ..] => Class::Multicast,
        [240..=255, ..] => Class::Reserved,
        _ => Class::Global,
    }
}

fn classify_v6(address: Ipv6Addr) -> Class {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Loopback,
        // Mapped, compatible and translated forms are all within ::/32.
        [0, 0, ..] | [0x64, 0xff9b, ..] => Class::Embedded,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Class::Private,
        [0xfe80..=0xfebf, ..] => Class::LinkLocal,
        [0xff00..=0xffff, ..] => Class::Multicast,
        [0x0100, 0, 0, 0..=1, ..] | [0x5f00, ..] => Class::Special,
        // Teredo, within 2001::/23.
        [0x2001, 0, ..] | [0x2002, ..] | [_, _, _, _, 0 | 0x0200, 0x5efe, ..] => Class::Embedded,
        [0x2001, 0x0001..=0x01ff, ..] => Class::Special,
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => Class::Documentation,
        [0x2000..=0x3fff, ..] => Class::Global,
        _ => Class::Reserved,
    }
}

#[cfg(test)]
mod tests;
