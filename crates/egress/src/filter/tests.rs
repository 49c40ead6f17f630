//! The rows X1 to X4 of `reliability-security.md` §7.11 as tables.

use super::*;

/// Every IPv4 block of X1 and X2: first, last and one in the middle.
const REFUSED_V4: &[(&str, Class)] = &[
    ("0.0.0.0", Class::Unspecified),
    ("0.1.2.3", Class::Unspecified),
    ("0.255.255.255", Class::Unspecified),
    ("10.0.0.0", Class::Private),
    ("10.255.255.255", Class::Private),
    ("100.64.0.0", Class::SharedNat),
    ("100.100.100.200", Class::SharedNat),
    ("100.127.255.255", Class::SharedNat),
    ("127.0.0.0", Class::Loopback),
    ("127.0.0.1", Class::Loopback),
    ("127.255.255.255", Class::Loopback),
    ("168.63.129.16", Class::CloudMetadata),
    ("169.254.0.0", Class::LinkLocal),
    ("169.254.169.254", Class::LinkLocal),
    ("169.254.255.255", Class::LinkLocal),
    ("172.16.0.0", Class::Private),
    ("172.31.255.255", Class::Private),
    ("192.0.0.0", Class::Special),
    ("192.0.0.192", Class::Special),
    ("192.0.0.255", Class::Special),
    ("192.0.2.0", Class::Documentation),
    ("192.0.2.255", Class::Documentation),
    ("192.88.99.0", Class::Embedded),
    ("192.88.99.255", Class::Embedded),
    ("192.168.0.0", Class::Private),
    ("192.168.255.255", Class::Private),
    ("198.18.0.0", Class::Special),
    ("198.19.255.255", Class::Special),
    ("198.51.100.0", Class::Documentation),
    ("198.51.100.255", Class::Documentation),
    ("203.0.113.0", Class::Documentation),
    ("203.0.113.255", Class::Documentation),
    ("224.0.0.0", Class::Multicast),
    ("239.255.255.255", Class::Multicast),
    ("240.0.0.0", Class::Reserved),
    ("255.255.255.255", Class::Reserved),
];

#[test]
fn every_special_ipv4_block_is_refused_from_its_first_to_its_last_address() {
    for (text, class) in REFUSED_V4 {
        assert_eq!(classify(text.parse().unwrap()), *class, "{text}");
    }
}

#[test]
fn the_neighbours_of_special_ipv4_blocks_are_public() {
    for text in [
        "1.0.0.0",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "168.63.129.17",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "191.255.255.255",
        "192.0.1.0",
        "192.0.3.0",
        "192.88.98.255",
        "192.88.100.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "198.51.99.255",
        "198.51.101.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
    ] {
        assert_eq!(classify(text.parse().unwrap()), Class::Global, "{text}");
    }
}

#[test]
fn an_ipv4_address_inside_ipv6_is_refused_in_every_form() {
    let carried = REFUSED_V4.iter().map(|(text, _)| *text).chain(["8.8.8.8", "1.1.1.1"]);
    for text in carried {
        let v4: Ipv4Addr = text.parse().unwrap();
        let [a, b, c, d] = v4.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let (inverse_high, inverse_low) = (!high, !low);
        for form in [
            Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 1, high, low, 0, 0, 0),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0, 0x4136, 0xe378, 0x8000, 63, inverse_high, inverse_low),
            Ipv6Addr::new(0x2a00, 1, 2, 3, 0, 0x5efe, high, low),
            Ipv6Addr::new(0x2a00, 1, 2, 3, 0x0200, 0x5efe, high, low),
        ] {
            assert_eq!(classify(IpAddr::V6(form)), Class::Embedded, "{form} of {text}");
        }
        // `::a.b.c.d` has `::` and `::1` among its forms.
        let compatible = Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low);
        assert_ne!(classify(IpAddr::V6(compatible)), Class::Global, "{compatible}");
    }
}

#[test]
fn special_ipv6_blocks_are_refused() {
    for (text, class) in [
        ("::", Class::Unspecified),
        ("::1", Class::Loopback),
        ("::2", Class::Embedded),
        ("64:ff9b::", Class::Embedded),
        ("64:ff9b:1:ffff:ffff:ffff:ffff:ffff", Class::Embedded),
        ("100::", Class::Special),
        ("100::ffff:ffff:ffff:ffff", Class::Special),
        ("100:0:0:1::", Class::Special),
        ("200::1", Class::Reserved),
        ("1fff:ffff::", Class::Reserved),
        ("2001::1", Class::Embedded),
        ("2001:1::1", Class::Special),
        ("2001:2::1", Class::Special),
        ("2001:20::1", Class::Special),
        ("2001:1ff:ffff::", Class::Special),
        ("2001:db8::", Class::Documentation),
        ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Class::Documentation),
        ("2002::", Class::Embedded),
        ("3fff::", Class::Documentation),
        ("3fff:fff:ffff::", Class::Documentation),
        ("4000::1", Class::Reserved),
        ("5f00::1", Class::Special),
        ("fc00::", Class::Private),
        ("fd00:ec2::254", Class::Private),
        ("fdff:ffff::", Class::Private),
        ("fe80::1", Class::LinkLocal),
        ("febf:ffff::", Class::LinkLocal),
        ("fec0::1", Class::Private),
        ("feff::1", Class::Private),
        ("ff00::", Class::Multicast),
        ("ff02::1", Class::Multicast),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Multicast),
    ] {
        assert_eq!(classify(text.parse().unwrap()), class, "{text}");
    }
}

#[test]
fn public_ipv6_addresses_may_be_dialled() {
    for text in [
        "2001:200::1",
        "2001:4860:4860::8888",
        "2001:db7:ffff::1",
        "2001:db9::1",
        "2003::1",
        "2606:4700::1111",
        "2620:4f:8000::1",
        "2a00:1450:4001::5",
        "3fff:1000::1",
    ] {
        assert_eq!(classify(text.parse().unwrap()), Class::Global, "{text}");
    }
}

#[test]
fn every_class_has_a_word_of_its_own() {
    let mut words: Vec<_> = Class::ALL.iter().map(|class| class.as_str()).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), Class::ALL.len());
}
