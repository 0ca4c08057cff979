//! An alarm is written into its ledger.

use fleetmark_domain::{LedgerName, Refusal, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::Event;

use crate::store::model::SubjectId;
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// Writes an alarm down.
#[derive(Debug)]
pub struct RecordAlarm {
    /// Its name.
    pub alarm: &'static str,
    /// Where.
    pub ledger: LedgerName,
    /// About whom; 0: nobody in particular.
    pub subject: SubjectId,
    /// What happened.
    pub details: Details,
    /// When.
    pub at: Timestamp,
}

impl Act for RecordAlarm {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![self.ledger.clone()]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        if !transaction.holds(&self.ledger) {
            return Err(Refusal::FleetUnknown.into());
        }
        let alarmed = Event::Alarmed { alarm: self.alarm.to_owned(), subject: self.subject };
        transaction.append(&self.ledger, self.at, alarmed, Some(&self.details)).map(drop)
    }
}
