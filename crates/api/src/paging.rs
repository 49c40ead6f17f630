//! Pages of lists, and the cursors that lead from one page to the next.
//!
//! A cursor is the place of a page's last item with a tag of the list that it is of:
//! one of another webhook, tenant or filter, and one that somebody made, is refused.

use std::sync::Arc;

use tidings_registry::Webhook;
use tidings_signing::{same, x_signature};
use tidings_types::{Timestamp, WebhookId};

use crate::{
    caller::Sight,
    commands::unavailable,
    errors::{ApiError, Code},
    input::Query,
    state::State,
};

/// The most items of one page.
pub(crate) const MOST: usize = 100;
/// Hex digits of a tag.
const TAG: usize = 16;

/// One list: what it is of, and everything that narrows it but the size of its pages.
#[derive(Clone, Debug)]
pub(crate) struct List(Vec<u8>);

impl List {
    pub(crate) fn of(kind: &str) -> Self {
        Self(b"tidings cursor 1".to_vec()).narrowed(kind)
    }

    #[must_use]
    pub(crate) fn narrowed(mut self, by: &str) -> Self {
        let length = u64::try_from(by.len()).unwrap_or(u64::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(by.as_bytes());
        self
    }

    /// Of a parameter that may be absent, which is not the same as empty.
    #[must_use]
    pub(crate) fn filtered(self, by: Option<&str>) -> Self {
        match by {
            Some(by) => self.narrowed("=").narrowed(by),
            None => self.narrowed(""),
        }
    }

    /// Whose things it is of.
    #[must_use]
    pub(crate) fn seen_by(self, sight: &Sight) -> Self {
        match sight {
            Sight::Issuer(id) => self.narrowed("issuer").narrowed(&id.0),
            Sight::Manager(id) => self.narrowed("pm").narrowed(&id.to_string()),
        }
    }

    /// The cursor behind `place`.
    ///
    /// # Errors
    /// 503 while the deployment has no key, which it makes at its first start.
    pub(crate) fn cursor(&self, state: &State, place: &str) -> Result<String, ApiError> {
        Ok(format!("{place}.{}", self.tag(state, place)?))
    }

    /// The place behind which the page begins that a query asks for.
    ///
    /// # Errors
    /// `INVALID_CURSOR` for one that this list did not give.
    pub(crate) fn place<'q>(
        &self,
        state: &State,
        query: &'q Query,
    ) -> Result<Option<&'q str>, ApiError> {
        let Some(text) = query.get("cursor") else { return Ok(None) };
        let (place, tag) = text.rsplit_once('.').ok_or_else(invalid)?;
        let is_ours = same(tag.as_bytes(), self.tag(state, place)?.as_bytes());
        if is_ours { Ok(Some(place)) } else { Err(invalid()) }
    }

    fn tag(&self, state: &State, place: &str) -> Result<String, ApiError> {
        let snapshot = state.deps.registry.snapshot();
        let key = snapshot.id_key().ok_or_else(unavailable)?;
        let mut tag = x_signature(key, &self.clone().narrowed(place).0);
        tag.truncate(TAG);
        Ok(tag)
    }
}

/// A cursor that no list gave.
pub(crate) fn invalid() -> ApiError {
    ApiError::at(Code::InvalidCursor, "cursor")
}

/// One page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) items: Vec<Arc<Webhook>>,
    /// All that match, on all pages.
    pub(crate) total: usize,
    /// The place of the last item, if others follow.
    pub(crate) next: Option<String>,
}

type Place = (Timestamp, WebhookId);

/// The page of webhooks or hooks behind a place, in the order in which they were made.
///
/// # Errors
/// `INVALID_CURSOR`.
pub(crate) fn page<'s>(
    matching: impl Iterator<Item = &'s Arc<Webhook>>,
    limit: usize,
    after: Option<&str>,
) -> Result<Page, ApiError> {
    let after = match after {
        Some(text) => Some(read(text).ok_or_else(invalid)?),
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
