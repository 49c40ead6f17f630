//! What a webhook's owner chose for it.

use std::sync::Arc;

use tidings_types::{Ordering, StuckKey};

use crate::Ladder;

/// How a webhook wants to be sent to (contract §3, `config`).
#[derive(Clone, Debug)]
pub struct Rules {
    pub max_in_flight: usize,
    pub ladder: Arc<Ladder>,
    /// Zero: no limit.
    pub rate_per_second: u32,
    pub ordering: Ordering,
    pub stuck_key: StuckKey,
    /// Its tenant and its host, hashed: what shares their places. Zero: nobody.
    pub shares: [u64; 2],
    /// Its URL, hashed.
    pub target: u64,
}

impl Rules {
    /// No order and no rate limit.
    pub fn plain(max_in_flight: usize, ladder: Arc<Ladder>) -> Self {
        Self {
            max_in_flight,
            ladder,
            rate_per_second: 0,
            ordering: Ordering::None,
            stuck_key: StuckKey::Wait,
            shares: [0; 2],
            target: 0,
        }
    }
}
