//! One entry: an act that changed a standing or a policy.

use fleetmark_domain::{Epoch, Fingerprint, Index, Kind, Standing, Timestamp};

use crate::details::Commitment;

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

/// What was done. Ids, indices, fingerprints and standings only: names and reasons are details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The ledger's first entry. `origin` is the checkpoints' first line; `key` the Ed25519 public key.
    Opened { origin: String, key: [u8; 32] },
    /// An epoch of `authority` was opened; its number is never used again.
    EpochOpened { authority: u32, epoch: Epoch },
    /// An authority was prepared, made active, tainted or revoked.
    AuthorityChanged { authority: u32, kind: AuthorityKind, state: AuthorityState, fingerprint: Fingerprint },
    /// A device, gateway, service or operator was registered.
    Registered { subject: u64, kind: Kind },
    /// A subject's record changed: attributes, role, grants, in or out.
    Changed { subject: u64 },
    /// A certificate was issued. `subject` 0 is the installation itself (authorities, OCSP responders).
    Issued(Issued),
    /// The holder showed that it keeps the certificate; it is good from here on.
    Confirmed { epoch: Epoch, index: Index },
    /// The standing of a set of certificates changed, supersession included.
    StandingChanged { standing: Standing, certificates: IndexSet },
    /// A policy set was activated.
    PolicyActivated { version: u64, hash: [u8; 32] },
    /// A fleet was created or its rules changed.
    FleetChanged { version: u64 },
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
    /// Unconfirmed, or good from the start.
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

/// A set of certificates by index, as ascending disjoint ranges, at most 5,000 of them.
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
    pub fn from_certificates(_certificates: impl IntoIterator<Item = (Epoch, Index)>) -> Self {
        todo!()
    }

    /// Its ranges.
    pub fn ranges(&self) -> &[Range] {
        &self.0
    }

    /// Its certificates, ascending.
    pub fn certificates(&self) -> impl Iterator<Item = (Epoch, Index)> + '_ {
        self.0.iter().flat_map(|range| (range.first.0..range.first.0.saturating_add(range.count)).map(|i| (range.epoch, Index(i))))
    }
}

/// Why octets are no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Longer than [`MAX_ENTRY`].
    #[error("an entry has at most {MAX_ENTRY} octets")]
    TooLong,
    /// Not CBOR, not in deterministic form, or not of the shape in docs/ledger.md.
    #[error("the entry is not of the form that docs/ledger.md gives: {0}")]
    Form(String),
}

impl Entry {
    /// The entry in deterministic CBOR (RFC 8949 4.2.1), as docs/ledger.md gives it in CDDL.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        todo!()
    }

    /// Reads an entry, and refuses one that [`Self::encode`] would have written otherwise.
    pub fn decode(_octets: &[u8]) -> Result<Self, EntryError> {
        todo!()
    }
}
