//! Revocation lists as they were made, and values of the installation.

use fleetmark_domain::LedgerName;

use crate::store::model::{ListKey, PublishedList, StoredCrl};
use crate::store::rows::Rows;
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
        let newest = transaction.rows.crl_number(self.crl.authority)?;
        if newest.is_some_and(|newest| newest >= self.crl.number) {
            return Ok(false);
        }
        transaction.rows.put_crl(&self.crl)?;
        Ok(true)
    }
}

/// Keeps a published list, unless one with this number or a higher one is there: numbers never go back.
#[derive(Debug)]
pub struct PutList {
    /// The list.
    pub list: PublishedList,
}

impl Act for PutList {
    /// Whether it was kept.
    type Outcome = bool;

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<bool, StoreError> {
        if transaction.rows.list_number(&self.list.key)?.is_some_and(|newest| newest >= self.list.number) {
            return Ok(false);
        }
        transaction.rows.put_list(&self.list)?;
        Ok(true)
    }
}

/// Drops a published list: all of its certificates have ended.
#[derive(Debug)]
pub struct DropList {
    /// Which.
    pub key: ListKey,
}

impl Act for DropList {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        transaction.rows.delete_list(&self.key).map(drop)
    }
}

/// Remembers that every list over this ledger holds what its first `position` entries say.
#[derive(Debug)]
pub struct MarkListed {
    /// Which ledger.
    pub ledger: LedgerName,
    /// How many entries.
    pub position: u64,
}

impl MarkListed {
    /// How far the lists over this ledger were; 0 where nobody remembers.
    ///
    /// # Errors
    /// Of the database; `Unreadable` for a value that is no position.
    pub fn read(rows: &mut dyn Rows, ledger: &LedgerName) -> Result<u64, StoreError> {
        let Some(value) = rows.value(&Self::name(ledger))? else { return Ok(0) };
        let octets = value.try_into().map_err(|_| StoreError::Unreadable { what: "mark of the lists" })?;
        Ok(u64::from_be_bytes(octets))
    }

    fn name(ledger: &LedgerName) -> String {
        format!("listed/{ledger}")
    }
}

impl Act for MarkListed {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        if Self::read(transaction.rows, &self.ledger)? < self.position {
            transaction.rows.set_value(&Self::name(&self.ledger), &self.position.to_be_bytes())?;
        }
        Ok(())
    }
}

/// Sets a value of the installation.
#[derive(Debug)]
pub struct SetValue {
    /// Its name.
    pub name: String,
    /// The value.
    pub value: Vec<u8>,
}

impl Act for SetValue {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        transaction.rows.set_value(&self.name, &self.value)
    }
}

/// Sets values of the installation, all of them or none.
#[derive(Debug)]
pub struct SetValues(
    /// Names and values.
    pub Vec<(String, Vec<u8>)>,
);

impl Act for SetValues {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        self.0.iter().try_for_each(|(name, value)| transaction.rows.set_value(name, value))
    }
}
