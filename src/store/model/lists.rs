//! Lists that are given out, and standings as lists and answers want them.

use fleetmark_domain::{Epoch, Serial, Standing, Timestamp};

use super::AuthorityId;

/// What a published list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListKind {
    /// The CRL of a slice of an epoch.
    CrlShard,
    /// A status list.
    StatusList,
}

/// Which published list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListKey {
    /// What it is.
    pub kind: ListKind,
    /// Whose certificates.
    pub authority: AuthorityId,
    /// Their numbering space.
    pub epoch: Epoch,
    /// Which part of it, from 0.
    pub slice: u32,
}

/// A published list as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedList {
    /// Which.
    pub key: ListKey,
    /// Its number; never goes back.
    pub number: u64,
    /// When it was made.
    pub this_update: Timestamp,
    /// Until when it holds.
    pub next_update: Timestamp,
    /// The ledger's size that it was made at.
    pub position: u64,
    /// The list.
    pub octets: Vec<u8>,
}

/// A certificate's standing, without the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateStanding {
    /// Which.
    pub serial: Serial,
    /// Who issued it.
    pub authority: AuthorityId,
    /// What it is worth.
    pub standing: Standing,
    /// Since when.
    pub changed_at: Timestamp,
    /// Until when it must be confirmed.
    pub confirm_before: Option<Timestamp>,
}

impl CertificateStanding {
    /// Whether its time to be confirmed is over.
    pub fn has_lapsed(&self, now: Timestamp) -> bool {
        self.standing == Standing::Unconfirmed && self.confirm_before.is_some_and(|end| end <= now)
    }
}
