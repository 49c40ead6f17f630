//! What the view is asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use prost::Message;
use tidings_proto::{decode, v1};
use tidings_types::{EventUid, NotificationId, Shape, Timestamp, TopicPartition, WebhookId};

use crate::{
    facts, fold,
    item::{AttemptItem, AttemptList, Cursor, Item, Page, Places, UndeliveredGroup},
    notification::{Notification, Origin},
    pack, rows,
    store::StoreError,
    view::View,
    wire::{In, Malformed},
};

/// Chunks of decisions kept while one answer is made.
const CACHED_CHUNKS: usize = 32;

/// Reads decisions, each chunk once.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    chunks: BTreeMap<u64, Vec<Bytes>>,
}

impl Decisions {
    fn get(&mut self, view: &View, origin: &Origin) -> Result<v1::RoutedRecord, StoreError> {
        self.record(view, origin.chunk, origin.record)
    }

    /// The decision at a place in a chunk.
    pub(crate) fn record(
        &mut self,
        view: &View,
        chunk: u64,
        record: u32,
    ) -> Result<v1::RoutedRecord, StoreError> {
        if !self.chunks.contains_key(&chunk) {
            if self.chunks.len() >= CACHED_CHUNKS {
                self.chunks.clear();
            }
            let row = rows::get(&*view.store, &rows::decisions_key(chunk))?;
            let row = row.ok_or_else(|| StoreError::damaged("a chunk is missing"))?;
            self.chunks.insert(chunk, facts::decisions(row.value)?);
        }
        let at = usize::try_from(record).map_err(|_large| Malformed)?;
        let raw = self.chunks.get(&chunk).and_then(|chunk| chunk.get(at));
        let raw = raw.cloned().ok_or(Malformed)?;
        Ok(decode(raw).map_err(|_undecodable| Malformed)?)
    }
}

/// Entries of a list in its order.
type Entries = BTreeSet<(Timestamp, NotificationId)>;

impl View {
    /// What is known of a notification whose decision has been read.
    fn find(&self, id: &NotificationId) -> Result<Option<(Notification, Origin)>, StoreError> {
        if let Some(waiting) = self.waiting.get(id) {
            let origin = self.origin(waiting)?;
            let mut known = Notification::default();
            known.set_origin(origin, false);
            return Ok(Some((known, origin)));
        }
        let Some(known) = pack::get(&*self.store, id)? else { return Ok(None) };
        let known = Notification::decode(&known)?;
        Ok(known.origin.map(|origin| (known, origin)))
    }

    fn item(
        &self,
        decisions: &mut Decisions,
        id: NotificationId,
        (known, origin): (&Notification, &Origin),
        now: Timestamp,
    ) -> Result<Item, StoreError> {
        let record = decisions.get(self, origin)?;
        let (decision, routed) = fold::routed_of(&record).ok_or(Malformed)?;
        let source = decision.source.as_ref().ok_or(Malformed)?;
        let (state, reason) = known.state();
        let deadline = (routed.deadline != 0).then(|| Timestamp::from_millis(routed.deadline));
        let (body, redacted) = body(routed, id, deadline.is_some_and(|deadline| now > deadline));
        Ok(Item {
            notification: id,
            webhook: origin.webhook,
            event_type: self.names.type_name(origin.event_type).cloned().ok_or(Malformed)?,
            state,
            reason,
            last_code: known.tried.last().map(|(_, last)| Arc::clone(&last.code)),
            created: origin.created,
            last_sent: known.tried.last().map(|(time, _)| time),
            attempts: known.attempts(),
            resends: known.resends(),
            run: known.latest_run(),
            number: (known.number != 0).then_some((known.number_lane, known.number)),
            lane: routed.lane().into(),
            tenant: routed.tenant.as_str().into(),
            issuer: routed.issuer.as_str().into(),
            order_key: routed.order_key.as_str().into(),
            deadline,
            source: (TopicPartition::new(&*source.topic, source.partition), source.offset),
            uid: EventUid::from_slice(&routed.uid).ok_or(Malformed)?,
            traceparent: decision.traceparent.as_str().into(),
            fraud_alert_id: routed.fraud_alert_id.as_str().into(),
            body,
            redacted,
        })
    }

    pub(crate) fn by_ids(
        &self,
        webhook: WebhookId,
        ids: &[NotificationId],
        now: Timestamp,
    ) -> Result<Vec<Item>, StoreError> {
        let kept = now.minus(self.limits.retention);
        let (mut decisions, mut items) = (Decisions::default(), Vec::new());
        for id in ids {
            match self.find(id)? {
                Some((known, origin)) if origin.webhook == webhook && origin.created >= kept => {
                    items.push(self.item(&mut decisions, *id, (&known, &origin), now)?);
                }
                Some(_) | None => {}
            }
        }
        Ok(items)
    }

    /// A notification of any webhook. Who asks checks whose it is.
    pub(crate) fn by_id(
        &self,
        id: NotificationId,
        now: Timestamp,
    ) -> Result<Option<Item>, StoreError> {
        let kept = now.minus(self.limits.retention);
        match self.find(&id)? {
            Some((known, origin)) if origin.created >= kept => {
                self.item(&mut Decisions::default(), id, (&known, &origin), now).map(Some)
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The attempts of a notification of `webhook`; `None` if it has no such one.
    pub(crate) fn attempts(
        &self,
        webhook: WebhookId,
        id: NotificationId,
        now: Timestamp,
    ) -> Result<Option<AttemptList>, StoreError> {
        let kept = now.minus(self.limits.retention);
        let found = self.find(&id)?;
        let found = found.filter(|(_, at)| at.webhook == webhook && at.created >= kept);
        let Some((known, origin)) = found else { return Ok(None) };
        let event_type = self.names.type_name(origin.event_type).cloned().ok_or(Malformed)?;
        let attempts = known.tried.iter().map(|(ended, place, tried)| AttemptItem {
            number: tried.number,
            run: tried.run,
            started: ended.minus(Duration::from_millis(tried.duration_ms.into())),
            duration: Duration::from_millis(tried.duration_ms.into()),
            delivered: tried.delivered,
            code: Arc::clone(&tried.code),
            http_status: u16::try_from(tried.http_status).ok().filter(|status| *status != 0),
            next_due: (tried.next_due != Timestamp::ZERO).then_some(tried.next_due),
            answer: tried.has_answer.then_some((place.offset, place.index)),
        });
        Ok(Some(AttemptList { event_type, attempts: attempts.collect() }))
    }

    pub(crate) fn list(
        &self,
        webhook: WebhookId,
        event_type: &str,
        from: Timestamp,
        limit: usize,
        cursor: Option<Cursor>,
        (as_of, now): (Timestamp, Timestamp),
    ) -> Result<Page, StoreError> {
        let mut page = Page { items: Vec::new(), next: None, as_of };
        let Some(event_type) = self.names.find_type(event_type) else { return Ok(page) };
        let from = from.max(now.minus(self.limits.retention));
        let mut after = cursor.map(|cursor| (cursor.created, cursor.notification));
        let mut decisions = Decisions::default();
        loop {
            let wanted = limit.saturating_sub(page.items.len()).saturating_add(1);
            let (entries, more) = self.entries(webhook, event_type, from, after, wanted)?;
            for (created, id) in entries {
                if created > as_of {
                    return Ok(page);
                }
                after = Some((created, id));
                // An entry stays behind when an earlier decision was found later.
                let found = self.find(&id)?.filter(|(_, origin)| origin.created == created);
                let Some((known, origin)) = found else { continue };
                if page.items.len() >= limit {
                    let last = page.items.last();
                    page.next = last.map(|last| Cursor {
                        created: last.created,
                        notification: last.notification,
                    });
                    return Ok(page);
                }
                page.items.push(self.item(&mut decisions, id, (&known, &origin), now)?);
            }
            if !more {
                return Ok(page);
            }
        }
    }

    /// The next entries of a list: at least `wanted` if there are as many, in
    /// whole buckets of time. Says whether there may be more behind them.
    fn entries(
        &self,
        webhook: WebhookId,
        event_type: u32,
        from: Timestamp,
        after: Option<(Timestamp, NotificationId)>,
        wanted: usize,
    ) -> Result<(Entries, bool), StoreError> {
        let start = after.map_or(from, |(created, _)| created.max(from));
        let is_next = |entry: &(Timestamp, NotificationId)| {
            entry.0 >= from && after.is_none_or(|after| *entry > after)
        };
        let recent = self.webhooks.find(&webhook);
        let recent = recent.and_then(|webhook| self.tails.get(&(webhook, event_type)));
        let mut entries: Entries = recent
            .into_iter()
            .flat_map(|tail| tail.entries.iter().copied())
            .filter(is_next)
            .collect();
        let (mut bucket, mut end) = (None, None);
        let first = rows::index_from(&webhook, event_type, rows::bucket(start));
        let below = rows::index_from(&webhook, event_type, i64::MAX);
        self.store.scan(&first, &below, &mut |key, stored| {
            let here = rows::index_bucket(key).ok_or(Malformed)?;
            if bucket != Some(here) {
                let before = entries.range(..(rows::bucket_start(here), MIN_ID)).count();
                if before >= wanted {
                    end = Some(rows::bucket_start(here));
                    return Ok(false);
                }
                bucket = Some(here);
            }
            let row = rows::read(&*self.store, key, stored)?;
            let mut read = In(&row.value);
            while !read.is_empty() {
                let created = rows::bucket_start(here).as_millis().saturating_add(read.i64()?);
                let id = NotificationId::from_bytes(read.array()?);
                let entry = (Timestamp::from_millis(created), id);
                if is_next(&entry) {
                    entries.insert(entry);
                }
            }
            Ok(true)
        })?;
        if let Some(end) = end {
            entries.split_off(&(end, MIN_ID));
        }
        Ok((entries, end.is_some()))
    }

    pub(crate) fn undelivered(
        &self,
        webhook: WebhookId,
        from: Timestamp,
        after: &Places,
        (as_of, now): (Timestamp, Timestamp),
    ) -> Result<Vec<UndeliveredGroup>, StoreError> {
        let from = from.max(now.minus(self.limits.retention));
        let mut groups = Vec::new();
        for (name, event_type) in self.names.types() {
            let mut group = UndeliveredGroup {
                event_type: Arc::clone(name),
                count: 0,
                notifications: Vec::new(),
                next: None,
            };
            let place = after.get(&**name).map(|place| (place.created, place.notification));
            let is_listed = after.is_empty() || place.is_some();
            let mut last = None;
            let first = rows::missed_from(&webhook, event_type, from);
            let below = rows::missed_from(
                &webhook,
                event_type,
                Timestamp::from_millis(as_of.as_millis().saturating_add(1)),
            );
            self.store.scan(&first, &below, &mut |key, stored| {
                rows::read(&*self.store, key, stored)?;
                let (created, id) = rows::missed_parts(key).ok_or(Malformed)?;
                group.count += 1;
                if !is_listed || place.is_some_and(|place| (created, id) <= place) {
                    return Ok(true);
                }
                if group.notifications.len() < UndeliveredGroup::MAX_IDS {
                    group.notifications.push(id);
                    last = Some(Cursor { created, notification: id });
                } else {
                    group.next = last;
                }
                Ok(true)
            })?;
            if group.count > 0 {
                groups.push(group);
            }
        }
        Ok(groups)
    }

    /// Every list of a webhook, one line per notification, then what it missed.
    pub(crate) fn dump(&self, webhook: WebhookId) -> Result<String, StoreError> {
        let ever = (Timestamp::from_millis(i64::MAX - 1), Timestamp::ZERO);
        let mut text = String::new();
        let types: Vec<_> = self.names.types().map(|(name, _)| Arc::clone(name)).collect();
        for name in types {
            let mut cursor = None;
            loop {
                let from = Timestamp::from_millis(i64::MIN);
                let page = self.list(webhook, &name, from, 1_000, cursor, ever)?;
                for item in &page.items {
                    line(&mut text, item).map_err(StoreError::damaged)?;
                    let known = self.find(&item.notification)?;
                    for tried in known.iter().flat_map(|(known, _)| known.tried.iter()) {
                        writeln!(text, "  {tried:?}").map_err(StoreError::damaged)?;
                    }
                }
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
        }
        for group in
            self.undelivered(webhook, Timestamp::from_millis(i64::MIN), &Places::new(), ever)?
        {
            writeln!(text, "{group:?}").map_err(StoreError::damaged)?;
        }
        Ok(text)
    }
}

const MIN_ID: NotificationId = NotificationId::from_bytes([0; 16]);

/// The body of a notification's shape or, past its deadline, the one without its
/// short-lived fields.
fn body(routed: &v1::Routed, id: NotificationId, past: bool) -> (Option<v1::Body>, bool) {
    if past && routed.redacted.is_some() {
        return (routed.redacted.clone(), true);
    }
    let target = routed.targets.iter().find(|target| target.notification == id.as_bytes()[..]);
    let Some(target) = target else { return (None, false) };
    let shape = Shape::from(target.shape());
    let body = routed.bodies.iter().find(|body| Shape::from(body.shape()) == shape);
    (body.cloned(), false)
}

fn line(text: &mut String, item: &Item) -> std::fmt::Result {
    let body = item.body.as_ref().map(|body| crc32c::crc32c(&body.encode_to_vec()));
    let Item { body: _, notification, event_type, state, reason, last_code, .. } = item;
    let Item { created, last_sent, attempts, resends, run, number, lane, .. } = item;
    let Item { tenant, issuer, order_key, deadline, source, uid, traceparent, .. } = item;
    writeln!(
        text,
        "{event_type} {} {notification} {state} {reason:?} {last_code:?} {last_sent:?} {attempts} \
         {resends} {run} {number:?} {lane:?} {tenant} {issuer} {order_key:?} {deadline:?} {}@{} \
         {uid} {traceparent} {body:?}",
        created.as_millis(),
        source.0,
        source.1,
    )
}
