//! The rows of `reliability-security.md` §7.13 that need no authorization server.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tidings_testkit::SeededRng;

use super::*;
use crate::{LocalIssuer, TokenRequest, scopes};

const NOW: i64 = 1_700_000_000;

struct World {
    issuer: LocalIssuer,
    verifier: Verifier,
}

fn world() -> World {
    let data = tempfile::tempdir().unwrap();
    let issuer = LocalIssuer::open_or_create(data.path(), &SeededRng::new(1)).unwrap();
    let verifier = Verifier::new(VerifierConfig {
        local: Some(issuer.public_key()),
        external: None,
        max_lifetime: VerifierConfig::MAX_LIFETIME,
    });
    World { issuer, verifier: verifier.unwrap() }
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "someone", "iat": NOW, "exp": NOW + 3600,
        "scope": "eds.read eds.write", "issuerid": "7001", "pmid": 20,
    })
}

impl World {
    fn header(&self) -> Value {
        json!({"alg": "EdDSA", "typ": "at+jwt", "kid": self.issuer.public_key().id()})
    }

    fn verify(&self, token: &str) -> Result<Principal, AuthError> {
        self.verifier.verify(token, None, Timestamp::from_secs(NOW))
    }

    /// A token with our signature over any header and claims.
    fn signed(&self, header: &str, claims: &str) -> Result<Principal, AuthError> {
        self.verify(&self.issuer.sign_parts(header.as_bytes(), claims.as_bytes()).unwrap())
    }

    /// A token whose claims differ in one member; `null` removes it.
    fn with(&self, name: &str, value: Value) -> Result<Principal, AuthError> {
        let mut claims = claims();
        let members = claims.as_object_mut().unwrap();
        if value.is_null() {
            members.remove(name)
        } else {
            members.insert(name.into(), value)
        };
        self.signed(&self.header().to_string(), &claims.to_string())
    }

    fn with_header(&self, name: &str, value: Value) -> Result<Principal, AuthError> {
        let mut header = self.header();
        header.as_object_mut().unwrap().insert(name.into(), value);
        self.signed(&header.to_string(), &claims().to_string())
    }
}

fn status(result: &Result<Principal, AuthError>) -> u16 {
    result.as_ref().map_or_else(|error| error.status(), |_| 200)
}

#[test]
fn a_signed_token_says_who_its_bearer_is() {
    let world = world();
    let request = TokenRequest {
        subject: "someone".to_owned(),
        issuer: Some("7001".to_owned()),
        pm: Some(20),
        scopes: vec!["eds.read".to_owned(), "admin".to_owned()],
        ttl: Duration::from_secs(3600),
    };
    let token = world.issuer.sign(&request, Timestamp::from_secs(NOW)).unwrap();
    let principal = world.verify(&token).unwrap();
    assert_eq!(principal.subject, "someone");
    assert_eq!(principal.issuer, Some(IssuerId("7001".into())));
    assert_eq!(principal.pm, Some(PmId(20)));
    assert_eq!(principal.require(scopes::READ), Ok(()));
    assert_eq!(principal.require(scopes::WRITE), Err(AuthError::Scope("eds.write")));
    let tenant = principal.tenant().unwrap();
    assert_eq!((tenant.issuer().cloned(), tenant.pm()), (principal.issuer.clone(), principal.pm));
    let none = TokenRequest { issuer: None, pm: None, ..request };
    let token = world.issuer.sign(&none, Timestamp::from_secs(NOW)).unwrap();
    assert_eq!(world.verify(&token).unwrap().tenant(), None);
}

/// J1.
#[test]
fn the_algorithm_is_the_keys_own() {
    let world = world();
    assert_eq!(status(&world.with_header("alg", json!("EdDSA"))), 200);
    for alg in ["none", "None", "HS256", "eddsa", "EDDSA", "ES256", "RS256", ""] {
        assert_eq!(status(&world.with_header("alg", json!(alg))), 401, "{alg}");
    }
    for alg in [json!(null), json!(1), json!(["EdDSA"])] {
        assert_eq!(status(&world.with_header("alg", alg)), 401);
    }
    // Unsigned, and "signed" with the public key as a shared secret.
    let public = world.issuer.public_key();
    let public = public.key.try_get_as_bytes().unwrap();
    let header = json!({"alg": "HS256", "kid": world.issuer.public_key().id()}).to_string();
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims().to_string())
    );
    let secret = jsonwebtoken::EncodingKey::from_secret(public);
    let forged = jsonwebtoken::crypto::sign(message.as_bytes(), &secret, Algorithm::HS256).unwrap();
    assert_eq!(status(&world.verify(&format!("{message}.{forged}"))), 401);
    assert_eq!(status(&world.verify(&format!("{message}."))), 401);
}

/// J2: a key that the token brings is not looked at, let alone fetched.
#[test]
fn a_token_that_brings_its_own_key_is_refused() {
    let world = world();
    for name in ["jku", "x5u", "jwk", "x5c", "crit", "b64"] {
        for value in [json!("https://attacker.example/keys"), json!(["x"]), json!({}), json!(null)]
        {
            assert_eq!(status(&world.with_header(name, value)), 401, "{name}");
        }
    }
}

/// J3, J4.
#[test]
fn an_unknown_key_id_is_refused() {
    let world = world();
    let long = "k".repeat(10 * 1024);
    for id in ["", "other", "../../etc/passwd", "' OR 1=1 --", &long] {
        assert_eq!(status(&world.with_header("kid", json!(id))), 401);
    }
    for id in [json!(1), json!(null), json!(["x"])] {
        assert_eq!(status(&world.with_header("kid", id)), 401);
    }
    // Without an id the issuer's only key is meant.
    assert_eq!(status(&world.signed(r#"{"alg":"EdDSA"}"#, &claims().to_string())), 200);
}

/// J5.
#[test]
fn every_claim_has_one_type_and_no_other() {
    let world = world();
    let wrong = [
        json!("1700003600"),
        json!([NOW]),
        json!(1_700_003_600.5),
        json!(1_700_003_600.0),
        json!(-1),
        json!(u64::MAX),
        json!(true),
        json!({}),
    ];
    for name in ["exp", "nbf", "iat"] {
        for value in &wrong {
            let result = world.with(name, value.clone());
            assert_eq!(status(&result), 401, "{name} {value}");
        }
        let mut claims = claims();
        claims[name] = Value::Null;
        let result = world.signed(&world.header().to_string(), &claims.to_string());
        assert_eq!(status(&result), 401, "{name} null");
    }
    for name in ["exp", "iss", "aud", "sub"] {
        assert_eq!(status(&world.with(name, Value::Null)), 401, "{name} missing");
        assert_eq!(status(&world.with(name, json!(7))), 401, "{name} a number");
        assert_eq!(status(&world.with(name, json!(""))), 401, "{name} empty");
    }
    assert_eq!(status(&world.with("iat", Value::Null)), 200);
    assert_eq!(status(&world.with("nbf", json!(NOW))), 200);
    for (name, other) in [("iss", "tidings-locaL"), ("aud", "other"), ("aud", "tidings2")] {
        assert_eq!(status(&world.with(name, json!(other))), 401, "{name}");
        assert_eq!(status(&world.with(name, json!([other]))), 401, "{name}");
    }
    assert_eq!(status(&world.with("iss", json!([ISSUER]))), 401);
    assert_eq!(status(&world.with("sub", json!(["someone"]))), 401);
    assert_eq!(status(&world.with("aud", json!(["other", AUDIENCE]))), 200);
    assert_eq!(status(&world.with("aud", json!([AUDIENCE, 1]))), 401);
}

/// J6.
#[test]
fn times_have_a_leeway_of_a_minute() {
    let world = world();
    let rows = [
        ("exp", NOW - 60, 200),
        ("exp", NOW - 61, 401),
        ("nbf", NOW + 60, 200),
        ("nbf", NOW + 61, 401),
        ("iat", NOW + 60, 200),
        ("iat", NOW + 61, 401),
    ];
    for (name, time, expected) in rows {
        assert_eq!(status(&world.with(name, json!(time))), expected, "{name} {}", time - NOW);
    }
}

/// J7.
#[test]
fn another_kind_of_token_and_one_that_lives_too_long_are_refused() {
    let world = world();
    for kind in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"].map(|kind| json!(kind)) {
        assert_eq!(status(&world.with_header("typ", kind)), 200);
    }
    for kind in [json!("id+jwt"), json!("dpop+jwt"), json!(""), json!(1)] {
        assert_eq!(status(&world.with_header("typ", kind)), 401);
    }
    assert_eq!(status(&world.with("exp", json!(NOW + 24 * 3600))), 200);
    assert_eq!(status(&world.with("exp", json!(NOW + 24 * 3600 + 1))), 401);
    assert_eq!(status(&world.with("exp", json!(i64::MAX))), 401);
    let mut open = claims();
    open.as_object_mut().unwrap().remove("iat");
    for (life, expected) in [(24 * 3600 + 60, 200), (24 * 3600 + 61, 401)] {
        open["exp"] = json!(NOW + life);
        let result = world.signed(&world.header().to_string(), &open.to_string());
        assert_eq!(status(&result), expected, "{life}");
    }
}

/// J8.
#[test]
fn a_tenant_of_the_wrong_type_is_no_access() {
    let world = world();
    for (name, value) in [
        ("issuerid", json!(7001)),
        ("issuerid", json!(["7001"])),
        ("issuerid", json!("")),
        ("issuerid", json!("7001/../7002")),
        ("pmid", json!("20")),
        ("pmid", json!(20.5)),
        ("pmid", json!([20])),
        ("pmid", json!(u64::MAX)),
    ] {
        assert_eq!(world.with(name, value.clone()), Err(AuthError::Tenant), "{name} {value}");
    }
    for twice in [r#","issuerid":"7002"}"#, r#","pmid":21}"#] {
        let claims = claims().to_string();
        let claims = format!("{}{twice}", claims.strip_suffix('}').unwrap());
        let result = world.signed(&world.header().to_string(), &claims);
        assert_eq!(result, Err(AuthError::Tenant), "{twice}");
    }
    assert_eq!(AuthError::Tenant.status(), 403);
    for repeated in [r#","exp":1700003600}"#, r#","aud":"tidings"}"#, r#","other":1,"other":1}"#] {
        let claims = claims().to_string();
        let claims = format!("{}{repeated}", claims.strip_suffix('}').unwrap());
        let result = world.signed(&world.header().to_string(), &claims);
        assert_eq!(status(&result), 401, "{repeated}");
    }
}

/// J9.
#[test]
fn a_scope_is_a_whole_word_in_its_own_case() {
    let world = world();
    let write = |scope: Value| {
        let principal = world.with("scope", scope).unwrap();
        principal.require(scopes::WRITE).map_err(AuthError::status)
    };
    for good in ["eds.write", "eds.read eds.write", "eds.write  x"] {
        assert_eq!(write(json!(good)), Ok(()), "{good}");
    }
    let tricks = [
        json!("eds.read"),
        json!("eds.readwrite"),
        json!("eds.read,eds.write"),
        json!("eds.read\teds.write"),
        json!("EDS.WRITE"),
        json!("eds.write2"),
        json!("eds*"),
        json!(["eds.write"]),
        json!(1),
        json!(""),
    ];
    for scope in tricks {
        assert_eq!(write(scope.clone()), Err(403), "{scope}");
    }
    assert_eq!(write(Value::Null), Err(403));
}

#[test]
fn what_is_not_a_token_is_refused_without_a_panic() {
    let world = world();
    assert_eq!(world.verify(""), Err(AuthError::Missing));
    let token = world.issuer.sign_parts(world.header().to_string().as_bytes(), b"[]").unwrap();
    let good = claims().to_string();
    let good =
        world.issuer.sign_parts(world.header().to_string().as_bytes(), good.as_bytes()).unwrap();
    assert_eq!(status(&world.verify(&good)), 200);
    let long = format!("{good}{}", "A".repeat(MAX_TOKEN));
    let padded = format!("{good}=");
    let four = format!("{good}.x");
    let unicode = good.replacen('e', "é", 1);
    for bad in [".", "..", "...", "a.b.c", "é", &token, &long, &padded, &four, &unicode] {
        assert_eq!(status(&world.verify(bad)), 401, "{bad}");
    }
    for cut in 1..good.len() {
        assert_eq!(status(&world.verify(good.get(..cut).unwrap())), 401, "{cut}");
    }
    let deep = "[".repeat(4000);
    let deep = format!(r#"{{"iss":{deep}"#);
    let deep = world.issuer.sign_parts(b"{}", deep.as_bytes()).unwrap();
    assert_eq!(status(&world.verify(&deep)), 401);
}

#[test]
fn a_token_of_another_key_or_issuer_is_refused() {
    let (ours, data) = (world(), tempfile::tempdir().unwrap());
    let theirs = LocalIssuer::open_or_create(data.path(), &SeededRng::new(2)).unwrap();
    let forged =
        theirs.sign_parts(ours.header().to_string().as_bytes(), claims().to_string().as_bytes());
    assert_eq!(ours.verify(&forged.unwrap()), Err(AuthError::Invalid("signature")));
    let closed = Verifier::new(VerifierConfig {
        local: None,
        external: None,
        max_lifetime: VerifierConfig::MAX_LIFETIME,
    });
    let token = ours
        .issuer
        .sign_parts(ours.header().to_string().as_bytes(), claims().to_string().as_bytes())
        .unwrap();
    let refused = closed.unwrap().verify(&token, None, Timestamp::from_secs(NOW));
    assert_eq!(refused, Err(AuthError::Invalid("issuer")));
}

/// J12, J15.
#[test]
fn a_bound_token_is_taken_over_its_certificates_connection_and_no_other() {
    let world = world();
    let (mine, other) = (Thumbprint::of(b"mine"), Thumbprint::of(b"other"));
    // base64url of SHA-256("mine").
    let thumbprint = URL_SAFE_NO_PAD.encode(tidings_signing::sha256(&[b"mine"]));
    let verify = |confirmation: Value, certificate| {
        let mut claims = claims();
        claims["cnf"] = confirmation;
        let header = world.header().to_string();
        let token = world.issuer.sign_parts(header.as_bytes(), claims.to_string().as_bytes());
        let now = Timestamp::from_secs(NOW);
        status(&world.verifier.verify(&token.unwrap(), certificate, now))
    };
    let bound = json!({"x5t#S256": thumbprint});
    assert_eq!(verify(bound.clone(), Some(mine)), 200);
    assert_eq!(verify(bound.clone(), Some(other)), 401);
    assert_eq!(verify(bound, None), 401);
    for odd in [
        json!(null),
        json!({}),
        json!([thumbprint]),
        json!(thumbprint),
        json!({"x5t#S256": [thumbprint]}),
        json!({"x5t": thumbprint}),
        json!({"jkt": thumbprint}),
        json!({"x5t#S256": thumbprint, "jkt": thumbprint}),
        json!({"x5t#S256": format!("{thumbprint}=")}),
        json!({"x5t#S256": ""}),
    ] {
        assert_eq!(verify(odd.clone(), Some(mine)), 401, "{odd}");
    }
    // A token that is not bound may come over any connection.
    let header = world.header().to_string();
    let open = world.issuer.sign_parts(header.as_bytes(), claims().to_string().as_bytes()).unwrap();
    let now = Timestamp::from_secs(NOW);
    assert_eq!(status(&world.verifier.verify(&open, Some(mine), now)), 200);
}
