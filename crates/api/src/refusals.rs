//! What the log says of refused requests.
//!
//! A client that reports a traceId is answered from the log, at its default level. So each
//! refusal is a line, but not without bound: whoever has no valid token could fill the disk.
//! Callers with a token and strangers have a bucket each, so that a flood of strangers
//! hides no client's mistake; what finds its bucket empty is counted, and the next line
//! says how many there were.

use parking_lot::Mutex;
use tidings_types::Instant;

use crate::{
    errors::{ApiError, Code},
    routes::Operation,
    trace::Trace,
};

/// Lines a second in the long run, and at once. More than the quotas of a few tenants let
/// through.
const PER_SECOND: f64 = 50.0;
const AT_ONCE: f64 = 1000.0;

/// The buckets.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    known: Mutex<Bucket>,
    strangers: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
    unsaid: u64,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { left: AT_ONCE, at: Instant::ZERO, unsaid: 0 }
    }
}

impl Bucket {
    /// Whether there is a line, and how many there were none for before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let grown = now.since(self.at).as_secs_f64() * PER_SECOND;
        (self.left, self.at) = ((self.left + grown).min(AT_ONCE), now);
        if self.left < 1.0 {
            self.unsaid += 1;
            return None;
        }
        self.left -= 1.0;
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl Refusals {
    /// Says what was refused. What the platform could not do is a warning, each time.
    pub(crate) fn log(
        &self,
        operation: Option<Operation>,
        error: &ApiError,
        trace: &Trace,
        now: Instant,
    ) {
        let first = error.faults.first();
        let code = first.map_or("", |fault| fault.code.as_str());
        let field = first.and_then(|fault| fault.field.as_deref());
        let (status, trace) = (error.http_status(), trace.as_str());
        if status.is_server_error() {
            tracing::warn!(?operation, code, trace, "a request was not answered");
            return;
        }
        let bucket = if is_strangers(operation, error) { &self.strangers } else { &self.known };
        let Some(unsaid) = bucket.lock().take(now) else {
            tracing::debug!(?operation, code, field, trace, "a request was refused");
            return;
        };
        let status = status.as_u16();
        if unsaid > 0 {
            tracing::info!(
                ?operation,
                code,
                status,
                field,
                trace,
                unsaid,
                "a request was refused; others before it are not in the log, there were too many"
            );
        } else {
            tracing::info!(?operation, code, status, field, trace, "a request was refused");
        }
    }
}

/// Whether it was refused before its token was taken.
fn is_strangers(operation: Option<Operation>, error: &ApiError) -> bool {
    let before = [Code::Unauthorized, Code::InvalidHost];
    let has_no_token = |operation| matches!(operation, Operation::Open(_));
    operation.is_none_or(has_no_token)
        || error.faults.first().is_some_and(|fault| before.contains(&fault.code))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let (mut bucket, start) = (Bucket::default(), Instant::from_nanos(1));
        let said = (0..1500).filter(|_| bucket.take(start).is_some()).count();
        assert_eq!(said, 1000);
        let later = start + Duration::from_secs(1);
        assert_eq!(bucket.take(later), Some(500));
        let said = (0..1500).filter(|_| bucket.take(later).is_some()).count();
        assert_eq!(said, 49);
        assert_eq!(bucket.take(start + Duration::from_secs(3600)), Some(1451));
    }
}
