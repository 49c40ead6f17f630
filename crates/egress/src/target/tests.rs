//! The URL rows X1, X7 and X8 of `reliability-security.md` §7.11.

use super::*;

fn refused(text: &str, policy: &Policy) -> String {
    match Target::parse(text, policy) {
        Err(refusal) => refusal.to_string(),
        Ok(target) => panic!("{text:?} must be refused, became {:?}", target.as_str()),
    }
}

fn accepted(text: &str, policy: &Policy) -> Target {
    Target::parse(text, policy).unwrap_or_else(|refusal| panic!("{text:?}: {refusal}"))
}

#[test]
fn addresses_in_any_spelling_are_refused() {
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "[::1]",
        "[::]",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "[::ffff:10.0.0.1]",
        "[::ffff:0a00:1]",
        "[64:ff9b::10.0.0.1]",
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]",
        "[fe80::1]",
        "8.8.8.8",
        "[2606:4700::1111]",
        "１２７.0.0.1",
        "127。0。0。1",
        "0x7f.1",
        "0x7f.0x0.0x0.0x1",
        "256.256.256.256",
        "1.2.3.4.5",
        "0xffffffffff",
    ] {
        refused(&format!("https://{host}/"), &Policy::default());
    }
}

#[test]
fn names_that_are_not_public_are_refused() {
    for host in [
        "localhost",
        "LOCALHOST",
        "LOCALHOST.",
        "ａ.localhost",
        "printer",
        "a.local",
        "a.internal",
        "metadata.google.internal",
        "kafka.svc",
        "kafka.default.svc.cluster.local",
        "a.home.arpa",
        "a.onion",
        "example.com.",
        "example..com",
        ".example.com",
        "-a.example.com",
        "a-.example.com",
        "xn--a.example.com",
        "a_b",
        "exa%00mple.com",
        "exa mple.com",
        "exam%2eple.com*",
        "",
    ] {
        refused(&format!("https://{host}/"), &Policy::default());
    }
    let long_label = format!("https://{}.example.com/", "a".repeat(64));
    refused(&long_label, &Policy::default());
    // Disguised ASCII becomes the ASCII name that it is.
    refused("https://ｌｏｃａｌｈｏｓｔ/", &Policy::default());
    refused("https://xn--localhost-.com/", &Policy::default());
}

#[test]
fn urls_that_are_more_or_less_than_an_https_address_are_refused() {
    for text in [
        "",
        "x",
        "/relative",
        "//example.com/",
        "http://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "ftp://example.com/",
        "unix:/run/docker.sock",
        "ws://example.com/",
        "https:example.com",
        "https:/example.com",
        "https:///example.com",
        "https://",
        "https://user:pw@example.com/",
        "https://user@example.com/",
        "https://@example.com/",
        "https://:@example.com/",
        "https://public#@internal/",
        "https://example.com/#fragment",
        "https://example.com\\@x/",
        "https:\\\\example.com\\",
        "https://exam\tple.com/",
        "https://example.com/\n",
        " https://example.com/",
        "https://example.com/a b",
        "https://example.com/\u{a0}",
        "https://example.com:0/",
        "https://example.com:22/",
        "https://example.com:25/",
        "https://example.com:80/",
        "https://example.com:6379/",
        "https://example.com:9092/",
        "https://example.com:65536/",
        "https://example.com:x/",
        "javascript:alert(1)",
        "data:text/html,x",
    ] {
        refused(text, &Policy::default());
    }
}

#[test]
fn a_public_https_url_is_accepted_and_becomes_canonical() {
    for (text, canonical, authority, path) in [
        ("https://Example.COM", "https://example.com/", "example.com", "/"),
        (
            "https://example.com:443/a?b=c&d",
            "https://example.com/a?b=c&d",
            "example.com",
            "/a?b=c&d",
        ),
        ("https://a.b.example:8443/x", "https://a.b.example:8443/x", "a.b.example:8443", "/x"),
        (
            "https://client_domain.com/webhook",
            "https://client_domain.com/webhook",
            "client_domain.com",
            "/webhook",
        ),
        ("https://bücher.example/", "https://xn--bcher-kva.example/", "xn--bcher-kva.example", "/"),
        ("https://example.com/a/../b", "https://example.com/b", "example.com", "/b"),
        (
            "https://example.com/ä?ö",
            "https://example.com/%C3%A4?%C3%B6",
            "example.com",
            "/%C3%A4?%C3%B6",
        ),
        ("https://example.com/a@b", "https://example.com/a@b", "example.com", "/a@b"),
        ("https://local.example.com/", "https://local.example.com/", "local.example.com", "/"),
        ("https://notlocal.com/", "https://notlocal.com/", "notlocal.com", "/"),
    ] {
        let target = accepted(text, &Policy::default());
        assert_eq!(target.as_str(), canonical);
        assert_eq!(target.authority(), authority);
        assert_eq!(target.uri().to_string(), path);
        let again = accepted(target.as_str(), &Policy::default());
        assert_eq!(again.as_str(), canonical, "the canonical form is stable");
    }
}

#[test]
fn a_url_is_at_most_255_characters_also_when_canonical() {
    let of_length = |length: usize| format!("https://example.com/{}", "a".repeat(length - 20));
    accepted(&of_length(255), &Policy::default());
    refused(&of_length(256), &Policy::default());
    refused(&format!("https://example.com/{}", "ä".repeat(100)), &Policy::default());
}

#[test]
fn a_refusal_says_which_rule_is_broken() {
    let policy = Policy::default();
    assert_eq!(refused("http://example.com/", &policy), "the URL must begin with https://");
    assert_eq!(refused("https://10.0.0.1/", &policy), "this address is not a public one");
    assert_eq!(refused("https://8.8.8.8/", &policy), "the URL must name a host, not an address");
    assert_eq!(refused("https://printer/", &policy), "this host name is not a public one");
    assert_eq!(refused("https://example.com:22/", &policy), "this port is not allowed");
}

#[test]
fn dev_accepts_this_machine_and_nothing_else_that_is_internal() {
    let dev = Policy::dev();
    for text in [
        "http://127.0.0.1:9999/x",
        "http://localhost:9999/x",
        "http://[::1]:9999/",
        "https://localhost/",
        "http://127.1/",
        "http://receiver:8080/",
    ] {
        accepted(text, &dev);
    }
    refused("http://10.0.0.1/x", &dev);
    refused("http://0.0.0.0:80/", &dev);
    let loopback = "127.0.0.1".parse().unwrap();
    let public = "8.8.8.8".parse().unwrap();
    let private = "10.0.0.1".parse().unwrap();
    let name = accepted("http://receiver:8080/", &dev);
    assert_eq!(name.may_dial(loopback, &dev), Ok(()));
    assert_eq!(name.may_dial(public, &dev), Err(Class::Global), "only what dev allows");
    assert_eq!(name.may_dial(private, &dev), Err(Class::Private));
    let usual = accepted("https://example.com/", &dev);
    assert_eq!(usual.may_dial(public, &dev), Ok(()));
}

#[test]
fn an_allowed_network_lifts_the_rules_for_itself_alone() {
    let policy = Policy { allow: vec!["10.1.0.0/16".parse().unwrap()], ..Policy::default() };
    accepted("https://10.1.2.3:9000/", &policy);
    refused("https://10.2.0.1:9000/", &policy);
    refused("http://10.1.2.3/", &policy);
    for text in ["https://printer/", "https://hooks.internal:9000/", "https://example.com:9000/"] {
        let target = accepted(text, &policy);
        assert_eq!(target.may_dial("10.1.9.9".parse().unwrap(), &policy), Ok(()));
        assert_eq!(target.may_dial("::ffff:10.1.9.9".parse().unwrap(), &policy), Ok(()));
        assert_eq!(
            target.may_dial("8.8.8.8".parse().unwrap(), &policy),
            Err(Class::Global),
            "{text} breaks a rule for public addresses"
        );
    }
    let usual = accepted("https://example.com/", &policy);
    assert_eq!(usual.may_dial("8.8.8.8".parse().unwrap(), &policy), Ok(()));
    assert_eq!(usual.may_dial("10.2.0.1".parse().unwrap(), &policy), Err(Class::Private));
}

#[test]
fn plain_http_is_for_the_operator_to_allow() {
    let policy = Policy { allow_http: true, ..Policy::default() };
    accepted("http://example.com/", &policy);
    accepted("http://example.com:443/", &policy);
    refused("http://example.com:8080/", &policy);
    refused("http://10.0.0.1/", &policy);
    refused("https://example.com:80/", &policy);
}

#[test]
fn a_stored_url_that_is_refused_says_whether_its_place_or_its_form_is() {
    let dev = Policy::dev();
    for (text, code) in [
        ("https://127.0.0.1/", AttemptCode::BlockedAddress),
        ("http://127.0.0.1:9000/", AttemptCode::BlockedAddress),
        ("http://localhost/", AttemptCode::BlockedAddress),
        ("https://[::1]:9000/", AttemptCode::BlockedAddress),
        ("https://localhost/", AttemptCode::BlockedAddress),
        ("https://receiver/", AttemptCode::BlockedAddress),
        ("https://example.com:9000/", AttemptCode::BlockedAddress),
        ("http://example.com/", AttemptCode::BadConfig),
    ] {
        accepted(text, &dev);
        let refusal = Target::parse(text, &Policy::default()).unwrap_err();
        assert_eq!(refusal.code(), code, "{text}");
    }
}

#[test]
fn plain_http_is_a_question_of_its_own_for_this_machine_too() {
    let policy = Policy { allow_http: false, ..Policy::dev() };
    refused("http://127.0.0.1:9999/", &policy);
    refused("http://localhost/", &policy);
    accepted("https://127.0.0.1:9999/", &policy);
}
