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
    /// Those to put on as they are kept, which is as they were where they were on it; how many of those to take off were on it.
    type Outcome = (Vec<BlockedKey>, usize);

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Self::Outcome, StoreError> {
        let mut kept = Vec::with_capacity(self.block.len());
        for key in &self.block {
            transaction.rows.block_key(key)?;
            let known = transaction.rows.blocked_key(&key.key_hash)?;
            kept.push(known.ok_or(StoreError::Unreadable { what: "blocked key" })?);
        }
        let mut removed = 0;
        for key in &self.unblock {
            removed += usize::from(transaction.rows.unblock_key(key)?);
        }
        Ok((kept, removed))
    }
}
