//! The topic of answers, and what has been answered.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidings_broker::{AppendBatch, AppendError, NewRecord, Record};
use tidings_proto::format_header;
use tidings_signing::sha256;
use tidings_types::{Offset, Timestamp, TopicPartition, names};
use tokio::sync::Mutex;

use super::unanswered;
use crate::{commands::unavailable, errors::ApiError, state::State};

/// Partitions of the topic (design §2).
pub(crate) const PARTITIONS: u32 = 3;
/// How much is folded at once.
const FOLD_BYTES: usize = 1 << 20;
/// How far the clocks of two processes may be apart.
const SKEW: Duration = Duration::from_secs(60);

/// What a cardholder says of a payment: their own, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum YesOrNo {
    Yes,
    No,
}

impl YesOrNo {
    /// In any case of letters (`spec.md` §1.9).
    pub(crate) fn read(text: &str) -> Option<Self> {
        match text {
            _ if text.eq_ignore_ascii_case("yes") => Some(Self::Yes),
            _ if text.eq_ignore_ascii_case("no") => Some(Self::No),
            _ => None,
        }
    }
}

/// One record of the topic, as the card processor reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) fraud_alert_id: String,
    pub(crate) notification_id: String,
    pub(crate) response: YesOrNo,
    pub(crate) issuer_id: String,
    pub(crate) programme_manager: Option<i64>,
    pub(crate) time: Timestamp,
    pub(crate) actor: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    fraud_alert_id: String,
    notification_id: String,
    response: YesOrNo,
    issuer_id: String,
    #[serde(rename = "programManagerId")]
    programme_manager: Option<i64>,
    time: String,
    actor: String,
}

/// Whose alert: two tenants' processors may give the same id.
type Alert = (String, Option<i64>, String);

impl Written {
    fn alert(&self) -> Alert {
        (self.issuer_id.clone(), self.programme_manager, self.fraud_alert_id.clone())
    }
}

/// The answer that stands.
#[derive(Clone, Copy, Debug)]
struct Standing {
    response: YesOrNo,
    /// When its record was written.
    time: Timestamp,
}

/// What has been read of one partition.
#[derive(Debug, Default)]
struct Partition {
    /// Where to go on; `None` before the first read.
    next: Option<Offset>,
    /// One entry for each alert that was answered within the answer window.
    answered: BTreeMap<Alert, Standing>,
}

/// When an alert may be answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) opened: Timestamp,
    pub(crate) closed: Timestamp,
}

/// What came of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decided {
    AsAsked,
    Otherwise,
    TooLate,
}

/// What has been answered. One lock for each partition: answers to one alert take
/// turns.
#[derive(Debug, Default)]
pub(crate) struct FraudLog([Mutex<Partition>; PARTITIONS as usize]);

impl FraudLog {
    /// Makes `response` the answer of its alert if it has none.
    ///
    /// # Errors
    /// 503 when it is not known whether it stands: a repeat is safe.
    pub(crate) async fn decide(
        &self,
        state: &State,
        response: Response,
        window: Window,
    ) -> Result<Decided, ApiError> {
        let is_late = response.time > window.closed;
        let number = partition_of(&response.fraud_alert_id);
        let place = TopicPartition::new(names::FRAUD_RESPONSES, number);
        let Some(partition) = self.0.get(usize::try_from(number).unwrap_or(usize::MAX)) else {
            return Err(unavailable());
        };
        let mut partition = partition.lock().await;
        partition.fold(state, &place).await?;
        let asked = response.response;
        let written = Written {
            fraud_alert_id: response.fraud_alert_id,
            notification_id: response.notification_id,
            response: asked,
            issuer_id: response.issuer_id,
            programme_manager: response.programme_manager,
            time: response.time.to_rfc3339_millis(),
            actor: response.actor,
        };
        let alert = written.alert();
        let judge = |said: YesOrNo| {
            if said == asked { Decided::AsAsked } else { Decided::Otherwise }
        };
        let stands = |partition: &Partition| {
            partition.answered.get(&alert).map(|standing| judge(standing.response))
        };
        if let Some(decided) = stands(&partition) {
            return Ok(decided);
        }
        if is_late {
            // Nothing is written any more: the others need not wait.
            drop(partition);
            let said = first_answer(state, &place, &alert, window).await?;
            return Ok(said.map_or(Decided::TooLate, judge));
        }
        append(state, &place, &written).await?;
        // Another process may have been first.
        partition.fold(state, &place).await?;
        stands(&partition).ok_or_else(unavailable)
    }
}

impl Partition {
    /// Reads what was written since, up to the end of now.
    async fn fold(&mut self, state: &State, place: &TopicPartition) -> Result<(), ApiError> {
        let broker = &state.deps.broker;
        let window = state.config.fraud_answer_window;
        let horizon = state.now().minus(window);
        let end = broker.ends(place).await.map_err(|error| unanswered(&error))?.end;
        let mut next = match self.next {
            // Beyond the end the topic lost its tail: what was said there is void.
            Some(next) if next <= end => next,
            Some(_) | None => {
                self.answered.clear();
                broker.offset_at(place, horizon).await.map_err(|error| unanswered(&error))?
            }
        };
        while next < end {
            let read = broker.read(place, next, FOLD_BYTES).await;
            let records = read.map_err(|error| unanswered(&error))?;
            // The end was further than this: an answer that is not read now may stand.
            let last = records.last().ok_or_else(unavailable)?;
            next = last.offset + 1;
            for record in records {
                self.take(&record);
            }
        }
        self.next = Some(next);
        // An alert is older than its answer, so it has expired by then.
        self.answered.retain(|_, standing| standing.time >= horizon);
        Ok(())
    }

    fn take(&mut self, record: &Record) {
        if let Some(written) = read(record) {
            let standing = Standing { response: written.response, time: record.timestamp };
            self.answered.entry(written.alert()).or_insert(standing);
        }
    }
}

fn read(record: &Record) -> Option<Written> {
    let written = record.value.as_ref().and_then(|value| serde_json::from_slice(value).ok());
    if written.is_none() {
        tracing::error!(offset = record.offset, "an answer to a fraud alert makes no sense");
    }
    written
}

/// The answer that stands of an alert whose time is over: what is folded forgets it by
/// then, the topic does not.
async fn first_answer(
    state: &State,
    place: &TopicPartition,
    alert: &Alert,
    window: Window,
) -> Result<Option<YesOrNo>, ApiError> {
    let broker = &state.deps.broker;
    let end = broker.ends(place).await.map_err(|error| unanswered(&error))?.end;
    let first = broker.offset_at(place, window.opened.minus(SKEW)).await;
    let mut next = first.map_err(|error| unanswered(&error))?;
    while next < end {
        let records = broker.read(place, next, FOLD_BYTES).await;
        let records = records.map_err(|error| unanswered(&error))?;
        let last = records.last().ok_or_else(unavailable)?;
        let said = records.iter().filter_map(read).find(|written| written.alert() == *alert);
        if let Some(written) = said {
            return Ok(Some(written.response));
        }
        if last.timestamp > window.closed + SKEW {
            break;
        }
        next = last.offset + 1;
    }
    Ok(None)
}

async fn append(state: &State, place: &TopicPartition, written: &Written) -> Result<(), ApiError> {
    let value = serde_json::to_vec(written).map_err(|error| {
        tracing::error!(%error, "an answer to a fraud alert cannot be encoded");
        unavailable()
    })?;
    let record = NewRecord {
        key: Some(Bytes::from(written.fraud_alert_id.clone().into_bytes())),
        headers: vec![format_header()],
        value: Some(value.into()),
        timestamp: None,
    };
    let batch = AppendBatch { to: place.clone(), records: vec![record] };
    let appended = state.append(vec![batch]).await.pop();
    match appended.unwrap_or(Err(AppendError::Unavailable)) {
        Ok(_offsets) => Ok(()),
        Err(error) => {
            tracing::warn!(%error, "an answer to a fraud alert was not written");
            Err(unavailable())
        }
    }
}

fn partition_of(alert: &str) -> u32 {
    let digest = sha256(&[alert.as_bytes()]);
    u32::from(digest[0]) % PARTITIONS
}
