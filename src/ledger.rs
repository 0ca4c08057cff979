//! The server's side of the ledgers: their keys, and the newest signed checkpoint of each.

use std::sync::Arc;

use fleetmark_domain::LedgerName;

/// Signs heads after their commit, and keeps the newest checkpoint of every ledger.
pub struct Publisher {}

impl Publisher {
    /// The newest signed checkpoint.
    pub fn checkpoint(&self, _ledger: &LedgerName) -> Option<Arc<str>> {
        todo!()
    }
}
