//! Entries whose details are not here yet.

use fleetmark_ledger::details::Commitment;
use fleetmark_ledger::entry::{Entry, Event};

/// An entry whose details are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) position: u64,
    pub(crate) subject: u64,
    pub(crate) commitment: Option<Commitment>,
}

impl Wanted {
    /// The details of registrations and changes are: they hold attributes.
    pub(crate) fn of(entry: &Entry, position: u64) -> Option<Self> {
        match entry.event {
            Event::Registered { subject, .. } | Event::Changed { subject } => {
                Some(Self { position, subject, commitment: entry.details })
            }
            _ => None,
        }
    }

    /// The log's payload.
    pub(super) fn encode(&self) -> Vec<u8> {
        let commitment = self.commitment.as_ref().map_or(&[][..], |commitment| &commitment.0);
        [&self.position.to_be_bytes()[..], &self.subject.to_be_bytes(), commitment].concat()
    }

    pub(super) fn decode(octets: &[u8]) -> Option<Self> {
        let (position, rest) = octets.split_first_chunk()?;
        let (subject, rest) = rest.split_first_chunk()?;
        let commitment = if rest.is_empty() { None } else { Some(Commitment(rest.try_into().ok()?)) };
        Some(Self { position: u64::from_be_bytes(*position), subject: u64::from_be_bytes(*subject), commitment })
    }
}
