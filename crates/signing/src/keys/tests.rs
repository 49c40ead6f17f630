//! What is sealed opens where it was put, and nowhere else.

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::*;

#[test]
fn what_is_sealed_opens_only_where_it_was_put() {
    let ring = KeyRing::generate(&[7; 32]);
    let sealed = ring.seal(&SealKey::Registry, b"webhook/1", b"secret", [1; 12]);
    assert_eq!(ring.open(&sealed, b"webhook/1").unwrap(), b"secret");
    assert_eq!(ring.open(&sealed, b"webhook/2"), Err(OpenError::Damaged));
    assert!(!sealed.data.windows(6).any(|window| window == b"secret"));
    for length in 0..sealed.data.len() {
        let cut = Sealed { data: sealed.data[..length].to_vec(), ..sealed.clone() };
        assert_eq!(ring.open(&cut, b"webhook/1"), Err(OpenError::Damaged));
    }
    for index in 0..sealed.data.len() {
        let mut bent = sealed.clone();
        bent.data[index] ^= 1;
        assert_eq!(ring.open(&bent, b"webhook/1"), Err(OpenError::Damaged));
    }
    let other_nonce = Sealed { nonce: [2; 12], ..sealed.clone() };
    assert_eq!(ring.open(&other_nonce, b"webhook/1"), Err(OpenError::Damaged));
    assert!(KeyRing::generate(&[8; 32]).open(&sealed, b"webhook/1").is_err());
}

#[test]
fn an_unknown_key_is_named_and_never_a_panic() {
    let ring = KeyRing::generate(&[7; 32]);
    let sealed = ring.seal(&SealKey::Registry, b"", b"secret", [1; 12]);
    for name in ["k9/registry", "", "/", "k1", "registry", "bucket/1/a", &"k1/".repeat(1000)] {
        let other = Sealed { key: name.to_owned(), ..sealed.clone() };
        assert_eq!(ring.open(&other, b""), Err(OpenError::UnknownKey(name.to_owned())));
    }
    let other = Sealed { key: "k1/quarantine".to_owned(), ..sealed };
    assert_eq!(ring.open(&other, b""), Err(OpenError::Damaged));
}

#[test]
fn every_purpose_issuer_and_month_has_a_key_of_its_own() {
    let ring = KeyRing::generate(&[7; 32]);
    let july = Timestamp::from_civil_day(2024, 7, 31).unwrap();
    let august = Timestamp::from_civil_day(2024, 8, 1).unwrap();
    let purposes = [
        SealKey::Registry,
        SealKey::Quarantine,
        SealKey::Snippet,
        SealKey::Command,
        SealKey::Wrap,
        SealKey::Body { issuer: "7001", at: july },
        SealKey::Body { issuer: "7001", at: august },
        SealKey::Body { issuer: "7002", at: july },
    ];
    let seal = |purpose| ring.seal(purpose, b"", b"the same", [1; 12]);
    let sealed: Vec<Sealed> = purposes.iter().map(seal).collect();
    assert_eq!(sealed[5].key, "k1/body/7001/2024-07");
    for (index, one) in sealed.iter().enumerate() {
        assert!(sealed[index + 1..].iter().all(|two| two.data != one.data && two.key != one.key));
    }
}

#[test]
fn an_older_master_key_still_opens() {
    let first = KeyRing::generate(&[7; 32]);
    let sealed = first.seal(&SealKey::Command, b"", b"x", [1; 12]);
    let text = format!("# comment\n\n{}k2 = {}\n", first.to_text(), STANDARD.encode([9; 32]));
    let both = KeyRing::parse(&text).unwrap();
    assert_eq!(both.open(&sealed, b"").unwrap(), b"x");
    assert!(both.seal(&SealKey::Command, b"", b"x", [2; 12]).key.starts_with("k2/"));
    assert_eq!(KeyRing::parse(&both.to_text()).unwrap().to_text(), both.to_text());
    assert_eq!(format!("{both:?}"), "KeyRing(2 keys)");
}

#[test]
fn a_bad_line_of_the_key_file_is_named() {
    let good = KeyRing::generate(&[7; 32]).to_text();
    assert_eq!(KeyRing::parse("k1 = x").unwrap_err(), KeyFileError::Line(1));
    assert_eq!(KeyRing::parse("k1").unwrap_err(), KeyFileError::Line(1));
    assert_eq!(KeyRing::parse(&format!("{good}{good}")).unwrap_err(), KeyFileError::Line(2));
    assert_eq!(KeyRing::parse(&good.replace("k1", "a/b")).unwrap_err(), KeyFileError::Line(1));
    assert_eq!(KeyRing::parse(&good.replace("k1", "bucket")).unwrap_err(), KeyFileError::Line(1));
    assert_eq!(KeyRing::parse("\n#\n").unwrap_err(), KeyFileError::Empty);
}

#[test]
fn a_bucket_key_that_is_gone_opens_nothing() {
    let ring = KeyRing::generate(&[7; 32]);
    let key = BucketKey::new("bucket/600/a".to_owned(), &[3; 32]);
    let sealed = key.seal(b"otp", b"123456", [4; 12]);
    let wrapped = key.wrap(&ring, [5; 12]);
    let book = KeyBook::new(ring.clone());
    let gone = Err(OpenError::UnknownKey("bucket/600/a".to_owned()));
    assert_eq!(book.open(&sealed, b"otp"), gone);
    assert!(BucketKey::unwrap("bucket/600/b", &ring, &wrapped).is_err());
    book.learn(BucketKey::unwrap("bucket/600/a", &ring, &wrapped).unwrap());
    assert_eq!(book.open(&sealed, b"otp").unwrap(), b"123456");
    assert_eq!(book.open(&sealed, b"pin"), Err(OpenError::Damaged));
    book.retain(|_| false);
    assert_eq!(book.open(&sealed, b"otp"), gone);
}

#[test]
fn the_book_forgets_the_oldest_bucket_first() {
    let book = KeyBook::new(KeyRing::generate(&[7; 32]));
    let name = |index: usize| format!("bucket/{}/a", 1_700_000_000 + index * 600);
    for index in 0..=MAX_BUCKETS {
        book.learn(BucketKey::new(name(index), &[3; 32]));
    }
    assert!(book.bucket(&name(0)).is_none());
    assert!(book.bucket(&name(1)).is_some() && book.bucket(&name(MAX_BUCKETS)).is_some());
}

#[test]
fn derived_keys_have_a_bound_and_come_back() {
    let ring = KeyRing::generate(&[7; 32]);
    let first = ring.seal(&SealKey::Registry, b"", b"x", [1; 12]);
    for index in 0..=MAX_DERIVED {
        assert!(ring.derived(&format!("k1/body/{index}/2024-01")).is_some());
    }
    assert_eq!(ring.0.derived.lock().keys.len(), MAX_DERIVED);
    assert_eq!(ring.0.derived.lock().order.len(), MAX_DERIVED);
    assert_eq!(ring.open(&first, b"").unwrap(), b"x");
}

proptest! {
    #[test]
    fn any_bytes_open_again_and_any_garbage_does_not(
        plain in proptest::collection::vec(any::<u8>(), 0..300),
        aad in proptest::collection::vec(any::<u8>(), 0..40),
        garbage in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let ring = KeyRing::generate(&[7; 32]);
        let sealed = ring.seal(&SealKey::Snippet, &aad, &plain, [1; 12]);
        prop_assert_eq!(&ring.open(&sealed, &aad).unwrap(), &plain);
        let bad = Sealed { data: garbage, ..sealed };
        prop_assert!(ring.open(&bad, &aad).is_err());
    }
}
