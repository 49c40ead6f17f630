//! Idle connections, kept per webhook and never shared between webhooks, nor between
//! identities of one webhook: what it has become closes what it was.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::Duration,
};

use parking_lot::Mutex;
use tidings_types::{Instant, WebhookId};

use crate::{
    config::Config,
    connection::Connection,
    identity::Identity,
    metrics::{Dropped, Metrics},
    target::Target,
};

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
    of_webhook: BTreeMap<WebhookId, VecDeque<Kept>>,
    /// Whose each connection is, the one that came first standing first.
    by_age: BTreeMap<u64, WebhookId>,
    next_number: u64,
}

struct Kept {
    /// In the order in which connections came.
    number: u64,
    connection: Box<Connection>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("idle", &self.idle.lock().by_age.len()).finish_non_exhaustive()
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
    pub(crate) fn take(
        &self,
        webhook: WebhookId,
        (target, identity): (&Target, Option<&Identity>),
        now: Instant,
    ) -> Option<Box<Connection>> {
        let mut idle = self.idle.lock();
        // What was kept as another one stands first, and would only grow old.
        while identity.is_some()
            && idle.earliest(webhook).is_some_and(|kept| !kept.serves(target, identity))
        {
            drop(idle.pop_earliest(webhook));
            self.metrics.connection_dropped(Dropped::Moved);
        }
        while let Some(connection) = idle.pop_latest(webhook) {
            if self.is_stale(&connection, now) {
                self.metrics.connection_dropped(Dropped::Idle);
            } else if !connection.serves(target, identity) {
                self.metrics.connection_dropped(Dropped::Moved);
            } else {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection. When there are enough, one is closed: of its own webhook if
    /// that has its share, else the one that has been idle for longest, so that a
    /// webhook that once had many does not keep the others from having any.
    pub(crate) fn put(&self, webhook: WebhookId, mut connection: Box<Connection>, now: Instant) {
        connection.rest(now);
        let mut idle = self.idle.lock();
        let own = idle.of_webhook.get(&webhook).map_or(0, VecDeque::len);
        let webhooks = idle.of_webhook.len() + usize::from(own == 0);
        let is_full = idle.by_age.len() >= self.max;
        if self.max == 0 || self.max_per_webhook == 0 {
            drop(idle);
            self.metrics.connection_dropped(Dropped::Full);
            return;
        }
        let surplus = if own >= self.max_per_webhook || (is_full && own > self.max / webhooks) {
            idle.pop_earliest(webhook)
        } else if is_full {
            idle.pop_eldest()
        } else {
            None
        };
        idle.push(webhook, connection);
        // Closing it takes a while.
        drop(idle);
        if let Some(surplus) = surplus {
            let why = if self.is_stale(&surplus, now) { Dropped::Idle } else { Dropped::Full };
            self.metrics.connection_dropped(why);
        }
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut idle = self.idle.lock();
        while idle.eldest().is_some_and(|eldest| self.is_stale(eldest, now)) {
            drop(idle.pop_eldest());
            self.metrics.connection_dropped(Dropped::Idle);
        }
    }

    /// Closes the idle connections of a webhook.
    pub(crate) fn forget(&self, webhook: WebhookId) {
        let mut idle = self.idle.lock();
        while let Some(connection) = idle.pop_latest(webhook) {
            drop(connection);
            self.metrics.connection_dropped(Dropped::Moved);
        }
    }

    /// Closes every idle connection.
    pub(crate) fn clear(&self) {
        *self.idle.lock() = Idle::default();
    }

    fn is_stale(&self, connection: &Connection, now: Instant) -> bool {
        now.since(connection.idle_since()) >= self.idle_timeout
    }
}

impl Idle {
    fn push(&mut self, webhook: WebhookId, connection: Box<Connection>) {
        let number = self.next_number;
        self.next_number += 1;
        self.by_age.insert(number, webhook);
        self.of_webhook.entry(webhook).or_default().push_back(Kept { number, connection });
    }

    /// The connection that came last of a webhook's.
    fn pop_latest(&mut self, webhook: WebhookId) -> Option<Box<Connection>> {
        self.pop(webhook, VecDeque::pop_back)
    }

    /// The one that came first of a webhook's.
    fn pop_earliest(&mut self, webhook: WebhookId) -> Option<Box<Connection>> {
        self.pop(webhook, VecDeque::pop_front)
    }

    /// The one that came first of all.
    fn pop_eldest(&mut self) -> Option<Box<Connection>> {
        let webhook = *self.by_age.first_key_value()?.1;
        self.pop_earliest(webhook)
    }

    fn earliest(&self, webhook: WebhookId) -> Option<&Connection> {
        self.of_webhook.get(&webhook)?.front().map(|kept| &*kept.connection)
    }

    fn eldest(&self) -> Option<&Connection> {
        let (_, webhook) = self.by_age.first_key_value()?;
        self.of_webhook.get(webhook)?.front().map(|kept| &*kept.connection)
    }

    fn pop(
        &mut self,
        webhook: WebhookId,
        take: fn(&mut VecDeque<Kept>) -> Option<Kept>,
    ) -> Option<Box<Connection>> {
        let kept = self.of_webhook.get_mut(&webhook)?;
        let taken = take(kept);
        if kept.is_empty() {
            self.of_webhook.remove(&webhook);
        }
        let Kept { number, connection } = taken?;
        self.by_age.remove(&number);
        Some(connection)
    }
}
