//! One entry: an act that changed a standing or a policy.

mod event;
mod external;
mod index_set;

use fleetmark_domain::Timestamp;

use crate::cbor::{Reader, form, write};
use crate::details::Commitment;

pub use event::{AuthorityKind, AuthorityState, Event, Issued};
pub(crate) use event::{state_code, state_from_code};
pub use external::{Adopted, ExternalAuthority, ExternalState, MAX_ISSUERS};
pub use index_set::{IndexSet, MAX_RANGES, Range};

/// The longest entry, in octets (DESIGN §7).
pub const MAX_ENTRY: usize = 60_000;

/// An act, as the ledger keeps it for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When the server did it.
    pub at: Timestamp,
    /// What it did.
    pub event: Event,
    /// Commitment to the details, where there are any.
    pub details: Option<Commitment>,
}

/// Why octets are no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Longer than [`MAX_ENTRY`], or with more ranges than [`MAX_RANGES`].
    #[error("an entry has at most {MAX_ENTRY} octets")]
    TooLong,
    /// Not CBOR, not in deterministic form, or not of the shape in docs/ledger.md.
    #[error("the entry is not of the form that docs/ledger.md gives: {0}")]
    Form(String),
}

impl Entry {
    /// The entry in deterministic CBOR (RFC 8949 4.2.1), as docs/ledger.md gives it in CDDL. The reason of a revocation
    /// is not in it.
    ///
    /// # Errors
    /// [`EntryError::TooLong`] beyond [`MAX_ENTRY`] octets or [`MAX_RANGES`] ranges: the caller splits the act.
    /// [`EntryError::Form`] for what the CDDL has no place for: an empty set, an index of 2^24 or more, a certificate
    /// issued as revoked.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        self.event.check()?;
        let octets = write(|w| {
            w.map(if self.details.is_some() { 4 } else { 3 })?.u8(1)?.i64(self.at.0)?.u8(2)?.u8(self.event.code())?;
            if let Some(commitment) = &self.details {
                w.u8(3)?.bytes(&commitment.0)?;
            }
            self.event.write(w.u8(4)?)
        });
        if octets.len() > MAX_ENTRY { Err(EntryError::TooLong) } else { Ok(octets) }
    }

    /// Reads an entry, and refuses one that [`Self::encode`] would have written otherwise. A revocation's reason is
    /// always `Unspecified`.
    ///
    /// # Errors
    /// [`EntryError::TooLong`] beyond [`MAX_ENTRY`] octets, [`EntryError::Form`] for everything else.
    pub fn decode(octets: &[u8]) -> Result<Self, EntryError> {
        if octets.len() > MAX_ENTRY {
            return Err(EntryError::TooLong);
        }
        let mut reader = Reader::new(octets);
        let fields = reader.map()?;
        reader.key(1)?;
        let at = Timestamp(reader.i64()?);
        reader.key(2)?;
        let code = reader.u8()?;
        let details = if reader.key_if(3) { Some(Commitment(reader.octets()?)) } else { None };
        reader.key(4)?;
        let event = Event::read(code, &mut reader)?;
        let entry = Self { at, event, details };
        if fields == (if details.is_some() { 4 } else { 3 }) && entry.encode()? == octets {
            return Ok(entry);
        }
        Err(form("the encoding is not the deterministic one"))
    }
}

#[cfg(test)]
pub(crate) mod example;

#[cfg(test)]
mod tests;
