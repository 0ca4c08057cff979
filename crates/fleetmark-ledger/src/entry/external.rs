//! Other authorities, and the certificates of theirs that a fleet adopted.

use fleetmark_domain::{Epoch, Fingerprint, Index, NameForm, NamePart, NameSource, Naming, Standing, Timestamp};

use super::event::{check_index, field, second};
use super::{EntryError, Issued};
use crate::cbor::{Reader, Writer, Written, form};

/// The most CA certificates of one external authority.
pub const MAX_ISSUERS: usize = 8;

/// The least id of an external authority: those below are the installation's own.
const LEAST_ID: u32 = 1 << 30;

/// Whether an external authority's certificates count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExternalState {
    /// They do.
    Active,
    /// What it says of their status is past its end: they do not for now.
    Stale,
    /// An operator closed it: they do not for now.
    Disabled,
    /// They never will again.
    Ended,
}

/// An external authority, as it is from an entry on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAuthority {
    /// Its id in the store; 2^30 or more.
    pub authority: u32,
    /// Whether its certificates count.
    pub state: ExternalState,
    /// SHA-256 over its rules and CA certificates, as docs/external.md says.
    pub rules: [u8; 32],
    /// SHA-256 over the subject's Name of each of its CA certificates: 1 to 8, ascending, each once.
    pub issuers: Vec<[u8; 32]>,
    /// How the devices of its certificates are called; never changes.
    pub naming: Naming,
}

/// A certificate of another authority that was adopted: good from here on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// The external authority's id.
    pub authority: u32,
    /// Numbering space, opened for that authority.
    pub epoch: Epoch,
    /// Place in it.
    pub index: Index,
    /// SHA-256 over the certificate.
    pub fingerprint: Fingerprint,
    /// The holder's id.
    pub subject: u64,
    /// Which of the holder's certificates, from 1.
    pub generation: u32,
    /// End of validity.
    pub not_after: Timestamp,
    /// SHA-256 over authority, issuer and serial number: by what it is found on the other authority's list.
    pub key: [u8; 32],
}

impl Adopted {
    /// Its place, as one that was issued has it.
    pub(crate) const fn place(&self) -> Issued {
        Issued {
            authority: self.authority,
            epoch: self.epoch,
            index: self.index,
            fingerprint: self.fingerprint,
            subject: self.subject,
            generation: self.generation,
            standing: Standing::Good,
            not_after: self.not_after,
        }
    }

    pub(super) fn check(&self) -> Result<(), EntryError> {
        check_id(self.authority)?;
        check_index(self.index)
    }

    pub(super) fn write(&self, w: &mut Writer) -> Written {
        w.map(8)?.u8(1)?.u32(self.authority)?.u8(2)?.u32(self.epoch.0)?.u8(3)?.u32(self.index.0)?;
        w.u8(4)?.bytes(self.fingerprint.octets())?.u8(5)?.u64(self.subject)?.u8(6)?.u32(self.generation)?;
        w.u8(7)?.i64(self.not_after.0)?.u8(8)?.bytes(&self.key)?.ok()
    }

    /// From the value of key 1 on.
    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, EntryError> {
        Ok(Self {
            authority: r.u32()?,
            epoch: Epoch(second(r, Reader::u32)?),
            index: Index(field(r, 3, Reader::u32)?),
            fingerprint: Fingerprint(field(r, 4, Reader::octets)?),
            subject: field(r, 5, Reader::u64)?,
            generation: field(r, 6, Reader::u32)?,
            not_after: Timestamp(field(r, 7, Reader::i64)?),
            key: field(r, 8, Reader::octets)?,
        })
    }
}

impl ExternalState {
    /// Its number in the ledger.
    pub const fn code(self) -> u8 {
        match self {
            Self::Active => 0,
            Self::Stale => 1,
            Self::Disabled => 2,
            Self::Ended => 3,
        }
    }

    /// The state of a number.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Active),
            1 => Some(Self::Stale),
            2 => Some(Self::Disabled),
            3 => Some(Self::Ended),
            _ => None,
        }
    }

    /// The state's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Stale => "stale",
            Self::Disabled => "disabled",
            Self::Ended => "ended",
        }
    }
}

impl ExternalAuthority {
    pub(crate) fn check(&self) -> Result<(), EntryError> {
        check_id(self.authority)?;
        let ascending = self.issuers.is_sorted_by(|one, next| one < next);
        if !(1..=MAX_ISSUERS).contains(&self.issuers.len()) || !ascending {
            return Err(form("an external authority has 1 to 8 issuers, ascending"));
        }
        if self.naming.fits() { Ok(()) } else { Err(form("a naming rule's text is too long, or holds control characters")) }
    }

    pub(crate) fn write(&self, w: &mut Writer) -> Written {
        w.map(5)?.u8(1)?.u32(self.authority)?.u8(2)?.u8(self.state.code())?.u8(3)?.bytes(&self.rules)?;
        w.u8(4)?.array(u64::try_from(self.issuers.len()).unwrap_or(u64::MAX))?;
        for issuer in &self.issuers {
            w.bytes(issuer)?;
        }
        let Naming { from, strip_prefix, strip_suffix, part, form, prefix } = &self.naming;
        w.u8(5)?.map(6)?.u8(1)?.u8(from.code())?.u8(2)?.str(strip_prefix)?.u8(3)?.str(strip_suffix)?;
        w.u8(4)?.u8(part.code())?.u8(5)?.u8(form.code())?.u8(6)?.str(prefix)?.ok()
    }

    /// From the value of key 1 on.
    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, EntryError> {
        let authority = r.u32()?;
        let state = ExternalState::from_code(second(r, Reader::u8)?);
        let state = state.ok_or_else(|| form("an external authority has no such state"))?;
        let rules = field(r, 3, Reader::octets)?;
        r.key(4)?;
        let count = usize::try_from(r.array()?).ok().filter(|count| *count <= MAX_ISSUERS);
        let count = count.ok_or_else(|| form("there are too many issuers"))?;
        let issuers = (0..count).map(|_| r.octets()).collect::<Result<_, _>>()?;
        r.key(5)?;
        Ok(Self { authority, state, rules, issuers, naming: read_naming(r)? })
    }
}

fn check_id(authority: u32) -> Result<(), EntryError> {
    if authority >= LEAST_ID { Ok(()) } else { Err(form("an external authority's id is below 2^30")) }
}

fn read_naming(r: &mut Reader<'_>) -> Result<Naming, EntryError> {
    let unknown = || form("a naming rule speaks of something unknown");
    r.map_of(6)?;
    let from = NameSource::from_code(field(r, 1, Reader::u8)?).ok_or_else(unknown)?;
    let strip_prefix = second(r, Reader::text)?;
    let strip_suffix = field(r, 3, Reader::text)?;
    let part = NamePart::from_code(field(r, 4, Reader::u8)?).ok_or_else(unknown)?;
    let form = NameForm::from_code(field(r, 5, Reader::u8)?).ok_or_else(unknown)?;
    Ok(Naming { from, strip_prefix, strip_suffix, part, form, prefix: field(r, 6, Reader::text)? })
}
