//! The ledgers: checkpoints, entries, proofs.

use std::sync::Arc;

use fleetmark_domain::LedgerName;
use fleetmark_ledger::merkle::Hash;

use super::caller::Caller;
use super::{Registrar, Result};
use crate::store::model::{LedgerRecord, StoredEntry};

/// The most entries of one answer.
pub const MAX_ENTRIES: u32 = 256;

impl Registrar {
    /// The ledgers that the caller may read.
    pub async fn ledgers(&self, _caller: &Caller) -> Result<Vec<LedgerRecord>> {
        todo!()
    }

    /// One ledger's tail.
    pub async fn ledger(&self, _caller: &Caller, _ledger: &LedgerName) -> Result<LedgerRecord> {
        todo!()
    }

    /// The newest signed checkpoint.
    pub async fn checkpoint(&self, _caller: &Caller, _ledger: &LedgerName) -> Result<Arc<str>> {
        todo!()
    }

    /// Entries from a position on, at most [`MAX_ENTRIES`].
    pub async fn entries(&self, _caller: &Caller, _ledger: &LedgerName, _from: u64, _limit: u32) -> Result<Vec<StoredEntry>> {
        todo!()
    }

    /// The inclusion proof of an entry in the tree of `size`.
    pub async fn inclusion_proof(&self, _caller: &Caller, _ledger: &LedgerName, _index: u64, _size: u64) -> Result<Vec<Hash>> {
        todo!()
    }

    /// The consistency proof between two sizes.
    pub async fn consistency_proof(&self, _caller: &Caller, _ledger: &LedgerName, _old: u64, _new: u64) -> Result<Vec<Hash>> {
        todo!()
    }
}
