//! What an entry tells, and its fields in CBOR.

use fleetmark_domain::serial::EPOCH_CAPACITY;
use fleetmark_domain::{Epoch, Fingerprint, Index, Kind, Standing, Timestamp};

use super::{Adopted, EntryError, ExternalAuthority, ExternalState, IndexSet};
use crate::cbor::{Reader, Writer, Written, form};
use crate::note;

/// What was done. Ids, indices, fingerprints and standings only: names and reasons are details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The ledger's first entry.
    Opened {
        /// The checkpoints' first line.
        origin: String,
        /// The Ed25519 public key that signs them.
        key: [u8; 32],
    },
    /// An epoch was opened; its number is never used again.
    EpochOpened {
        /// The issuing authority's id in the store.
        authority: u32,
        /// The epoch's number.
        epoch: Epoch,
    },
    /// An authority was prepared, made active, tainted or revoked.
    AuthorityChanged {
        /// Its id in the store.
        authority: u32,
        /// What it issues for; never changes.
        kind: AuthorityKind,
        /// Where it is in its life from here on.
        state: AuthorityState,
        /// SHA-256 over its certificate.
        fingerprint: Fingerprint,
    },
    /// A device, gateway, service or operator was registered.
    Registered {
        /// Its id in the store.
        subject: u64,
        /// What it is.
        kind: Kind,
    },
    /// A subject's record changed: attributes, role, grants, in or out.
    Changed {
        /// Its id in the store.
        subject: u64,
    },
    /// A certificate was issued. `subject` 0 is the installation itself (authorities, OCSP responders).
    Issued(Issued),
    /// The holder showed that it keeps the certificate; it is good from here on.
    Confirmed {
        /// Numbering space.
        epoch: Epoch,
        /// Place in it.
        index: Index,
    },
    /// The standing of a set of certificates changed, supersession included.
    StandingChanged {
        /// What they are worth now; never unconfirmed. Of a revocation, the entry keeps no reason (that is a detail):
        /// encoding drops it, and decoding gives [`fleetmark_domain::RevocationReason::Unspecified`].
        standing: Standing,
        /// Which certificates; at least one.
        certificates: IndexSet,
    },
    /// A policy set was activated.
    PolicyActivated {
        /// The set's version.
        version: u64,
        /// SHA-256 over its text.
        hash: [u8; 32],
    },
    /// A fleet was created or its rules changed.
    FleetChanged {
        /// The version of the fleet's rules.
        version: u64,
    },
    /// A snapshot was made of what the ledger's first entries add up to.
    SnapshotMade {
        /// How many entries; at most the position of this one.
        size: u64,
        /// SHA-256 over the snapshot's octets.
        hash: [u8; 32],
    },
    /// Something that a person should look at. It changes no standing.
    Alarmed {
        /// What: 1 to 64 of `a-z`, `0-9`, `_`.
        alarm: String,
        /// About whom; 0: nobody in particular.
        subject: u64,
    },
    /// An external authority was made, or its rules or state changed.
    ExternalAuthorityChanged(ExternalAuthority),
    /// A certificate of an external authority was adopted.
    ExternalAdopted(Adopted),
}

/// A certificate's place, holder and fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The issuing authority's id in the store.
    pub authority: u32,
    /// Numbering space.
    pub epoch: Epoch,
    /// Place in it.
    pub index: Index,
    /// SHA-256 over the certificate.
    pub fingerprint: Fingerprint,
    /// The holder's id; 0 is the installation itself.
    pub subject: u64,
    /// Which of the holder's certificates, from 1.
    pub generation: u32,
    /// Unconfirmed, or good from the start; nothing else can be encoded.
    pub standing: Standing,
    /// End of validity.
    pub not_after: Timestamp,
}

/// What an authority issues for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthorityKind {
    /// The anchor: issues authorities alone.
    Root,
    /// Issues to one kind of identity.
    Of(Kind),
}

/// Where an authority is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthorityState {
    /// Trusted, does not issue yet.
    Prepared,
    /// Issues.
    Active,
    /// Trusted for what the ledger holds, issues no more.
    Tainted,
    /// Trusted no more.
    Revoked,
}

impl Event {
    /// The event's number in docs/ledger.md.
    pub(super) const fn code(&self) -> u8 {
        match self {
            Self::Opened { .. } => 1,
            Self::EpochOpened { .. } => 2,
            Self::AuthorityChanged { .. } => 3,
            Self::Registered { .. } => 4,
            Self::Changed { .. } => 5,
            Self::Issued(_) => 6,
            Self::Confirmed { .. } => 7,
            Self::StandingChanged { .. } => 8,
            Self::PolicyActivated { .. } => 9,
            Self::FleetChanged { .. } => 10,
            Self::SnapshotMade { .. } => 11,
            Self::Alarmed { .. } => 12,
            Self::ExternalAuthorityChanged(_) => 13,
            Self::ExternalAdopted(_) => 14,
        }
    }

    /// Whether followers are told of it at once, before the checkpoint that covers it: a standing that is no longer good,
    /// an authority that issues no more, another policy.
    pub const fn is_urgent(&self) -> bool {
        match self {
            Self::StandingChanged { standing, .. } => !matches!(standing, Standing::Good),
            Self::AuthorityChanged { state, .. } => matches!(state, AuthorityState::Tainted | AuthorityState::Revoked),
            Self::ExternalAuthorityChanged(authority) => !matches!(authority.state, ExternalState::Active),
            Self::PolicyActivated { .. } => true,
            Self::Opened { .. }
            | Self::EpochOpened { .. }
            | Self::Registered { .. }
            | Self::Changed { .. }
            | Self::Issued(_)
            | Self::Confirmed { .. }
            | Self::FleetChanged { .. }
            | Self::SnapshotMade { .. }
            | Self::Alarmed { .. }
            | Self::ExternalAdopted(_) => false,
        }
    }

    /// Refuses what docs/ledger.md has no place for.
    pub(super) fn check(&self) -> Result<(), EntryError> {
        match self {
            Self::Opened { origin, .. } if !note::is_key_name(origin) => Err(form("the origin is no key name")),
            Self::Confirmed { index, .. } => check_index(*index),
            Self::StandingChanged { standing: Standing::Unconfirmed, .. } => Err(form("nothing becomes unconfirmed")),
            Self::StandingChanged { certificates, .. } => certificates.check(),
            Self::Issued(issued) => issued.check(),
            Self::ExternalAuthorityChanged(authority) => authority.check(),
            Self::ExternalAdopted(adopted) => adopted.check(),
            Self::Alarmed { alarm, .. } if !is_alarm(alarm) => Err(form("an alarm has another form of name")),
            _ => Ok(()),
        }
    }

    pub(super) fn write(&self, w: &mut Writer) -> Written {
        match self {
            Self::Opened { origin, key } => w.map(2)?.u8(1)?.str(origin)?.u8(2)?.bytes(key)?.ok(),
            Self::EpochOpened { authority, epoch } => w.map(2)?.u8(1)?.u32(*authority)?.u8(2)?.u32(epoch.0)?.ok(),
            Self::AuthorityChanged { authority, kind, state, fingerprint } => {
                w.map(4)?.u8(1)?.u32(*authority)?.u8(2)?.u8(kind.code())?;
                w.u8(3)?.u8(state.code())?.u8(4)?.bytes(fingerprint.octets())?.ok()
            }
            Self::Registered { subject, kind } => w.map(2)?.u8(1)?.u64(*subject)?.u8(2)?.u8(kind_code(*kind))?.ok(),
            Self::Changed { subject } => w.map(1)?.u8(1)?.u64(*subject)?.ok(),
            Self::Issued(issued) => issued.write(w),
            Self::Confirmed { epoch, index } => w.map(2)?.u8(1)?.u32(epoch.0)?.u8(2)?.u32(index.0)?.ok(),
            Self::StandingChanged { standing, certificates } => {
                certificates.write(w.map(2)?.u8(1)?.u8(standing.code())?.u8(2)?)
            }
            Self::PolicyActivated { version, hash } => w.map(2)?.u8(1)?.u64(*version)?.u8(2)?.bytes(hash)?.ok(),
            Self::FleetChanged { version } => w.map(1)?.u8(1)?.u64(*version)?.ok(),
            Self::SnapshotMade { size, hash } => w.map(2)?.u8(1)?.u64(*size)?.u8(2)?.bytes(hash)?.ok(),
            Self::Alarmed { alarm, subject } => w.map(2)?.u8(1)?.str(alarm)?.u8(2)?.u64(*subject)?.ok(),
            Self::ExternalAuthorityChanged(authority) => authority.write(w),
            Self::ExternalAdopted(adopted) => adopted.write(w),
        }
    }

    pub(super) fn read(code: u8, r: &mut Reader<'_>) -> Result<Self, EntryError> {
        let fields = match code {
            1 | 2 | 4 | 7 | 8 | 9 | 11 | 12 => 2,
            3 => 4,
            5 | 10 => 1,
            6 | 14 => 8,
            13 => 5,
            _ => return Err(EntryError::Form(format!("there is no event {code}"))),
        };
        r.map_of(fields)?;
        r.key(1)?;
        Ok(match code {
            1 => Self::Opened { origin: r.text()?, key: second(r, Reader::octets)? },
            2 => Self::EpochOpened { authority: r.u32()?, epoch: Epoch(second(r, Reader::u32)?) },
            3 => Self::read_authority(r)?,
            4 => Self::Registered { subject: r.u64()?, kind: kind_from_code(second(r, Reader::u8)?)? },
            5 => Self::Changed { subject: r.u64()? },
            6 => Self::Issued(Issued::read(r)?),
            7 => Self::Confirmed { epoch: Epoch(r.u32()?), index: Index(second(r, Reader::u32)?) },
            8 => Self::StandingChanged { standing: standing_from_code(r.u8()?)?, certificates: second(r, IndexSet::read)? },
            9 => Self::PolicyActivated { version: r.u64()?, hash: second(r, Reader::octets)? },
            10 => Self::FleetChanged { version: r.u64()? },
            11 => Self::SnapshotMade { size: r.u64()?, hash: second(r, Reader::octets)? },
            13 => Self::ExternalAuthorityChanged(ExternalAuthority::read(r)?),
            14 => Self::ExternalAdopted(Adopted::read(r)?),
            _ => Self::Alarmed { alarm: r.text()?, subject: second(r, Reader::u64)? },
        })
    }

    fn read_authority(r: &mut Reader<'_>) -> Result<Self, EntryError> {
        let authority = r.u32()?;
        let kind = AuthorityKind::from_code(second(r, Reader::u8)?)?;
        r.key(3)?;
        let state = AuthorityState::from_code(r.u8()?)?;
        r.key(4)?;
        Ok(Self::AuthorityChanged { authority, kind, state, fingerprint: Fingerprint(r.octets()?) })
    }
}

impl Issued {
    fn check(&self) -> Result<(), EntryError> {
        check_index(self.index)?;
        match self.standing {
            Standing::Unconfirmed | Standing::Good => Ok(()),
            _ => Err(form("a certificate is issued unconfirmed or good")),
        }
    }

    fn write(&self, w: &mut Writer) -> Written {
        w.map(8)?.u8(1)?.u32(self.authority)?.u8(2)?.u32(self.epoch.0)?.u8(3)?.u32(self.index.0)?;
        w.u8(4)?.bytes(self.fingerprint.octets())?.u8(5)?.u64(self.subject)?.u8(6)?.u32(self.generation)?;
        w.u8(7)?.u8(self.standing.code())?.u8(8)?.i64(self.not_after.0)?.ok()
    }

    /// From the value of key 1 on.
    fn read(r: &mut Reader<'_>) -> Result<Self, EntryError> {
        Ok(Self {
            authority: r.u32()?,
            epoch: Epoch(field(r, 2, Reader::u32)?),
            index: Index(field(r, 3, Reader::u32)?),
            fingerprint: Fingerprint(field(r, 4, Reader::octets)?),
            subject: field(r, 5, Reader::u64)?,
            generation: field(r, 6, Reader::u32)?,
            standing: standing_from_code(field(r, 7, Reader::u8)?)?,
            not_after: Timestamp(field(r, 8, Reader::i64)?),
        })
    }
}

impl AuthorityKind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Root => 0,
            Self::Of(kind) => kind_code(kind),
        }
    }

    pub(crate) fn from_code(code: u8) -> Result<Self, EntryError> {
        if code == 0 { Ok(Self::Root) } else { kind_from_code(code).map(Self::Of) }
    }
}

impl AuthorityState {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Prepared => 0,
            Self::Active => 1,
            Self::Tainted => 2,
            Self::Revoked => 3,
        }
    }

    pub(crate) fn from_code(code: u8) -> Result<Self, EntryError> {
        let states = [Self::Prepared, Self::Active, Self::Tainted, Self::Revoked];
        states.into_iter().find(|state| state.code() == code).ok_or_else(|| form("an authority has no such state"))
    }
}

fn is_alarm(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|o| o.is_ascii_lowercase() || o.is_ascii_digit() || o == b'_')
}

const fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Device => 1,
        Kind::Gateway => 2,
        Kind::Service => 3,
        Kind::Operator => 4,
    }
}

fn kind_from_code(code: u8) -> Result<Kind, EntryError> {
    Kind::ALL.into_iter().find(|kind| kind_code(*kind) == code).ok_or_else(|| form("there is no such kind"))
}

fn standing_from_code(code: u8) -> Result<Standing, EntryError> {
    Standing::from_code(code, None).ok_or_else(|| form("there is no such standing"))
}

pub(super) fn check_index(index: Index) -> Result<(), EntryError> {
    if index.0 < EPOCH_CAPACITY { Ok(()) } else { Err(form("an index is above an epoch's capacity")) }
}

/// The value of key 2.
pub(super) fn second<'a, T>(
    r: &mut Reader<'a>,
    value: impl FnOnce(&mut Reader<'a>) -> Result<T, EntryError>,
) -> Result<T, EntryError> {
    field(r, 2, value)
}

/// The value of this key, which must come next.
pub(super) fn field<'a, T>(
    r: &mut Reader<'a>,
    key: u8,
    value: impl FnOnce(&mut Reader<'a>) -> Result<T, EntryError>,
) -> Result<T, EntryError> {
    r.key(key)?;
    value(r)
}
