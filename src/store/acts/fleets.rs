//! Fleets come to be and change.

use fleetmark_domain::{FleetName, LedgerName, Refusal, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::Event;

use super::found::{AddAuthority, add_authority, open_ledger};
use super::policies::{FirstPolicySet, first_policy_set};
use super::{Repeatable, made_before, remember};
use crate::store::model::{Fleet, LedgerRecord};
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// Creates a fleet with its device authority, its ledger and its first policy set.
#[derive(Debug)]
pub struct CreateFleet {
    /// The fleet.
    pub fleet: Fleet,
    /// Its authority.
    pub authority: AddAuthority,
    /// Its ledger, empty.
    pub ledger: LedgerRecord,
    /// Its first policy set.
    pub policy: FirstPolicySet,
    /// For a repeat.
    pub repeatable: Option<Repeatable>,
}

impl Act for CreateFleet {
    /// None where the same request made the fleet before.
    type Outcome = Option<Fleet>;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::System]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Option<Fleet>, StoreError> {
        if made_before(transaction.rows, self.repeatable.as_ref())?.is_some() {
            return Ok(None);
        }
        if transaction.rows.fleet(&self.fleet.name)?.is_some() {
            return Err(Refusal::NameTaken.into());
        }
        transaction.rows.insert_fleet(&self.fleet)?;
        open_ledger(transaction, &self.ledger, self.authority.at)?;
        add_authority(transaction, &self.authority)?;
        write_change(transaction, &self.fleet, &self.authority.details, self.authority.at)?;
        first_policy_set(transaction, &self.policy)?;
        remember(transaction.rows, self.repeatable.as_ref())?;
        Ok(Some(self.fleet.clone()))
    }
}

/// The change stands in both ledgers: the fleet's gateways follow the one, auditors of the installation the other.
fn write_change(transaction: &mut Transaction<'_>, fleet: &Fleet, details: &Details, at: Timestamp) -> Result<(), StoreError> {
    for ledger in [LedgerName::System, LedgerName::Fleet(fleet.name.clone())] {
        transaction.append(&ledger, at, Event::FleetChanged { version: fleet.version }, Some(details))?;
    }
    Ok(())
}

/// Changes a fleet's rules.
#[derive(Debug)]
pub struct ChangeFleet {
    /// The fleet as it is to be; its version is the one that was read.
    pub fleet: Fleet,
    /// Who did it.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

impl Act for ChangeFleet {
    type Outcome = Fleet;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::System, LedgerName::Fleet(self.fleet.name.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Fleet, StoreError> {
        let name: &FleetName = &self.fleet.name;
        let current = transaction.rows.fleet(name)?.ok_or(Refusal::FleetUnknown)?;
        if current.version != self.fleet.version {
            return Err(Refusal::EtagMismatch.into());
        }
        let changed = Fleet { version: current.version + 1, ..self.fleet.clone() };
        transaction.rows.update_fleet(&changed)?;
        write_change(transaction, &changed, &self.details, self.at)?;
        Ok(changed)
    }
}
