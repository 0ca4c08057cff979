//! Checkpoints as signed notes: C2SP signed-note, tlog-checkpoint, and the timestamped cosignature of tlog-cosignature.

use fleetmark_domain::Timestamp;

use crate::merkle::Head;

/// A ledger's signing key (Ed25519). Its `Debug` shows the name alone.
pub struct LedgerKey {
    name: String,
    pair: ring::signature::Ed25519KeyPair,
}

/// What a verifier pins: the key's name (the origin) and public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    /// The name on the signature lines; for our ledgers, the origin.
    pub name: String,
    /// Ed25519 public key.
    pub key: [u8; 32],
}

/// A checkpoint whose signatures were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The ledger that it speaks of: `TRUST-DOMAIN/ledger/NAME`.
    pub origin: String,
    /// Size and root.
    pub head: Head,
    /// When it was signed, by the timestamped cosignature.
    pub at: Timestamp,
}

/// Why a note is no checkpoint to rely on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not a signed note that holds a checkpoint.
    #[error("this is no signed checkpoint: {0}")]
    Form(&'static str),
    /// The origin is not the one expected.
    #[error("the checkpoint is of another ledger")]
    Origin,
    /// No signature, or no timestamped cosignature, by the pinned key.
    #[error("the checkpoint is not signed by the ledger's key")]
    Unsigned,
    /// The PKCS#8 octets are no Ed25519 key.
    #[error("this is no Ed25519 key")]
    Key,
}

impl LedgerKey {
    /// A key from PKCS#8; `name` is the origin.
    pub fn from_pkcs8(_name: &str, _pkcs8: &[u8]) -> Result<Self, NoteError> {
        todo!()
    }

    /// The key to pin.
    pub fn verifier(&self) -> VerifierKey {
        todo!()
    }

    /// The checkpoint as a signed note: the plain Ed25519 signature (type 0x01), then the timestamped
    /// cosignature (type 0x04), both by this key.
    pub fn sign(&self, _head: &Head, _at: Timestamp) -> String {
        todo!()
    }
}

impl VerifierKey {
    /// The vkey line: `name+hash+base64(0x01 || key)`.
    pub fn to_vkey(&self) -> String {
        todo!()
    }

    /// Reads a vkey line of an Ed25519 key.
    pub fn from_vkey(_line: &str) -> Result<Self, NoteError> {
        todo!()
    }

    /// Reads a signed checkpoint of at most 16 KiB and checks both signatures and the origin.
    pub fn open(&self, _note: &str) -> Result<Checkpoint, NoteError> {
        todo!()
    }
}

/// The origin of a ledger's checkpoints.
pub fn origin(domain: &fleetmark_domain::TrustDomain, ledger: &fleetmark_domain::LedgerName) -> String {
    format!("{domain}/ledger/{ledger}")
}

impl std::fmt::Debug for LedgerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let _ = &self.pair;
        f.debug_struct("LedgerKey").field("name", &self.name).finish_non_exhaustive()
    }
}
