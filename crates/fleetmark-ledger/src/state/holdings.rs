//! Fingerprint, standing and holder of each certificate: 21 octets where an epoch is filled.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use fleetmark_domain::serial::EPOCH_CAPACITY;
use fleetmark_domain::{Epoch, Index, Standing};

use super::{Holding, ShortFingerprint};
use crate::audit::Places;
use crate::entry::{Issued, Range};

/// How many indices share a chunk.
const CHUNK: u32 = 4_096;

/// So many certificates make a chunk of their indices worth its memory; fewer are kept in a list. An entry that issues has
/// some 80 octets: hostile indices cost no more than what the ledger itself takes.
const DENSE: usize = 1_024;

/// The octet of an index that was not issued.
const NONE: u8 = u8::MAX;

/// All certificates, by epoch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holdings(BTreeMap<Epoch, Column>);

/// The certificates of one epoch.
#[derive(Debug, Clone, Default)]
struct Column {
    /// The chunks with many certificates, by index; growth copies nothing but these pointers.
    dense: Vec<Option<Box<Chunk>>>,
    /// Those with few, by the chunk's number; each list ascending by index.
    sparse: BTreeMap<u32, Vec<Place>>,
}

/// The certificates of [`CHUNK`] indices.
#[derive(Debug, Clone)]
struct Chunk {
    fingerprints: [[u8; 12]; 4_096],
    subjects: [u64; 4_096],
    standings: [u8; 4_096],
}

/// A certificate on its own.
#[derive(Debug, Clone, Copy)]
struct Place {
    subject: u64,
    fingerprint: [u8; 12],
    within: u16,
    standing: u8,
}

impl Holdings {
    /// The certificate at a place.
    pub(super) fn holding(&self, epoch: Epoch, index: Index) -> Option<Holding> {
        let column = self.0.get(&epoch)?;
        let (chunk, within) = split(index);
        let place = match column.dense.get(usize::try_from(chunk).ok()?) {
            Some(Some(dense)) => dense.place(within)?,
            _ => *column.sparse_place(chunk, within)?,
        };
        place.holding()
    }

    /// Keeps a certificate at a place that holds none.
    pub(crate) fn insert(&mut self, epoch: Epoch, index: Index, holding: Holding) {
        let (chunk, within) = split(index);
        let fingerprint = holding.fingerprint.0;
        let place = Place { subject: holding.subject, fingerprint, within, standing: holding.standing.code() };
        self.0.entry(epoch).or_default().insert(chunk, place);
    }

    /// The epoch's certificates, ascending.
    pub(crate) fn of(&self, epoch: Epoch) -> impl Iterator<Item = (Index, Holding)> + '_ {
        self.0.get(&epoch).into_iter().flat_map(|column| column.places(0, EPOCH_CAPACITY))
    }
}

impl Places for Holdings {
    fn standing(&self, epoch: Epoch, index: Index) -> Option<Standing> {
        self.holding(epoch, index).map(|holding| holding.standing)
    }

    fn issue(&mut self, issued: &Issued) {
        let Issued { epoch, index, subject, standing, .. } = *issued;
        self.insert(epoch, index, Holding { fingerprint: ShortFingerprint::from(&issued.fingerprint), standing, subject });
    }

    fn known(&self, range: Range) -> impl Iterator<Item = Standing> {
        let end = range.first.0.saturating_add(range.count);
        let places = self.0.get(&range.epoch).into_iter().flat_map(move |column| column.places(range.first.0, end));
        places.map(|(_, holding)| holding.standing)
    }

    fn change(&mut self, range: Range, standing: Standing) {
        let end = range.first.0.saturating_add(range.count);
        if let Some(column) = self.0.get_mut(&range.epoch) {
            column.change(range.first.0, end, standing.code());
        }
    }
}

impl Column {
    fn sparse_place(&self, chunk: u32, within: u16) -> Option<&Place> {
        let places = self.sparse.get(&chunk)?;
        places.get(places.binary_search_by_key(&within, |place| place.within).ok()?)
    }

    fn insert(&mut self, chunk: u32, place: Place) {
        let number = usize::try_from(chunk).unwrap_or(usize::MAX);
        if let Some(Some(dense)) = self.dense.get_mut(number) {
            return dense.put(&place);
        }
        let places = self.sparse.entry(chunk).or_default();
        match places.binary_search_by_key(&place.within, |place| place.within) {
            Ok(_) => {}
            Err(at) => places.insert(at, place),
        }
        if places.len() >= DENSE {
            let dense = Chunk::of(places);
            self.sparse.remove(&chunk);
            if self.dense.len() <= number {
                self.dense.resize_with(number + 1, || None);
            }
            if let Some(slot) = self.dense.get_mut(number) {
                *slot = Some(dense);
            }
        }
    }

    /// The certificates with an index in `first..end`, ascending.
    fn places(&self, first: u32, end: u32) -> impl Iterator<Item = (Index, Holding)> + '_ {
        let chunks = chunks_of(first, end);
        let slots = self.dense.get(slots_of(&chunks, self.dense.len())).unwrap_or_default();
        let dense = (*chunks.start()..).zip(slots).filter_map(|(number, chunk)| Some((number, chunk.as_deref()?)));
        let (mut dense, mut sparse) = (dense.peekable(), self.sparse.range(chunks).peekable());
        // A chunk is dense, sparse or empty: the two are merged by number.
        let next = move || {
            let is_dense = match (dense.peek(), sparse.peek()) {
                (Some((left, _)), Some((right, _))) => left < *right,
                (dense, _) => dense.is_some(),
            };
            if is_dense {
                dense.next().map(|(number, chunk)| (number, Form::Dense(chunk)))
            } else {
                sparse.next().map(|(number, places)| (*number, Form::Sparse(places)))
            }
        };
        let places = std::iter::from_fn(next).flat_map(move |(number, chunk)| {
            chunk.places(within(number, first, end)).map(move |place| (number * CHUNK + u32::from(place.within), place))
        });
        places.filter_map(|(index, place)| Some((Index(index), place.holding()?)))
    }

    fn change(&mut self, first: u32, end: u32, standing: u8) {
        let chunks = chunks_of(first, end);
        let slots = slots_of(&chunks, self.dense.len());
        let dense = (*chunks.start()..).zip(self.dense.get_mut(slots).unwrap_or_default());
        for (number, chunk) in dense.filter_map(|(number, chunk)| Some((number, chunk.as_deref_mut()?))) {
            let (from, to) = within(number, first, end);
            let codes = chunk.standings.get_mut(usize::from(from)..usize::from(to)).unwrap_or_default();
            codes.iter_mut().filter(|code| **code != NONE).for_each(|code| *code = standing);
        }
        for (number, places) in self.sparse.range_mut(chunks) {
            let (from, to) = within(*number, first, end);
            let known = places.iter_mut().filter(|place| (from..to).contains(&place.within));
            known.for_each(|place| place.standing = standing);
        }
    }
}

/// The numbers of the chunks that hold indices of `first..end`.
fn chunks_of(first: u32, end: u32) -> RangeInclusive<u32> {
    (first / CHUNK)..=(end.max(first + 1) - 1) / CHUNK
}

/// The places of these chunks among `count` of them.
fn slots_of(chunks: &RangeInclusive<u32>, count: usize) -> std::ops::Range<usize> {
    let slot = |number: u32| usize::try_from(number).unwrap_or(usize::MAX).min(count);
    slot(*chunks.start())..slot(chunks.end() + 1)
}

/// Which places of a chunk are in `first..end`.
fn within(number: u32, first: u32, end: u32) -> (u16, u16) {
    let start = number * CHUNK;
    let bounded = |index: u32| u16::try_from(index.saturating_sub(start).min(CHUNK)).unwrap_or(0);
    (bounded(first), bounded(end))
}

/// A chunk in one of its two forms.
enum Form<'a> {
    Dense(&'a Chunk),
    Sparse(&'a [Place]),
}

impl<'a> Form<'a> {
    /// The certificates in these places, ascending.
    fn places(self, (from, to): (u16, u16)) -> impl Iterator<Item = Place> + 'a {
        let (dense, sparse) = match self {
            Self::Dense(chunk) => (Some(chunk), None),
            Self::Sparse(places) => (None, Some(places)),
        };
        let dense = dense.into_iter().flat_map(move |chunk| (from..to).filter_map(|within| chunk.place(within)));
        let sparse = sparse.into_iter().flatten().filter(move |place| (from..to).contains(&place.within));
        dense.chain(sparse.copied())
    }
}

impl Chunk {
    #[expect(
        clippy::large_stack_arrays,
        reason = "84 KiB for a moment; a thread has 2 MiB, and no Vec is between look-up and array"
    )]
    fn of(places: &[Place]) -> Box<Self> {
        let mut chunk = Box::new(Self { fingerprints: [[0; 12]; 4_096], subjects: [0; 4_096], standings: [NONE; 4_096] });
        for place in places {
            chunk.put(place);
        }
        chunk
    }

    fn put(&mut self, place: &Place) {
        let within = usize::from(place.within);
        let slots = (self.fingerprints.get_mut(within), self.subjects.get_mut(within), self.standings.get_mut(within));
        if let (Some(fingerprint), Some(subject), Some(standing)) = slots {
            (*fingerprint, *subject, *standing) = (place.fingerprint, place.subject, place.standing);
        }
    }

    fn place(&self, within: u16) -> Option<Place> {
        let at = usize::from(within);
        let standing = self.standings.get(at).copied().filter(|standing| *standing != NONE)?;
        Some(Place { subject: *self.subjects.get(at)?, fingerprint: *self.fingerprints.get(at)?, within, standing })
    }
}

impl Place {
    fn holding(&self) -> Option<Holding> {
        let standing = Standing::from_code(self.standing, None)?;
        Some(Holding { fingerprint: ShortFingerprint(self.fingerprint), standing, subject: self.subject })
    }
}

/// The number of an index's chunk, and its place within.
fn split(index: Index) -> (u32, u16) {
    (index.0 / CHUNK, u16::try_from(index.0 % CHUNK).unwrap_or(0))
}

#[cfg(test)]
mod tests;
