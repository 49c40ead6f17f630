//! The keys of an authorization server elsewhere (RFC 7517): fetched from the URL
//! in the settings, kept, and fetched again when a token names a key that is not
//! known (`reliability-security.md` §3.4).
//!
//! What cannot be read, or holds no usable key, changes nothing: the last good set
//! is used for a day. A key that the server no longer lists is gone with the next
//! set, which is asked for at least every [`EVERY`].

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use tidings_egress::Fetcher;
use tidings_types::{Clock, Instant};
use tokio::sync::Mutex;

use crate::{
    key::{self, KeySource, VerificationKey},
    metrics::Metrics,
};

/// How often the set is fetched, so that a removed key is refused in time.
const EVERY: Duration = Duration::from_secs(240);
/// A token with an unknown key makes us ask again once in so long a time...
const AT_MOST: Duration = Duration::from_secs(60);
/// ...and while nothing has been fetched yet, in so long a time.
const AT_MOST_AT_FIRST: Duration = Duration::from_secs(5);
/// How long a set is used that cannot be fetched anew.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// For one fetch.
const LIMIT: Duration = Duration::from_secs(3);
/// Longest set.
const MAX_BYTES: usize = 64 * 1024;
/// Keys of a set.
const MAX_KEYS: usize = 20;

/// The keys of one issuer, shared by all who verify.
#[derive(Clone)]
pub(crate) struct Jwks(Arc<Shared>);

struct Shared {
    url: String,
    fetcher: Arc<Fetcher>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    good: RwLock<Option<Good>>,
    /// Whether the last try failed.
    has_failed: AtomicBool,
    /// When a fetch was tried last. Held while one is on its way, so that all who
    /// wait for it share it.
    tried: Mutex<Option<Instant>>,
}

struct Good {
    keys: Vec<Arc<VerificationKey>>,
    at: Instant,
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Jwks").field(&self.0.url).finish()
    }
}

impl Jwks {
    pub(crate) fn new(
        url: String,
        fetcher: Arc<Fetcher>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let (good, tried) = (RwLock::new(None), Mutex::new(None));
        let has_failed = AtomicBool::new(false);
        Self(Arc::new(Shared { url, fetcher, clock, metrics, good, has_failed, tried }))
    }

    /// Fetches the set again if that is allowed now. Who comes while it is fetched
    /// waits for it.
    pub(crate) async fn refresh(&self) {
        let shared = &self.0;
        let before = shared.clock.monotonic();
        let mut tried = shared.tried.lock().await;
        let now = shared.clock.monotonic();
        let pause = if shared.good.read().is_some() { AT_MOST } else { AT_MOST_AT_FIRST };
        // Another one has fetched it while this one waited.
        let is_fresh = tried.is_some_and(|last| last > before);
        if is_fresh || tried.is_some_and(|last| now.since(last) < pause) {
            return;
        }
        *tried = Some(now);
        let has_failed = !self.fetch().await;
        let had_failed = shared.has_failed.swap(has_failed, Ordering::Relaxed);
        shared.metrics.fetched(had_failed, has_failed);
    }

    /// When the set should be fetched next, whoever asks.
    pub(crate) fn pause(&self) -> Duration {
        if self.0.good.read().is_some() { EVERY } else { AT_MOST_AT_FIRST }
    }

    /// Says whether there were keys.
    async fn fetch(&self) -> bool {
        let shared = &self.0;
        match shared.fetcher.get(&shared.url, MAX_BYTES, LIMIT).await {
            Ok(bytes) => match read(&bytes) {
                Ok(keys) => {
                    tracing::debug!(url = shared.url, keys = keys.len(), "keys were fetched");
                    *shared.good.write() = Some(Good { keys, at: shared.clock.monotonic() });
                    true
                }
                Err(why) => {
                    tracing::warn!(
                        url = shared.url,
                        why,
                        "the keys of an issuer cannot be used; those known are kept for a day"
                    );
                    false
                }
            },
            Err(error) => {
                tracing::warn!(
                    url = shared.url,
                    %error,
                    "the keys of an issuer cannot be fetched; those known are kept for a day"
                );
                false
            }
        }
    }
}

impl KeySource for Jwks {
    fn key(&self, id: Option<&str>) -> Option<Arc<VerificationKey>> {
        let good = self.0.good.read();
        let good = good.as_ref()?;
        if self.0.clock.monotonic().since(good.at) > KEPT {
            return None;
        }
        match (id, good.keys.as_slice()) {
            (Some(id), keys) => keys.iter().find(|key| key.id() == id).map(Arc::clone),
            (None, [only]) => Some(Arc::clone(only)),
            (None, _) => None,
        }
    }

    fn jwks(&self) -> Option<&Jwks> {
        Some(self)
    }
}

/// Reads a set. Keys of other kinds and for other uses are passed over.
fn read(bytes: &[u8]) -> Result<Vec<Arc<VerificationKey>>, &'static str> {
    let document: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|_bad| "it is not JSON")?;
    let listed = document.get("keys").and_then(serde_json::Value::as_array);
    let listed = listed.ok_or("it has no list of keys")?;
    if listed.len() > MAX_KEYS {
        return Err("it has more than 20 keys");
    }
    let keys: Vec<_> = listed.iter().filter_map(key::of_jwk).map(Arc::new).collect();
    if keys.is_empty() { Err("it has no usable key") } else { Ok(keys) }
}

#[cfg(test)]
mod tests;
