//! Idle connections, kept per webhook and never shared between webhooks.

use std::{collections::BTreeMap, fmt, time::Duration};

use parking_lot::Mutex;
use tidings_types::{Instant, WebhookId};

use crate::{
    config::Config,
    connection::Connection,
    metrics::{Dropped, Metrics},
    target::Target,
};

/// How often a full pool is looked through for what has been idle too long: that
/// looks at every connection.
const FULL_SWEEP_GAP: Duration = Duration::from_secs(1);

/// Who may use a connection. A client certificate is part of who we are on it, so
/// identities never share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) webhook: WebhookId,
    pub(crate) identity: Identity,
}

/// As whom a connection was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Identity {
    /// Without a client certificate.
    Anonymous,
}

/// The idle connections of all webhooks.
pub(crate) struct Pool {
    idle: Mutex<Idle>,
    max_per_webhook: usize,
    max: usize,
    idle_timeout: Duration,
    metrics: Metrics,
}

#[derive(Default)]
struct Idle {
    /// Of each webhook, the one that was used last stands last.
    #[expect(clippy::vec_box, reason = "what goes in and out is a pointer, not a connection")]
    of_webhook: BTreeMap<Key, Vec<Box<Connection>>>,
    count: usize,
    swept: Instant,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("idle", &self.idle.lock().count).finish_non_exhaustive()
    }
}

impl Pool {
    pub(crate) fn new(config: &Config, metrics: Metrics) -> Self {
        Self {
            idle: Mutex::default(),
            max_per_webhook: config.max_idle_per_webhook,
            max: config.max_idle,
            idle_timeout: config.idle_timeout,
            metrics,
        }
    }

    /// The connection that was used last: the one least likely to be closed.
    pub(crate) fn take(&self, key: Key, target: &Target, now: Instant) -> Option<Box<Connection>> {
        let mut idle = self.idle.lock();
        let Idle { of_webhook, count, .. } = &mut *idle;
        let kept = of_webhook.get_mut(&key)?;
        while let Some(connection) = kept.pop() {
            *count -= 1;
            if now.since(connection.idle_since()) >= self.idle_timeout {
                self.metrics.connection_dropped(Dropped::Idle);
            } else if !connection.serves(target) {
                self.metrics.connection_dropped(Dropped::Moved);
            } else {
                return Some(connection);
            }
        }
        of_webhook.remove(&key);
        None
    }

    /// Keeps a connection, or closes it when there are enough.
    pub(crate) fn put(&self, key: Key, mut connection: Box<Connection>, now: Instant) {
        connection.rest(now);
        let mut idle = self.idle.lock();
        let gap = self.idle_timeout / 4;
        let gap = if idle.count >= self.max { gap.min(FULL_SWEEP_GAP) } else { gap };
        if now.since(idle.swept) >= gap {
            self.sweep_locked(&mut idle, now);
        }
        let Idle { of_webhook, count, .. } = &mut *idle;
        if *count < self.max {
            let kept = of_webhook.entry(key).or_default();
            if kept.len() < self.max_per_webhook {
                kept.push(connection);
                *count += 1;
                return;
            }
        }
        drop(idle);
        self.metrics.connection_dropped(Dropped::Full);
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        self.sweep_locked(&mut self.idle.lock(), now);
    }

    /// Closes every idle connection.
    pub(crate) fn clear(&self) {
        *self.idle.lock() = Idle::default();
    }

    fn sweep_locked(&self, idle: &mut Idle, now: Instant) {
        idle.swept = now;
        idle.of_webhook.retain(|_, kept| {
            kept.retain(|connection| {
                let stays = now.since(connection.idle_since()) < self.idle_timeout;
                if !stays {
                    self.metrics.connection_dropped(Dropped::Idle);
                }
                stays
            });
            !kept.is_empty()
        });
        idle.count = idle.of_webhook.values().map(Vec::len).sum();
    }
}
