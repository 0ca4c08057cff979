//! A state in octets: for a cold start, and for a follower's own disk. Its SHA-256 is a leaf of the ledger.

use std::io::{self, Read, Write};

use crate::note::VerifierKey;
use crate::state::State;

/// Why octets are no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// They cannot be read.
    #[error("the snapshot cannot be read: {0}")]
    Io(#[from] io::Error),
    /// They are not of the form that docs/ledger.md gives.
    #[error("the snapshot is not of the form that docs/ledger.md gives: {0}")]
    Form(&'static str),
    /// They are of another ledger than the pinned one.
    #[error("the snapshot is of another ledger")]
    Origin,
}

/// Writes the state; the same state gives the same octets. Returns SHA-256 over them.
///
/// # Errors
/// Those of `to`.
pub fn write(_state: &State, _to: &mut impl Write) -> io::Result<[u8; 32]> {
    todo!()
}

/// Reads a state of the ledger with the pinned key, to the end of `from`. Returns it with SHA-256 over what was read.
///
/// Every length is checked before memory is taken for it: `from` is given with `limit`, the most octets that it may have.
///
/// # Errors
/// [`SnapshotError`].
pub fn read(_key: VerifierKey, _from: &mut impl Read, _limit: u64) -> Result<(State, [u8; 32]), SnapshotError> {
    todo!()
}
