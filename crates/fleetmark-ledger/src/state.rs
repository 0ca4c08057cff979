//! What a ledger's entries add up to: authorities, epochs, the active policy, and for each certificate its standing, the
//! first octets of its fingerprint and its holder. A pure function of the entries: who has read the same entries has the
//! same state, and the same snapshot of it.

mod holdings;

use fleetmark_domain::{Epoch, Fingerprint, Index, Standing};

use crate::audit::{Model, Rule, Violation};
use crate::entry::{AuthorityKind, AuthorityState, Entry, Event, ExternalAuthority};
use crate::merkle::{Frontier, leaf_hash};
use crate::note::VerifierKey;
use holdings::Holdings;

/// The first 12 octets of SHA-256 over a certificate: who would forge another certificate for them needs 2^96 tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
pub struct State {
    pub(crate) key: VerifierKey,
    pub(crate) frontier: Frontier,
    pub(crate) model: Model<Holdings>,
    pub(crate) certificates: u64,
    /// What ended it.
    found: Option<Violation>,
}

impl State {
    /// Before the first entry of the ledger with this pinned key.
    pub fn new(key: VerifierKey) -> Self {
        Self { key, frontier: Frontier::default(), model: Model::new(true), certificates: 0, found: None }
    }

    /// The next entry, judged by every rule of [`crate::audit`].
    ///
    /// # Errors
    /// The first violation; the entry changed nothing, and nothing after it can be taken.
    pub fn append(&mut self, octets: &[u8]) -> Result<Entry, Violation> {
        if let Some(found) = self.found {
            return Err(found);
        }
        let position = self.frontier.size();
        let judged = Entry::decode(octets).map_err(|_| Rule::NotAnEntry).and_then(|entry| {
            self.model.apply(&entry.event, position, &self.key)?;
            Ok(entry)
        });
        let entry = judged.map_err(|rule| *self.found.insert(Violation { position, rule }))?;
        self.frontier.append(leaf_hash(octets), |_, _| {});
        self.certificates += u64::from(matches!(entry.event, Event::Issued(_) | Event::ExternalAdopted(_)));
        Ok(entry)
    }

    /// The pinned key.
    pub const fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// The tree so far: its size is the position of the next entry.
    pub const fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// How many certificates were issued or adopted.
    pub const fn certificates(&self) -> u64 {
        self.certificates
    }

    /// The certificate at a place; None where none was issued.
    pub fn certificate(&self, epoch: Epoch, index: Index) -> Option<Holding> {
        self.model.places.holding(epoch, index)
    }

    /// The authority that an epoch was opened for.
    pub fn authority_of(&self, epoch: Epoch) -> Option<u32> {
        self.model.epochs.get(&epoch).copied()
    }

    /// All epochs opened in this ledger, with their authorities; ascending.
    pub fn epochs(&self) -> Vec<(Epoch, u32)> {
        self.model.epochs.iter().map(|(epoch, authority)| (*epoch, *authority)).collect()
    }

    /// An authority (the `system` ledger has them).
    pub fn authority(&self, id: u32) -> Option<Authority> {
        self.model.authorities.get(&id).copied()
    }

    /// All authorities, ascending by id.
    pub fn authorities(&self) -> Vec<(u32, Authority)> {
        self.model.authorities.iter().map(|(id, authority)| (*id, *authority)).collect()
    }

    /// An external authority (a fleet's ledger has them).
    pub fn external(&self, authority: u32) -> Option<&ExternalAuthority> {
        self.model.externals.get(&authority)
    }

    /// All external authorities, ascending by id.
    pub fn externals(&self) -> impl Iterator<Item = &ExternalAuthority> {
        self.model.externals.values()
    }

    /// The place of an adopted certificate.
    pub fn adopted(&self, fingerprint: &Fingerprint) -> Option<(Epoch, Index)> {
        self.model.adopted.get(&ShortFingerprint::from(fingerprint)).copied()
    }

    /// The policy set that counts now.
    pub const fn policy(&self) -> Option<ActivePolicy> {
        self.model.policy
    }

    /// Size and hash of the snapshot that the entries named last.
    pub const fn snapshot(&self) -> Option<(u64, [u8; 32])> {
        self.model.snapshot
    }
}

#[cfg(test)]
pub(crate) mod tests;
