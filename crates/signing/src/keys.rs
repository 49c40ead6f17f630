//! Sealing: AES-256-GCM under keys derived from the deployment's master keys, and
//! under the short-lived bucket keys of one-time codes (design §7).
//!
//! A sealed value carries the *name* of its key. The associated data says where
//! the value stands, so that it cannot be moved to another place.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tidings_types::Timestamp;

use crate::Secret;

/// A value under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub key: String,
    pub nonce: [u8; NONCE_LEN],
    /// Ciphertext and tag.
    pub data: Vec<u8>,
}

/// Which derived key seals a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealKey<'a> {
    /// Secrets in the registry.
    Registry,
    /// Bodies of events: per issuer and month.
    Body { issuer: &'a str, at: Timestamp },
    /// Records in quarantine.
    Quarantine,
    /// Snippets of answers.
    Snippet,
    /// Answers kept for a repeated command.
    Command,
    /// Bucket keys of one-time codes.
    Wrap,
}

impl SealKey<'_> {
    fn path(&self) -> String {
        match self {
            Self::Registry => "registry".to_owned(),
            Self::Body { issuer, at } => {
                let (year, month, ..) = at.civil();
                format!("body/{issuer}/{year:04}-{month:02}")
            }
            Self::Quarantine => "quarantine".to_owned(),
            Self::Snippet => "snippet".to_owned(),
            Self::Command => "command".to_owned(),
            Self::Wrap => "wrap".to_owned(),
        }
    }
}

/// Why a sealed value cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The key is gone, or it has not been read yet.
    #[error("the key {0:?} is not known here; a bucket key may be gone for good")]
    UnknownKey(String),
    #[error("the sealed value is damaged, moved or cut, or the master key file is another one's")]
    Damaged,
}

/// A master key file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    #[error("line {0} of the master key file is not `id = <base64 of 32 bytes>` with a new id")]
    Line(usize),
    #[error("the master key file holds no key; restore it from your copy")]
    Empty,
}

/// Derived keys that are kept: every issuer's month for a few hundred issuers,
/// and room.
const MAX_DERIVED: usize = 10_000;
/// A key's name in a record is `<id>/body/<issuer>/<yyyy-mm>`; nothing of ours is
/// longer.
const MAX_NAME: usize = 512;

struct Master {
    id: String,
    bytes: Secret,
}

/// A master key as people may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterKey {
    pub id: String,
    /// The same for the same key, to compare files by; says nothing of the key.
    pub fingerprint: String,
}

/// Derived keys by name, and the names by age. Names come from records too, so
/// that their number has a bound.
#[derive(Default)]
struct Derived {
    keys: BTreeMap<String, Arc<LessSafeKey>>,
    order: VecDeque<String>,
}

impl Derived {
    fn remember(&mut self, name: &str, key: &Arc<LessSafeKey>) {
        if self.keys.insert(name.to_owned(), Arc::clone(key)).is_some() {
            // Another thread derived it meanwhile.
            return;
        }
        self.order.push_back(name.to_owned());
        if self.order.len() > MAX_DERIVED
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }
}

/// The master keys and what is derived from them. Cheap to clone.
#[derive(Clone)]
pub struct KeyRing(Arc<Ring>);

struct Ring {
    masters: Vec<Master>,
    derived: parking_lot::Mutex<Derived>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.0.masters.len())
    }
}

struct Len32;

impl hkdf::KeyType for Len32 {
    fn len(&self) -> usize {
        32
    }
}

impl KeyRing {
    fn with(masters: Vec<Master>) -> Self {
        Self(Arc::new(Ring { masters, derived: parking_lot::Mutex::default() }))
    }

    /// A ring of one new key made of 32 random bytes.
    pub fn generate(random: &[u8; 32]) -> Self {
        Self::with(vec![Master { id: "k1".to_owned(), bytes: Secret::new(random.to_vec()) }])
    }

    /// Reads the lines `id = <base64>`; the last key is used for what is written.
    ///
    /// # Errors
    /// With the number of the bad line.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let mut masters: Vec<Master> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = KeyFileError::Line(index + 1);
            let (id, value) = line.split_once('=').ok_or_else(|| bad.clone())?;
            let id = id.trim();
            let bytes = STANDARD
                .decode(value.trim().trim_matches('"'))
                .map_err(|_not_base64| bad.clone())?;
            let legal = !id.is_empty()
                && id != "bucket"
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
            if !legal || bytes.len() != 32 || masters.iter().any(|master| master.id == id) {
                return Err(bad);
            }
            masters.push(Master { id: id.to_owned(), bytes: Secret::new(bytes) });
        }
        if masters.is_empty() { Err(KeyFileError::Empty) } else { Ok(Self::with(masters)) }
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let lines = self.0.masters.iter().map(|master| line(&master.id, master.bytes.expose()));
        lines.collect()
    }

    /// A line of the file.
    pub fn line(id: &str, key: &[u8; 32]) -> String {
        line(id, key)
    }

    /// The keys in the order of the file; the last one seals.
    pub fn masters(&self) -> Vec<MasterKey> {
        let shown = |master: &Master| {
            let parts: [&[u8]; 2] = [b"tidings master key fingerprint 1\n", master.bytes.expose()];
            let digest = crate::sha256(&parts);
            MasterKey { id: master.id.clone(), fingerprint: hex::encode(&digest[..8]) }
        };
        self.0.masters.iter().map(shown).collect()
    }

    fn derived(&self, name: &str) -> Option<Arc<LessSafeKey>> {
        if name.len() > MAX_NAME {
            return None;
        }
        if let Some(key) = self.0.derived.lock().keys.get(name) {
            return Some(Arc::clone(key));
        }
        let (id, path) = name.split_once('/')?;
        let master = self.0.masters.iter().find(|master| master.id == id)?;
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tidings");
        let extracted = salt.extract(master.bytes.expose());
        let info = [path.as_bytes()];
        let mut bytes = zeroize::Zeroizing::new([0; 32]);
        extracted.expand(&info, Len32).ok()?.fill(&mut *bytes).ok()?;
        let key = Arc::new(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*bytes).ok()?));
        self.0.derived.lock().remember(name, &key);
        Some(key)
    }

    /// Seals `plain` with the newest master key's key for `purpose`. The nonce is
    /// 12 random bytes, never used twice.
    pub fn seal(
        &self,
        purpose: &SealKey<'_>,
        aad: &[u8],
        plain: &[u8],
        nonce: [u8; NONCE_LEN],
    ) -> Sealed {
        let newest = self.0.masters.last().map_or("", |master| master.id.as_str());
        let name = format!("{newest}/{}", purpose.path());
        let key = self.derived(&name).unwrap_or_else(|| unreachable!("a ring has a newest key"));
        seal_with(&key, name, aad, plain, nonce)
    }

    /// Opens what this ring sealed.
    ///
    /// # Errors
    /// When the key is not known or the value is not what was sealed.
    pub fn open(&self, sealed: &Sealed, aad: &[u8]) -> Result<Vec<u8>, OpenError> {
        let key =
            self.derived(&sealed.key).ok_or_else(|| OpenError::UnknownKey(sealed.key.clone()))?;
        open_with(&key, sealed, aad)
    }
}

fn line(id: &str, key: &[u8]) -> String {
    format!("{id} = {}\n", STANDARD.encode(key))
}

fn seal_with(
    key: &LessSafeKey,
    name: String,
    aad: &[u8],
    plain: &[u8],
    nonce: [u8; NONCE_LEN],
) -> Sealed {
    let mut data = Vec::with_capacity(plain.len() + AES_256_GCM.tag_len());
    data.extend_from_slice(plain);
    let sealed = key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(aad),
        &mut data,
    );
    assert!(sealed.is_ok(), "AES-GCM takes values of this size");
    Sealed { key: name, nonce, data }
}

fn open_with(key: &LessSafeKey, sealed: &Sealed, aad: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut data = sealed.data.clone();
    let nonce = Nonce::assume_unique_for_key(sealed.nonce);
    let length = key
        .open_in_place(nonce, Aad::from(aad), &mut data)
        .map_err(|_unspecified| OpenError::Damaged)?
        .len();
    data.truncate(length);
    Ok(data)
}

/// A short-lived key of the ten minutes in which one-time codes expire. Cheap to
/// clone.
#[derive(Clone)]
pub struct BucketKey {
    pub name: String,
    bucket: Arc<Bucket>,
}

struct Bucket {
    bytes: Secret,
    cipher: LessSafeKey,
}

impl fmt::Debug for BucketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BucketKey({})", self.name)
    }
}

impl BucketKey {
    /// `name` is `bucket/<start, unix seconds>/<random>`.
    pub fn new(name: String, bytes: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, bytes);
        let key = key.unwrap_or_else(|_| unreachable!("AES-256 takes 32 bytes"));
        let bytes = Secret::new(bytes.to_vec());
        Self { name, bucket: Arc::new(Bucket { bytes, cipher: LessSafeKey::new(key) }) }
    }

    /// The key wrapped by the master key, for `tidings.keys`.
    pub fn wrap(&self, ring: &KeyRing, nonce: [u8; NONCE_LEN]) -> Sealed {
        ring.seal(&SealKey::Wrap, self.name.as_bytes(), self.bucket.bytes.expose(), nonce)
    }

    /// Unwraps a key.
    ///
    /// # Errors
    /// When the master key is not known or the value is damaged.
    pub fn unwrap(name: &str, ring: &KeyRing, wrapped: &Sealed) -> Result<Self, OpenError> {
        let bytes = zeroize::Zeroizing::new(ring.open(wrapped, name.as_bytes())?);
        let bytes: &[u8; 32] =
            bytes.as_slice().try_into().map_err(|_other_length| OpenError::Damaged)?;
        Ok(Self::new(name.to_owned(), bytes))
    }

    /// Seals under this key.
    pub fn seal(&self, aad: &[u8], plain: &[u8], nonce: [u8; NONCE_LEN]) -> Sealed {
        seal_with(&self.bucket.cipher, self.name.clone(), aad, plain, nonce)
    }
}

/// All keys that bodies may be sealed with: the ring and the known bucket keys.
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct KeyBook {
    ring: KeyRing,
    buckets: Arc<parking_lot::RwLock<BTreeMap<String, BucketKey>>>,
}

/// Bucket keys that are known at once: more than a day of ten-minute buckets, for
/// several writers.
const MAX_BUCKETS: usize = 4096;

impl KeyBook {
    pub fn new(ring: KeyRing) -> Self {
        Self { ring, buckets: Arc::default() }
    }

    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Learns a bucket key; the oldest is forgotten when there are too many.
    pub fn learn(&self, key: BucketKey) {
        let mut buckets = self.buckets.write();
        buckets.insert(key.name.clone(), key);
        while buckets.len() > MAX_BUCKETS {
            buckets.pop_first();
        }
    }

    /// Forgets the bucket keys for which `keep` says no.
    pub fn retain(&self, mut keep: impl FnMut(&str) -> bool) {
        self.buckets.write().retain(|name, _| keep(name));
    }

    pub fn bucket(&self, name: &str) -> Option<BucketKey> {
        self.buckets.read().get(name).cloned()
    }

    /// Opens a value sealed with any key.
    ///
    /// # Errors
    /// When the key is not known here or the value is not what was sealed.
    pub fn open(&self, sealed: &Sealed, aad: &[u8]) -> Result<Vec<u8>, OpenError> {
        if !sealed.key.starts_with("bucket/") {
            return self.ring.open(sealed, aad);
        }
        let unknown = || OpenError::UnknownKey(sealed.key.clone());
        let key = self.bucket(&sealed.key).ok_or_else(unknown)?;
        open_with(&key.bucket.cipher, sealed, aad)
    }
}

#[cfg(test)]
mod tests;
