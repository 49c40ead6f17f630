//! What is known of several notifications whose ids begin alike, in one row.
//!
//! All ids of an event do. So one row takes what becomes of its notifications, where
//! rows of their own would lie anywhere: sled copies and writes a leaf for each. A pack
//! takes [`PLACES`] of them; those of a larger event get rows of their own, so that
//! news of one costs no more the more there are.

use tidings_types::NotificationId;

use crate::{
    rows,
    store::{Store, StoreError},
    wire::{In, Malformed, put_bytes, put_u64},
};

/// Half an id.
pub(crate) type Half = [u8; 8];

/// Notifications in one pack.
pub(crate) const PLACES: usize = 32;

/// The halves of an id: its pack, and its place there.
pub(crate) fn halves(id: &NotificationId) -> (Half, Half) {
    let (mut first, mut second) = ([0; 8], [0; 8]);
    let (of_pack, of_place) = id.as_bytes().split_at(8);
    first.copy_from_slice(of_pack);
    second.copy_from_slice(of_place);
    (first, second)
}

/// The row of one half.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pack {
    places: Vec<(Half, Vec<u8>)>,
    /// How many more have rows of their own.
    outside: u64,
}

/// Where a notification stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    Here(usize),
    /// In a row of its own, or nowhere.
    Outside,
    Nowhere,
}

impl Pack {
    pub(crate) fn stands(&self, half: Half) -> Stands {
        match self.places.iter().position(|(other, _)| *other == half) {
            Some(at) => Stands::Here(at),
            None if self.outside > 0 => Stands::Outside,
            None => Stands::Nowhere,
        }
    }

    pub(crate) fn at(&self, place: usize) -> Option<&[u8]> {
        self.places.get(place).map(|(_, known)| known.as_slice())
    }

    pub(crate) fn set(&mut self, place: usize, known: Vec<u8>) {
        if let Some((_, there)) = self.places.get_mut(place) {
            *there = known;
        }
    }

    /// Adds a notification that stands nowhere; gives it back if it has to stand
    /// outside.
    pub(crate) fn add(&mut self, half: Half, known: Vec<u8>) -> Option<Vec<u8>> {
        if self.places.len() < PLACES {
            self.places.push((half, known));
            return None;
        }
        self.outside += 1;
        Some(known)
    }

    pub(crate) fn remove(&mut self, place: usize) {
        if place < self.places.len() {
            self.places.remove(place);
        }
    }

    pub(crate) fn removed_outside(&mut self) {
        self.outside = self.outside.saturating_sub(1);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty() && self.outside == 0
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let bytes: usize = self.places.iter().map(|(_, known)| known.len() + 10).sum();
        let mut out = Vec::with_capacity(bytes + 2);
        put_u64(&mut out, self.outside);
        for (half, known) in &self.places {
            out.extend_from_slice(half);
            put_bytes(&mut out, known);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut read = In(bytes);
        let outside = read.u64()?;
        let mut places = Vec::new();
        while !read.is_empty() {
            places.push((read.array()?, read.bytes()?.to_vec()));
        }
        Ok(Self { places, outside })
    }
}

/// What is known of one.
pub(crate) fn get(store: &dyn Store, id: &NotificationId) -> Result<Option<Vec<u8>>, StoreError> {
    let (of_pack, of_place) = halves(id);
    let Some(row) = rows::get(store, &rows::pack_key(of_pack))? else { return Ok(None) };
    let pack = Pack::decode(&row.value)?;
    match pack.stands(of_place) {
        Stands::Here(place) => Ok(pack.at(place).map(<[u8]>::to_vec)),
        Stands::Outside => Ok(rows::get(store, &rows::notification_key(id))?.map(|row| row.value)),
        Stands::Nowhere => Ok(None),
    }
}

/// Gives what is known of each.
pub(crate) fn each(
    store: &dyn Store,
    each: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    store.scan(b"n", b"o", &mut |key, stored| {
        let row = rows::read(store, key, stored)?;
        if key.len() == 1 + size_of::<Half>() {
            for (_, known) in Pack::decode(&row.value)?.places {
                each(&known)?;
            }
        } else {
            each(&row.value)?;
        }
        Ok(true)
    })
}
