//! Sets of certificates, as ranges.

use fleetmark_domain::serial::EPOCH_CAPACITY;
use fleetmark_domain::{Epoch, Index};

use super::EntryError;
use crate::cbor::{Reader, Writer, Written, form};

/// The most ranges in one entry. A range takes at most 16 octets, so that as many of them always fit into
/// [`super::MAX_ENTRY`].
pub const MAX_RANGES: usize = 3_700;

/// A set of certificates by index, as ascending disjoint ranges. An entry holds at most [`MAX_RANGES`] of them;
/// [`Self::split`] makes several entries of a larger act.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IndexSet(Vec<Range>);

/// `count` certificates of `epoch` from `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// Numbering space.
    pub epoch: Epoch,
    /// First index.
    pub first: Index,
    /// How many; at least 1.
    pub count: u32,
}

impl IndexSet {
    /// The set of these certificates; order and repetition do not matter.
    pub fn from_certificates(certificates: impl IntoIterator<Item = (Epoch, Index)>) -> Self {
        let mut certificates: Vec<_> = certificates.into_iter().collect();
        certificates.sort_unstable();
        certificates.dedup();
        let mut ranges: Vec<Range> = Vec::new();
        for (epoch, index) in certificates {
            match ranges.last_mut() {
                Some(last) if last.epoch == epoch && last.end() == u64::from(index.0) && last.count < u32::MAX => {
                    last.count += 1;
                }
                _ => ranges.push(Range { epoch, first: index, count: 1 }),
            }
        }
        Self(ranges)
    }

    /// Its ranges.
    pub fn ranges(&self) -> &[Range] {
        &self.0
    }

    /// Its certificates, ascending.
    pub fn certificates(&self) -> impl Iterator<Item = (Epoch, Index)> + '_ {
        self.0
            .iter()
            .flat_map(|range| (range.first.0..range.first.0.saturating_add(range.count)).map(|i| (range.epoch, Index(i))))
    }

    /// How many certificates it holds.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|range| u64::from(range.count)).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same certificates as sets of at most `max_ranges` ranges each (0 counts as 1); none for the empty set.
    /// With [`MAX_RANGES`], each fits into one entry.
    pub fn split(self, max_ranges: usize) -> Vec<Self> {
        let most = max_ranges.max(1);
        if self.0.len() <= most {
            return if self.0.is_empty() { Vec::new() } else { vec![self] };
        }
        self.0.chunks(most).map(|ranges| Self(ranges.to_vec())).collect()
    }

    /// Whether an entry can hold it.
    pub(super) fn check(&self) -> Result<(), EntryError> {
        if self.0.len() > MAX_RANGES {
            return Err(EntryError::TooLong);
        }
        if self.0.is_empty() {
            return Err(form("a set of certificates is empty"));
        }
        let fits = self.0.iter().all(|range| range.end() <= u64::from(EPOCH_CAPACITY));
        if fits { Ok(()) } else { Err(form("an index is above an epoch's capacity")) }
    }

    /// `[+ [epoch, first, count]]`
    pub(super) fn write(&self, writer: &mut Writer) -> Written {
        writer.array(u64::try_from(self.0.len()).unwrap_or(u64::MAX))?;
        for range in &self.0 {
            writer.array(3)?.u32(range.epoch.0)?.u32(range.first.0)?.u32(range.count)?;
        }
        Ok(())
    }

    /// Reads what [`Self::write`] wrote; refuses ranges that are empty, out of order, overlapping or adjacent.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, EntryError> {
        let count = usize::try_from(reader.array()?).ok().filter(|count| *count <= MAX_RANGES);
        let mut ranges: Vec<Range> = Vec::new();
        for _ in 0..count.ok_or_else(|| form("there are too many ranges"))? {
            if reader.array()? != 3 {
                return Err(form("a range has three numbers"));
            }
            let range = Range { epoch: Epoch(reader.u32()?), first: Index(reader.u32()?), count: reader.u32()? };
            if range.count == 0 || ranges.last().is_some_and(|last| !last.is_before(&range)) {
                return Err(form("the ranges are not ascending and disjoint"));
            }
            ranges.push(range);
        }
        Ok(Self(ranges))
    }
}

impl Range {
    /// The index after the last one.
    fn end(&self) -> u64 {
        u64::from(self.first.0) + u64::from(self.count)
    }

    /// Whether `next` may follow: in a later epoch, or with a gap between the two.
    fn is_before(&self, next: &Self) -> bool {
        self.epoch < next.epoch || (self.epoch == next.epoch && self.end() < u64::from(next.first.0))
    }
}
