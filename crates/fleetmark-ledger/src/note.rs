//! Checkpoints as signed notes: C2SP signed-note, tlog-checkpoint, and the timestamped cosignature of tlog-cosignature.

mod key;
mod text;

use fleetmark_domain::Timestamp;

use crate::merkle::Head;

pub use key::{LedgerKey, VerifierKey};

/// The longest note that is read, in octets.
pub const MAX_NOTE: usize = 16 * 1024;

/// The most signature lines that are read. C2SP signed-note asks for at least 16.
pub const MAX_SIGNATURES: usize = 64;

/// The longest key name, in octets: a trust domain has at most 255 and a ledger's name 63.
pub const MAX_KEY_NAME: usize = 512;

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

/// The origin of a ledger's checkpoints.
pub fn origin(domain: &fleetmark_domain::TrustDomain, ledger: &fleetmark_domain::LedgerName) -> String {
    format!("{domain}/ledger/{ledger}")
}

/// Whether a text can name a key (C2SP signed-note): not empty, neither spaces nor pluses, and here no control
/// characters and at most [`MAX_KEY_NAME`] octets.
pub(crate) fn is_key_name(name: &str) -> bool {
    let fits = |c: char| !c.is_whitespace() && !c.is_control() && c != '+';
    !name.is_empty() && name.len() <= MAX_KEY_NAME && name.chars().all(fits)
}

#[cfg(test)]
mod tests;
