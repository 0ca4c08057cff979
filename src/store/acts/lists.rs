//! Revocation lists as they were made, and values of the installation.

use fleetmark_domain::LedgerName;

use crate::store::model::StoredCrl;
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// Keeps a revocation list, unless one with this number or a higher one is there: `CRLNumber` never goes back.
#[derive(Debug)]
pub struct PutCrl {
    /// The list.
    pub crl: StoredCrl,
}

impl Act for PutCrl {
    /// Whether it was kept.
    type Outcome = bool;

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<bool, StoreError> {
        let newest = transaction.rows.crl(self.crl.authority)?;
        if newest.is_some_and(|newest| newest.number >= self.crl.number) {
            return Ok(false);
        }
        transaction.rows.put_crl(&self.crl)?;
        Ok(true)
    }
}

/// Sets a value of the installation.
#[derive(Debug)]
pub struct SetValue {
    /// Its name.
    pub name: &'static str,
    /// The value.
    pub value: Vec<u8>,
}

impl Act for SetValue {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        transaction.rows.set_value(self.name, &self.value)
    }
}
