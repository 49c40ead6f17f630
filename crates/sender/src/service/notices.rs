//! Tells operators what has become of webhooks. A notice waits in its webhook's state,
//! and so in its checkpoint, until the log has acknowledged its event.

use std::time::Duration;

use futures::FutureExt as _;
use tidings_delivery::{Notice, Standing};

use super::Running;
use crate::{
    notice::{self, hex},
    table::RowKey,
};

/// How long to wait after a notice could not be told.
const RETRY: Duration = Duration::from_secs(1);
/// Webhooks of which one notice each is told at a time.
const AT_ONCE: usize = 256;

/// Notices and whether the log has acknowledged them.
pub(super) type Told = Vec<(RowKey, Notice, bool)>;

/// How often certificates are looked at that end some day.
const LOOK_AT_CERTIFICATES: Duration = Duration::from_secs(60);

impl Running {
    /// Looks whether client certificates end soon, from time to time.
    pub(super) fn look_at_certificates(&mut self) {
        if self.mono() < self.next_certificates {
            return;
        }
        self.next_certificates = self.mono() + LOOK_AT_CERTIFICATES;
        for key in self.table.keys() {
            self.look_at_certificate(key);
        }
    }

    /// Looks whether a webhook's client certificate ends soon.
    pub(super) fn look_at_certificate(&mut self, key: RowKey) {
        let (now, ahead) = (self.now(), self.config.certificate_ahead);
        let Some(row) = self.table.get_mut(key) else { return };
        if row.webhook.standing == Standing::Deleted {
            return;
        }
        let Some(identity) = &row.webhook.identity else { return };
        let (Some(not_after), Some(bytes)) =
            (identity.not_after(), identity.certificate_fingerprint())
        else {
            return;
        };
        let fingerprint = hex(bytes);
        if row.hook.look_at_certificate((&fingerprint, not_after), ahead, now) {
            self.untold.insert(key);
        }
    }

    /// Notes that a webhook may have something to tell.
    pub(super) fn look_for_notices(&mut self, key: RowKey) {
        if self.table.get(key).is_some_and(|row| !row.hook.untold().is_empty()) {
            self.untold.insert(key);
        }
    }

    /// Tells the oldest notice of each webhook that has some.
    pub(super) fn start_telling(&mut self) {
        if self.telling.is_some() || self.untold.is_empty() || self.mono() < self.next_telling {
            return;
        }
        let mut notices = Vec::new();
        let mut records = Vec::new();
        while notices.len() < AT_ONCE
            && let Some(key) = self.untold.pop_first()
        {
            let Some(row) = self.table.get_mut(key) else { continue };
            let untold = row.hook.untold();
            let Some(first) = untold.first().cloned() else { continue };
            if row.webhook.standing == Standing::Deleted {
                // Nobody needs to know any more.
                untold.to_vec().iter().for_each(|notice| row.hook.told(notice));
                continue;
            }
            records.push(notice::record(&row.webhook, &first));
            notices.push((key, first));
        }
        if records.is_empty() {
            return;
        }
        let deps = self.deps.clone();
        let told = async move { notice::tell(&deps, records).await };
        self.telling = Some(Box::pin(told.map(move |told| {
            notices.into_iter().zip(told).map(|((key, notice), told)| (key, notice, told)).collect()
        })));
    }

    pub(super) fn told(&mut self, told: Told) {
        for (key, notice, is_told) in told {
            if is_told {
                self.deps.metrics.noticed(notice.kind.as_str());
                if let Some(row) = self.table.get_mut(key) {
                    row.hook.told(&notice);
                }
            } else {
                self.next_telling = self.mono() + RETRY;
            }
            self.look_for_notices(key);
        }
    }
}
