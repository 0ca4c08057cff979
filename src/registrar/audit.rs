//! The ledgers: checkpoints, entries, proofs.

use std::sync::Arc;

use fleetmark_domain::{Action, LedgerName, Refusal};
use fleetmark_ledger::merkle::{Hash, Node, leaf_hash};
use fleetmark_ledger::proof::{self, MakeError, NodeSource};

use super::caller::Caller;
use super::{Registrar, Result};
use crate::store::model::{LedgerRecord, StoredEntry};
use crate::store::rows::Rows;
use crate::store::{StoreError, read};

/// The most entries of one answer.
pub const MAX_ENTRIES: u32 = 256;

impl Registrar {
    /// The ledgers that the caller may read.
    pub async fn ledgers(&self, caller: &Caller) -> Result<Vec<LedgerRecord>> {
        caller.may(Action::ReadLedger, None)?;
        let mut ledgers = read(&*self.store, |rows| rows.ledgers()).await?;
        ledgers.retain(|ledger| may_read(caller, &ledger.name).is_ok());
        Ok(ledgers)
    }

    /// One ledger's tail.
    pub async fn ledger(&self, caller: &Caller, ledger: &LedgerName) -> Result<LedgerRecord> {
        may_read(caller, ledger)?;
        let name = ledger.clone();
        let found = read(&*self.store, move |rows| rows.ledger(&name)).await?;
        found.ok_or_else(|| Refusal::NotFound.into())
    }

    /// The newest signed checkpoint.
    pub fn checkpoint(&self, caller: &Caller, ledger: &LedgerName) -> Result<Arc<str>> {
        may_read(caller, ledger)?;
        self.publisher.checkpoint(ledger).ok_or_else(|| Refusal::NotFound.into())
    }

    /// Entries from a position on, at most [`MAX_ENTRIES`].
    pub async fn entries(&self, caller: &Caller, ledger: &LedgerName, from: u64, limit: u32) -> Result<Vec<StoredEntry>> {
        may_read(caller, ledger)?;
        let name = ledger.clone();
        Ok(read(&*self.store, move |rows| rows.entries(&name, from, limit.min(MAX_ENTRIES))).await?)
    }

    /// The inclusion proof of an entry in the tree of `size`.
    pub async fn inclusion_proof(&self, caller: &Caller, ledger: &LedgerName, index: u64, size: u64) -> Result<Vec<Hash>> {
        self.prove(caller, ledger, size, move |source| proof::inclusion(source, index, size)).await
    }

    /// The consistency proof between two sizes.
    pub async fn consistency_proof(&self, caller: &Caller, ledger: &LedgerName, old: u64, new: u64) -> Result<Vec<Hash>> {
        self.prove(caller, ledger, new, move |source| proof::consistency(source, old, new)).await
    }

    async fn prove(
        &self,
        caller: &Caller,
        ledger: &LedgerName,
        size: u64,
        make: impl FnOnce(&mut StoredNodes<'_>) -> std::result::Result<Vec<Hash>, MakeError<StoreError>> + Send + 'static,
    ) -> Result<Vec<Hash>> {
        may_read(caller, ledger)?;
        let name = ledger.clone();
        let proof = read(&*self.store, move |rows| {
            let tail = rows.ledger(&name)?.ok_or(Refusal::NotFound)?;
            if size > tail.frontier.size() {
                return Err(Refusal::NotFound.into());
            }
            make(&mut StoredNodes { rows, ledger: &name }).map_err(|error| match error {
                MakeError::Source(source) => source,
                MakeError::OutOfRange => Refusal::NotFound.into(),
                MakeError::Missing => StoreError::Unreadable { what: "ledger node" },
            })
        });
        Ok(proof.await?)
    }
}

/// What the caller may not read is not there.
fn may_read(caller: &Caller, ledger: &LedgerName) -> Result<()> {
    match ledger {
        LedgerName::System => caller.may(Action::ReadLedger, None),
        LedgerName::Fleet(fleet) => caller.may(Action::ReadLedger, Some(fleet)),
    }
}

/// A ledger's stored hashes: leaves from their entries, the rest from the nodes.
pub(super) struct StoredNodes<'a> {
    pub(super) rows: &'a mut dyn Rows,
    pub(super) ledger: &'a LedgerName,
}

impl NodeSource for StoredNodes<'_> {
    type Error = StoreError;

    fn hashes(&mut self, node: Node, count: u16) -> std::result::Result<Vec<Hash>, StoreError> {
        if node.level > 0 {
            return self.rows.nodes(self.ledger, node, count);
        }
        let entries = self.rows.entries(self.ledger, node.index, u32::from(count))?;
        Ok(entries.iter().map(|stored| leaf_hash(&stored.entry)).collect())
    }
}
