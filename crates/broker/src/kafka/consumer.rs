//! A consumer that wakes tasks and is closed on a thread of its own.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, KafkaResult},
    message::{BorrowedMessage, Headers as _, Message as _},
};
use tidings_types::{Offset, Timestamp};
use tokio::sync::Notify;

use super::context::Context;
use crate::seam::{Header, Record};

/// A consumer. Closing one may take seconds, so that happens elsewhere.
pub(super) struct Consumer {
    inner: Option<BaseConsumer<Context>>,
    pub(super) wake: Arc<Notify>,
}

/// What one look at a consumer's queue gave.
pub(super) enum Taken<'a> {
    Message(BorrowedMessage<'a>),
    Error(KafkaError),
    /// The queue is empty; [`Consumer::wake`] tells when it no longer is.
    Nothing,
}

impl Consumer {
    pub(super) fn new(config: &ClientConfig) -> KafkaResult<Self> {
        let mut inner: BaseConsumer<Context> = config.create_with_context(Context::default())?;
        let wake = Arc::new(Notify::new());
        let waker = Arc::clone(&wake);
        inner.set_nonempty_callback(move || waker.notify_one());
        Ok(Self { inner: Some(inner), wake })
    }

    /// The client itself.
    pub(super) fn client(&self) -> Option<&BaseConsumer<Context>> {
        self.inner.as_ref()
    }

    /// Whether all brokers were down; such a consumer may find none again (`stranded`).
    /// For one that is only asked questions, whose queue nobody looks at.
    pub(super) fn has_lost(&self) -> bool {
        super::drain(self);
        self.inner.as_ref().is_some_and(|client| client.context().has_lost())
    }

    /// Takes the next message without waiting.
    pub(super) fn take(&self) -> Taken<'_> {
        self.take_within(Duration::ZERO)
    }

    /// Takes the next message; blocks the thread for so long if there is none.
    pub(super) fn take_within(&self, patience: Duration) -> Taken<'_> {
        let Some(client) = &self.inner else { return Taken::Nothing };
        loop {
            match client.poll(patience) {
                Some(Ok(message)) => return Taken::Message(message),
                Some(Err(error)) => return Taken::Error(error),
                // An event that was handled inside hides what stands behind it.
                None if client.context().take_handled() => {}
                None => return Taken::Nothing,
            }
        }
    }
}

impl Consumer {
    /// Closes in place. Blocks until the group, if there is one, has been told.
    pub(super) fn close(mut self) {
        if let Some(client) = self.inner.take() {
            client.context().close();
            drop(client);
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let Some(client) = self.inner.take() else { return };
        client.context().close();
        let closing = std::thread::Builder::new().name("kafka-close".to_owned());
        if let Err(error) = closing.spawn(move || drop(client)) {
            tracing::warn!(%error, "no thread to close a consumer; it was closed in place");
        }
    }
}

/// A message as the seam shows it.
pub(super) fn record(message: &BorrowedMessage<'_>) -> Record {
    let copy = bytes::Bytes::copy_from_slice;
    let headers: Vec<Header> = message.headers().map_or_else(Vec::new, |headers| {
        let all = headers.iter();
        // The seam knows no header without a value: it has an empty one.
        all.map(|header| (Arc::from(header.key), copy(header.value.unwrap_or_default()))).collect()
    });
    Record {
        offset: Offset::try_from(message.offset()).unwrap_or(0),
        timestamp: Timestamp::from_millis(message.timestamp().to_millis().unwrap_or(0)),
        key: message.key().map(copy),
        headers: headers.into(),
        value: message.payload().map(copy),
    }
}

/// About what a record takes in memory.
pub(super) fn weight(record: &Record) -> usize {
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let body = record.key.as_ref().map_or(0, bytes::Bytes::len)
        + record.value.as_ref().map_or(0, bytes::Bytes::len);
    32 + headers + body
}
