//! Opens sealed bodies. An event that goes to many webhooks is opened once: the
//! plain bytes of the last few bodies are kept, bounded by bytes.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use tidings_proto::v1;
use tidings_signing::{KeyBook, OpenError, Sealed};

/// Event uid, shape and the nonce of the sealed value.
type Key = ([u8; 32], i32, [u8; 12]);

/// Why a body cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// Its key is not known here (yet), or gone for good.
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("a delivery record has no body, or one that does not follow its format")]
    Malformed,
}

/// The last opened bodies.
#[derive(Debug)]
pub(crate) struct Bodies {
    keys: KeyBook,
    opened: HashMap<Key, Bytes>,
    order: VecDeque<Key>,
    bytes: usize,
    limit: usize,
}

impl Bodies {
    pub(crate) fn new(keys: KeyBook, limit: usize) -> Self {
        Self { keys, opened: HashMap::new(), order: VecDeque::new(), bytes: 0, limit }
    }

    pub(crate) fn keys(&self) -> &KeyBook {
        &self.keys
    }

    /// The body that goes on the wire: opened, with the notification id in its
    /// hole. One allocation and one copy.
    pub(crate) fn render(
        &mut self,
        record: &v1::DeliveryRecord,
        id: &[u8; 36],
    ) -> Result<Bytes, BodyError> {
        let body = record.body.as_ref().ok_or(BodyError::Malformed)?;
        let plain = self.open(record, body)?;
        let Some(hole) = body.hole else { return Ok(plain) };
        let hole = usize::try_from(hole).map_err(|_large| BodyError::Malformed)?;
        let before = plain.get(..hole).ok_or(BodyError::Malformed)?;
        let after = plain.get(hole + id.len()..).ok_or(BodyError::Malformed)?;
        let mut filled = Vec::with_capacity(plain.len());
        filled.extend_from_slice(before);
        filled.extend_from_slice(id);
        filled.extend_from_slice(after);
        Ok(filled.into())
    }

    fn open(&mut self, record: &v1::DeliveryRecord, body: &v1::Body) -> Result<Bytes, BodyError> {
        let sealed = body.sealed.as_ref().ok_or(BodyError::Malformed)?;
        let nonce: [u8; 12] =
            sealed.nonce.as_ref().try_into().map_err(|_length| BodyError::Malformed)?;
        let uid: [u8; 32] =
            record.uid.as_ref().try_into().map_err(|_length| BodyError::Malformed)?;
        let key = (uid, body.shape, nonce);
        if let Some(plain) = self.opened.get(&key) {
            return Ok(plain.clone());
        }
        let sealed =
            Sealed { key: sealed.key.clone(), nonce, data: Vec::from(sealed.data.as_ref()) };
        let plain = Bytes::from(self.keys.open(&sealed, &aad(&uid, body.shape))?);
        self.keep(key, &plain);
        Ok(plain)
    }

    fn keep(&mut self, key: Key, plain: &Bytes) {
        self.bytes += plain.len();
        self.opened.insert(key, plain.clone());
        self.order.push_back(key);
        while self.bytes > self.limit {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(plain) = self.opened.remove(&oldest) {
                self.bytes = self.bytes.saturating_sub(plain.len());
            }
        }
    }
}

/// The associated data of a body: `body`, the event's uid, the shape's number.
fn aad(uid: &[u8; 32], shape: i32) -> [u8; 37] {
    let mut aad = [0; 37];
    let (word, rest) = aad.split_at_mut(4);
    word.copy_from_slice(b"body");
    let (uid_place, shape_place) = rest.split_at_mut(32);
    uid_place.copy_from_slice(uid);
    if let Some(place) = shape_place.first_mut() {
        *place = u8::try_from(shape).unwrap_or(0);
    }
    aad
}
