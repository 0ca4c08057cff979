//! A ledger's snapshot is named in it.

use fleetmark_domain::{LedgerName, Refusal, Timestamp};
use fleetmark_ledger::entry::Event;

use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// Notes a snapshot that lies on the disk, so that whoever starts from it can check it.
#[derive(Debug)]
pub struct NoteSnapshot {
    /// Of this ledger.
    pub ledger: LedgerName,
    /// Of so many entries.
    pub size: u64,
    /// SHA-256 over its octets.
    pub hash: [u8; 32],
    /// Now.
    pub at: Timestamp,
}

impl Act for NoteSnapshot {
    /// The entry's position.
    type Outcome = u64;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![self.ledger.clone()]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<u64, StoreError> {
        // A restore may have put an older ledger in the place of the one that was read.
        if transaction.position(&self.ledger)? < self.size {
            return Err(Refusal::NotFound.into());
        }
        transaction.append(&self.ledger, self.at, Event::SnapshotMade { size: self.size, hash: self.hash }, None)
    }
}
