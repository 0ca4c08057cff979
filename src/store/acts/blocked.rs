//! Keys are put on the block list, and taken off it.

use fleetmark_domain::{KeyHash, LedgerName, Timestamp};

use crate::store::model::BlockedKey;
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// Puts keys on the block list, or takes them off. A certificate that one of them has stays: revoke it.
#[derive(Debug)]
pub struct BlockKeys {
    /// To put on.
    pub block: Vec<BlockedKey>,
    /// To take off.
    pub unblock: Vec<KeyHash>,
    /// Now.
    pub at: Timestamp,
}

impl Act for BlockKeys {
    /// How many of those to take off were on it.
    type Outcome = usize;

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<usize, StoreError> {
        for key in &self.block {
            transaction.rows.block_key(key)?;
        }
        let mut removed = 0;
        for key in &self.unblock {
            removed += usize::from(transaction.rows.unblock_key(key)?);
        }
        Ok(removed)
    }
}
