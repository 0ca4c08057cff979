//! A state in octets: for a cold start, and for a follower's own disk. Its SHA-256 is a leaf of the ledger.

mod read;
mod write;

use std::io;

pub use read::read;
pub use write::write;

/// How a snapshot begins: what it is, and the version of its form. The second form is that of a ledger with external authorities;
/// one without any is written in the first.
const MAGIC: &[u8; 21] = b"fleetmark snapshot 1\n";
const MAGIC_2: &[u8; 21] = b"fleetmark snapshot 2\n";

/// The most certificates of one block.
const BLOCK: usize = 4_096;

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

#[cfg(test)]
mod tests;
