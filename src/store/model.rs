//! The records, as the rest of the server sees them. Rows of the database are private to the backends.

mod enrollment;
mod lists;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use fleetmark_domain::standing::Choices;
use fleetmark_domain::{
    Epoch, Fingerprint, FleetName, Index, KeyHash, Kind, LedgerName, Name, Role, Serial, Standing, Terms, Timestamp,
};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};
use fleetmark_ledger::merkle::{Frontier, Head};
use serde::{Deserialize, Serialize};

pub use enrollment::*;
pub use lists::*;

/// A fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// Its name, which is also its ledger's.
    pub name: FleetName,
    /// Whether it takes enrollments.
    pub open: bool,
    /// The profile of its devices' certificates.
    pub profile: String,
    /// Overrides the profile's time to live of unconfirmed certificates.
    pub unconfirmed_ttl: Option<Duration>,
    /// What its views list.
    pub choices: Choices,
    /// After how long without a verified signature a gateway refuses.
    pub max_age: Duration,
    /// When it was created.
    pub created_at: Timestamp,
    /// Rises with every change; the entity tag (RFC 9110 8.8.3).
    pub version: u64,
    /// How many of its devices one operator may change in an hour; None: the larger of 10 and 1 % of them.
    pub blast_radius: Option<u64>,
    /// Whom the server asks before it issues.
    pub hook: Option<Hook>,
    /// A renewal that was pulled forward.
    pub wave: Option<Wave>,
}

/// A web hook that is asked before a certificate is issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Where: `https://…`, at most 2,048 characters.
    pub url: String,
    /// Roots that its server's certificate is verified against, PEM; None: the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<String>,
    /// The key that signs question and answer, encrypted (`registrar::secrets`), hexadecimal.
    pub secret: String,
}

/// A renewal that an operator pulled forward: certificates issued before a moment renew within a window, spread over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// Those issued before this.
    pub issued_before: Timestamp,
    /// From when on.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// What the operator wrote.
    pub note: String,
}

/// What one operator allowed another beyond a fleet's limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// A random number below 2^63.
    pub id: u64,
    /// In this fleet.
    pub fleet: FleetName,
    /// Whom.
    pub operator: SubjectId,
    /// How many more devices in an hour.
    pub devices: u64,
    /// Who allowed it.
    pub allowed_by: SubjectId,
    /// When.
    pub allowed_at: Timestamp,
    /// Until when it holds.
    pub expires_at: Timestamp,
}

/// An authority's id; small and dense.
pub type AuthorityId = u32;

/// An authority's record. Its key lies in the key files under `key_label`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityRecord {
    /// Its id.
    pub id: AuthorityId,
    /// What it issues for.
    pub kind: AuthorityKind,
    /// The one fleet, of a device authority.
    pub fleet: Option<FleetName>,
    /// Where it is in its life.
    pub state: AuthorityState,
    /// The key file's label.
    pub key_label: String,
    /// Certificate in DER.
    pub certificate: Vec<u8>,
    /// Who issued it; None for a root.
    pub issuer: Option<AuthorityId>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An epoch of an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochRecord {
    /// Its number, which is never used again.
    pub number: Epoch,
    /// Whose certificates it numbers.
    pub authority: AuthorityId,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it was closed, if it was.
    pub closed_at: Option<Timestamp>,
    /// The lowest index that was never leased.
    pub next_index: u32,
}

/// A lease of consecutive indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRecord {
    /// Numbering space.
    pub epoch: Epoch,
    /// First index.
    pub first: Index,
    /// How many.
    pub count: u32,
    /// From then on others may issue what of it was not committed.
    pub expires_at: Timestamp,
}

/// A subject's id; from 1. 0 stands for the installation itself.
pub type SubjectId = u64;

/// Whether a subject is let in.
pub use fleetmark_domain::DeviceState as SubjectState;

/// A device, gateway, service or operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its id; the store sets it at insertion.
    pub id: SubjectId,
    /// Its kind.
    pub kind: Kind,
    /// Its fleet, of a device.
    pub fleet: Option<FleetName>,
    /// Its name, unique within kind and fleet without regard to case.
    pub name: Name,
    /// Whether it is let in.
    pub state: SubjectState,
    /// An operator's role.
    pub role: Option<Role>,
    /// The fleets that an operator, gateway or service was granted; None: all.
    pub grants: Option<Vec<FleetName>>,
    /// Names for its certificate.
    pub dns_names: Vec<String>,
    /// Addresses for its certificate.
    pub addresses: Vec<IpAddr>,
    /// What operators wrote down about it.
    pub attributes: BTreeMap<String, String>,
    /// The newest generation issued; 0 before the first.
    pub last_generation: u32,
    /// The newest generation confirmed; 0 before the first.
    pub confirmed_generation: u32,
    /// When it was registered.
    pub created_at: Timestamp,
    /// Rises with every change of the record by an operator; the entity tag (RFC 9110 8.8.3).
    pub version: u64,
    /// The enrollment group that it came in by.
    pub group: Option<GroupId>,
    /// What an operator granted this one device.
    pub permits: Permits,
    /// The device of another fleet that it was before; None again once that one has ended.
    pub moved_from: Option<SubjectId>,
}

/// What an operator granted, or held back from, one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Permits {
    /// Until then its expired certificate may still be renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late_until: Option<Timestamp>,
    /// Until then it may enroll anew, once; used up by the confirmation of a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reenroll_until: Option<Timestamp>,
    /// It gets no renewal until an operator looked at it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub renewals_held: bool,
    /// Where it is released to; of one that is out: where it went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moving: Option<Moving>,
}

/// A move into another fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// Which.
    pub to: FleetName,
    /// The token that it enrolls with there.
    pub token: TokenId,
}

/// A certificate's record. Kept after the certificate ended: key hash, fingerprint, standing and generation are
/// the tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The serial; epoch and index are in it.
    pub serial: Serial,
    /// Who issued it.
    pub authority: AuthorityId,
    /// Who holds it; None: the installation itself.
    pub subject: Option<SubjectId>,
    /// Which of the subject's certificates, from 1; 0 for the installation's own.
    pub generation: u32,
    /// SHA-256 over the public key; unique, for ever.
    pub key_hash: KeyHash,
    /// SHA-256 over the certificate.
    pub fingerprint: Fingerprint,
    /// What it is worth.
    pub standing: Standing,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// When its holder should renew.
    pub renew_after: Timestamp,
    /// Until when it must be confirmed, while unconfirmed; None: no limit.
    pub confirm_before: Option<Timestamp>,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When its standing last changed.
    pub changed_at: Timestamp,
    /// The ledger that holds its entries.
    pub ledger: LedgerName,
    /// The position of its `issued` entry; the writer sets it.
    pub position: u64,
    /// The token that it was enrolled with.
    pub token: Option<TokenId>,
    /// The certificate.
    pub der: Vec<u8>,
}

impl Certificate {
    /// Whether it is unconfirmed and its time to live is over at `now`.
    pub fn has_lapsed(&self, now: Timestamp) -> bool {
        self.standing == Standing::Unconfirmed && self.confirm_before.is_some_and(|end| end <= now)
    }
}

/// A token's public id.
pub type TokenId = [u8; 8];

/// Where a token is in its life. Expiry is told by the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// Not used.
    Fresh,
    /// Used; bound to this key until confirmation.
    Reserved(KeyHash),
    /// Used up by this key.
    Used(KeyHash),
    /// Withdrawn by an operator.
    Withdrawn,
}

/// An enrollment token, or an invitation. The secret is kept as its SHA-256 alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Public id.
    pub id: TokenId,
    /// SHA-256 over the secret.
    pub secret_hash: [u8; 32],
    /// What it admits.
    pub kind: Kind,
    /// The fleet, of a device's.
    pub fleet: Option<FleetName>,
    /// The one subject that it admits; None: whoever comes first, under the name that it asks for.
    pub subject: Option<SubjectId>,
    /// Where it is in its life.
    pub state: TokenState,
    /// When it ends; a reserved one may still be used by its key until its certificate lapses.
    pub expires_at: Timestamp,
    /// When it was minted.
    pub created_at: Timestamp,
    /// By whom; 0: the installation itself.
    pub created_by: SubjectId,
    /// What the operator wrote.
    pub note: String,
    /// What it admits; the quota is how many devices, one unless it says more.
    pub terms: Terms,
    /// How many devices enrolled with it, of one for several.
    pub spent: u64,
    /// The device of another fleet that it moves into this one.
    pub origin: Option<SubjectId>,
}

impl Token {
    /// How many devices it is for.
    pub fn uses(&self) -> u64 {
        self.terms.quota.unwrap_or(1)
    }

    /// Whether this is the hash of its secret; the time that it takes does not tell where two differ.
    pub fn has_secret(&self, hash: &[u8; 32]) -> bool {
        self.secret_hash.iter().zip(hash).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("id", &hex::encode(self.id)).field("state", &self.state).finish_non_exhaustive()
    }
}

/// The key and certificate that the server uses in some role of its own, remembered with the certificate's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The key file's label.
    pub key_label: String,
    /// Names the certificate.
    pub key_hash: KeyHash,
}

impl Credential {
    /// `KEY-HASH LABEL`.
    pub fn encode(&self) -> Vec<u8> {
        format!("{} {}", self.key_hash, self.key_label).into_bytes()
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(octets: &[u8]) -> Option<Self> {
        let (key_hash, key_label) = std::str::from_utf8(octets).ok()?.split_once(' ')?;
        Some(Self { key_hash: key_hash.parse().ok()?, key_label: key_label.to_owned() })
    }
}

/// A ledger's tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRecord {
    /// Its name.
    pub name: LedgerName,
    /// The first line of its checkpoints.
    pub origin: String,
    /// The label of its signing key.
    pub key_label: String,
    /// Ed25519 public key.
    pub key: [u8; 32],
    /// All that is needed to append.
    pub frontier: Frontier,
}

impl LedgerRecord {
    /// Size and root.
    pub fn head(&self) -> Head {
        self.frontier.head()
    }
}

/// An entry as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// From 0.
    pub position: u64,
    /// CBOR.
    pub entry: Vec<u8>,
    /// CBOR of the details; None where there are none, or where they were erased.
    pub details: Option<Vec<u8>>,
}

/// A revocation list as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCrl {
    /// Whose.
    pub authority: AuthorityId,
    /// CRLNumber.
    pub number: u64,
    /// When it was made.
    pub this_update: Timestamp,
    /// Until when it holds.
    pub next_update: Timestamp,
    /// The ledger position that it was made at.
    pub position: u64,
    /// The list.
    pub der: Vec<u8>,
}

/// A policy set as it was put. It never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySet {
    /// The ledger of its scope: a fleet's, or `system` for the installation's.
    pub ledger: LedgerName,
    /// From 1 in each ledger.
    pub version: u64,
    /// Cedar.
    pub text: String,
    /// SHA-256 over the text.
    pub hash: [u8; 32],
    /// What the operator wrote.
    pub note: String,
    /// When it was put.
    pub created_at: Timestamp,
    /// By whom: a SPIFFE ID, or `fleetmark` for the server itself.
    pub created_by: String,
}

/// A policy set without its text, for a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyVersion {
    /// From 1 in each ledger.
    pub version: u64,
    /// SHA-256 over the text.
    pub hash: [u8; 32],
    /// What the operator wrote.
    pub note: String,
    /// When it was put.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
}

/// A policy set was made the one that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyActivation {
    /// The ledger of the scope.
    pub ledger: LedgerName,
    /// Which activation in this ledger, from 1; the entity tag (RFC 9110 8.8.3).
    pub number: u64,
    /// Of which version.
    pub version: u64,
    /// When.
    pub at: Timestamp,
    /// By whom: a SPIFFE ID, or `fleetmark` for the server itself.
    pub by: String,
}

/// What an Idempotency-Key was used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// SHA-256 over the request.
    pub request_hash: [u8; 32],
    /// What it made: a name, an id.
    pub resource: String,
    /// When.
    pub at: Timestamp,
}

/// Which certificates to list. All conditions hold together.
#[derive(Debug, Clone, Default)]
pub struct CertificateFilter {
    /// Of this authority.
    pub authority: Option<AuthorityId>,
    /// Of this subject.
    pub subject: Option<SubjectId>,
    /// Of subjects of this kind.
    pub kind: Option<Kind>,
    /// In this ledger: a fleet's devices, or the system's.
    pub ledgers: Option<Vec<LedgerName>>,
    /// Of this standing, by code.
    pub standing: Option<u8>,
    /// That end before this.
    pub expiring_before: Option<Timestamp>,
    /// That end after this.
    pub expiring_after: Option<Timestamp>,
    /// With this fingerprint.
    pub fingerprint: Option<Fingerprint>,
}

/// Which subjects to list.
#[derive(Debug, Clone)]
pub struct SubjectFilter {
    /// Of this kind.
    pub kind: Kind,
    /// Of this fleet.
    pub fleet: Option<FleetName>,
    /// Whose name holds this text, without regard to case.
    pub search: Option<String>,
    /// In this state.
    pub state: Option<SubjectState>,
    /// That came in by this enrollment group.
    pub group: Option<GroupId>,
}
