//! Pages of webhooks and hooks, in the order in which they were made.

use std::sync::Arc;

use tidings_registry::Webhook;
use tidings_types::{Timestamp, WebhookId};

use crate::errors::{ApiError, Code};

/// The most items of one page.
pub(crate) const MOST: usize = 100;

/// One page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) items: Vec<Arc<Webhook>>,
    /// All that match, on all pages.
    pub(crate) total: usize,
    pub(crate) next: Option<String>,
}

type Place = (Timestamp, WebhookId);

/// The page behind `cursor`.
///
/// # Errors
/// `INVALID_CURSOR`.
pub(crate) fn page<'s>(
    matching: impl Iterator<Item = &'s Arc<Webhook>>,
    limit: usize,
    cursor: Option<&str>,
) -> Result<Page, ApiError> {
    let after = match cursor {
        Some(text) => Some(read(text).ok_or_else(|| ApiError::at(Code::InvalidCursor, "cursor"))?),
        None => None,
    };
    let mut all: Vec<_> = matching.map(|webhook| (place(webhook), webhook)).collect();
    all.sort_by_key(|(place, _)| *place);
    let total = all.len();
    let mut rest = all.into_iter().filter(|(place, _)| after.is_none_or(|after| *place > after));
    let items: Vec<Arc<Webhook>> =
        rest.by_ref().take(limit).map(|(_, webhook)| Arc::clone(webhook)).collect();
    let next = match (rest.next(), items.last()) {
        (Some(_), Some(last)) => Some(write(place(last))),
        (Some(_) | None, _) => None,
    };
    Ok(Page { items, total, next })
}

fn place(webhook: &Webhook) -> Place {
    (webhook.created, webhook.id)
}

fn write((created, id): Place) -> String {
    format!("{}.{id}", created.as_millis())
}

fn read(text: &str) -> Option<Place> {
    let (created, id) = text.split_once('.')?;
    Some((Timestamp::from_millis(created.parse().ok()?), id.parse().ok()?))
}
