//! The issuer of a machine that has no authorization server: it signs the tokens
//! of `tidings token` with a key in the data directory.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde::Serialize;
use tidings_types::{Rng, Timestamp};
use zeroize::Zeroizing;

use crate::key::VerificationKey;

/// Claim `iss` of the local issuer's tokens.
pub const ISSUER: &str = "tidings-local";
/// Claim `aud` of the local issuer's tokens.
pub const AUDIENCE: &str = "tidings";

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// Why the issuer's key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LocalIssuerError {
    #[error("{path} cannot be read or written; check the directory and its owner")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{0} is not an Ed25519 private key in PEM; restore it, or remove it to get a new one")]
    Damaged(PathBuf),
    #[error("{0} can be read by others; run chmod 600 on it")]
    Open(PathBuf),
    #[error("the token could not be signed; the issuer's key may be damaged")]
    Sign,
}

/// What a token is to say.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    pub subject: String,
    pub issuer: Option<String>,
    pub pm: Option<i64>,
    pub scopes: Vec<String>,
    pub ttl: Duration,
}

/// Signs tokens. Prints nothing of its key.
pub struct LocalIssuer {
    key: EncodingKey,
    public: Arc<VerificationKey>,
}

impl fmt::Debug for LocalIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalIssuer({})", self.public.id())
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    iat: i64,
    exp: i64,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuerid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pmid: Option<i64>,
}

impl LocalIssuer {
    /// Reads `keys/issuer.key` in a data directory, or makes it, readable by its
    /// owner alone. Two processes that do so at once get the same key. Blocks.
    ///
    /// # Errors
    /// When the file cannot be used; the message says what to do.
    pub fn open_or_create(data: &Path, rng: &dyn Rng) -> Result<Self, LocalIssuerError> {
        let dir = data.join("keys");
        let path = dir.join("issuer.key");
        match read(&path) {
            Err(LocalIssuerError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            found => return found,
        }
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| LocalIssuerError::Io { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(fail(&dir))?;
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill(&mut *seed);
        let text = generate(&seed).ok_or(LocalIssuerError::Sign)?;
        let mut random = [0; 8];
        rng.fill(&mut random);
        // A name of its own, then a link that fails if another was first: nobody
        // ever reads half a key.
        let draft = dir.join(format!("issuer.key.{}", hex::encode(random)));
        let written = write_new(&draft, text.as_bytes());
        let linked = written.and_then(|()| match fs::hard_link(&draft, &path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
        let removed = fs::remove_file(&draft);
        linked.map_err(fail(&path))?;
        removed.map_err(fail(&draft))?;
        fs::File::open(&dir).and_then(|dir| dir.sync_all()).map_err(fail(&dir))?;
        read(&path)
    }

    /// The key that this issuer's tokens are verified with.
    pub fn public_key(&self) -> Arc<VerificationKey> {
        Arc::clone(&self.public)
    }

    /// Signs a token that is valid from `now` for `request.ttl`.
    ///
    /// # Errors
    /// [`LocalIssuerError::Sign`].
    pub fn sign(&self, request: &TokenRequest, now: Timestamp) -> Result<String, LocalIssuerError> {
        let iat = now.as_secs();
        let claims = Claims {
            iss: ISSUER,
            aud: AUDIENCE,
            sub: &request.subject,
            iat,
            exp: iat.saturating_add(i64::try_from(request.ttl.as_secs()).unwrap_or(i64::MAX)),
            scope: request.scopes.join(" "),
            issuerid: request.issuer.as_deref(),
            pmid: request.pm,
        };
        let claims = serde_json::to_vec(&claims).map_err(|_not_json| LocalIssuerError::Sign)?;
        let header = format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{}"}}"#, self.public.id());
        self.sign_parts(header.as_bytes(), &claims)
    }

    pub(crate) fn sign_parts(
        &self,
        header: &[u8],
        claims: &[u8],
    ) -> Result<String, LocalIssuerError> {
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = jsonwebtoken::crypto::sign(token.as_bytes(), &self.key, Algorithm::EdDSA)
            .map_err(|_jwt| LocalIssuerError::Sign)?;
        token.push('.');
        token.push_str(&signature);
        Ok(token)
    }
}

/// The PEM text of a key made of a seed.
fn generate(seed: &[u8; 32]) -> Option<Zeroizing<String>> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
    let der: Pkcs8V1Der<'_> = pair.as_der().ok()?;
    let body = Zeroizing::new(STANDARD.encode(der.as_ref()));
    Some(Zeroizing::new(format!("{BEGIN}\n{}\n{END}\n", *body)))
}

fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn read(path: &Path) -> Result<LocalIssuer, LocalIssuerError> {
    let fail = |source| LocalIssuerError::Io { path: path.to_owned(), source };
    let text = Zeroizing::new(fs::read_to_string(path).map_err(fail)?);
    if fs::metadata(path).map_err(fail)?.permissions().mode() & 0o077 != 0 {
        return Err(LocalIssuerError::Open(path.to_owned()));
    }
    parse(&text).ok_or_else(|| LocalIssuerError::Damaged(path.to_owned()))
}

fn parse(text: &str) -> Option<LocalIssuer> {
    let body = text.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
    let body: Zeroizing<String> =
        Zeroizing::new(body.chars().filter(|letter| !letter.is_ascii_whitespace()).collect());
    let der = Zeroizing::new(STANDARD.decode(body.as_bytes()).ok()?);
    let pair = Ed25519KeyPair::from_pkcs8(&der).ok()?;
    let public = pair.public_key().as_ref();
    // An id that follows from the key, so that a new key has a new id.
    let digest = tidings_signing::sha256(&[public]);
    let id = hex::encode(&digest[..8]);
    Some(LocalIssuer {
        key: EncodingKey::from_ed_der(&der),
        public: Arc::new(VerificationKey::ed25519(&id, public)),
    })
}

#[cfg(test)]
mod tests {
    use tidings_testkit::SeededRng;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_belongs_to_its_owner_alone() {
        let data = tempfile::tempdir().unwrap();
        let first = LocalIssuer::open_or_create(data.path(), &SeededRng::new(1)).unwrap();
        let second = LocalIssuer::open_or_create(data.path(), &SeededRng::new(2)).unwrap();
        assert_eq!(first.public.id(), second.public.id());
        let path = data.path().join("keys/issuer.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(data.path().join("keys")).unwrap().count(), 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let open = LocalIssuer::open_or_create(data.path(), &SeededRng::new(3));
        assert!(matches!(open, Err(LocalIssuerError::Open(_))), "{open:?}");
    }

    #[test]
    fn a_damaged_key_file_is_kept_and_named() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("keys")).unwrap();
        let path = data.path().join("keys/issuer.key");
        write_new(&path, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
            .unwrap();
        let error = LocalIssuer::open_or_create(data.path(), &SeededRng::new(1)).unwrap_err();
        assert!(error.to_string().contains("issuer.key is not an Ed25519"), "{error}");
        assert!(fs::read(&path).unwrap().starts_with(b"-----BEGIN"));
    }

    #[test]
    fn two_processes_that_make_the_key_at_once_get_the_same() {
        let data = tempfile::tempdir().unwrap();
        let open = |seed| {
            let path = data.path();
            move || {
                let issuer = LocalIssuer::open_or_create(path, &SeededRng::new(seed)).unwrap();
                issuer.public.id().to_owned()
            }
        };
        let ids = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|seed| scope.spawn(open(seed))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
}
