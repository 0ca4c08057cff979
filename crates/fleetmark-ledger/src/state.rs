//! What a ledger's entries add up to: authorities, epochs, the active policy, and for each certificate its standing, the
//! first octets of its fingerprint and its holder. A pure function of the entries: who has read the same entries has the
//! same state, and the same snapshot of it.

use fleetmark_domain::{Epoch, Fingerprint, Index, Standing};

use crate::audit::Violation;
use crate::entry::{AuthorityKind, AuthorityState, Entry};
use crate::merkle::Frontier;
use crate::note::VerifierKey;

/// The first 12 octets of SHA-256 over a certificate: who would forge another certificate for them needs 2^96 tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortFingerprint(pub [u8; 12]);

impl From<&Fingerprint> for ShortFingerprint {
    fn from(fingerprint: &Fingerprint) -> Self {
        let mut short = [0; 12];
        short.iter_mut().zip(fingerprint.octets()).for_each(|(to, from)| *to = *from);
        Self(short)
    }
}

/// What the ledger holds of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Of the one certificate that was issued there.
    pub fingerprint: ShortFingerprint,
    /// What it is worth; of a revocation, the reason is not in the ledger.
    pub standing: Standing,
    /// The holder's id; 0 is the installation itself.
    pub subject: u64,
}

/// What the ledger holds of an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority {
    /// What it issues for.
    pub kind: AuthorityKind,
    /// Where it is in its life.
    pub state: AuthorityState,
    /// SHA-256 over its certificate.
    pub fingerprint: Fingerprint,
}

/// The policy set that was activated last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivePolicy {
    /// The set's version.
    pub version: u64,
    /// SHA-256 over its text.
    pub hash: [u8; 32],
}

/// The state after the entries so far. About 21 octets a certificate.
#[derive(Debug, Clone)]
pub struct State {}

impl State {
    /// Before the first entry of the ledger with this pinned key.
    pub fn new(_key: VerifierKey) -> Self {
        todo!()
    }

    /// The next entry, judged by every rule of [`crate::audit`].
    ///
    /// # Errors
    /// The first violation; the entry changed nothing, and nothing after it can be taken.
    pub fn append(&mut self, _octets: &[u8]) -> Result<Entry, Violation> {
        todo!()
    }

    /// The pinned key.
    pub fn key(&self) -> &VerifierKey {
        todo!()
    }

    /// The tree so far: its size is the position of the next entry.
    pub fn frontier(&self) -> &Frontier {
        todo!()
    }

    /// How many certificates were issued.
    pub fn certificates(&self) -> u64 {
        todo!()
    }

    /// The certificate at a place; None where none was issued.
    pub fn certificate(&self, _epoch: Epoch, _index: Index) -> Option<Holding> {
        todo!()
    }

    /// The authority that an epoch was opened for.
    pub fn authority_of(&self, _epoch: Epoch) -> Option<u32> {
        todo!()
    }

    /// All epochs opened in this ledger, with their authorities.
    pub fn epochs(&self) -> Vec<(Epoch, u32)> {
        todo!()
    }

    /// An authority (the `system` ledger has them).
    pub fn authority(&self, _id: u32) -> Option<Authority> {
        todo!()
    }

    /// All authorities.
    pub fn authorities(&self) -> Vec<(u32, Authority)> {
        todo!()
    }

    /// The policy set that counts now.
    pub fn policy(&self) -> Option<ActivePolicy> {
        todo!()
    }
}
