//! Policy sets are put and activated.

use fleetmark_domain::{LedgerName, Refusal, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::Event;

use super::{Repeatable, made_before, remember};
use crate::store::model::{PolicyActivation, PolicySet};
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// Keeps a policy set under the next version of its scope. It counts only once it is activated.
#[derive(Debug)]
pub struct PutPolicySet {
    /// The set; its version is set here.
    pub set: PolicySet,
    /// For a repeat.
    pub repeatable: Option<Repeatable>,
}

impl Act for PutPolicySet {
    type Outcome = PolicySet;

    /// Nothing is appended; the lock keeps two at once from taking the same version.
    fn ledgers(&self) -> Vec<LedgerName> {
        vec![self.set.ledger.clone()]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<PolicySet, StoreError> {
        let ledger = &self.set.ledger;
        if let Some(made) = made_before(transaction.rows, self.repeatable.as_ref())? {
            let version = made.parse().map_err(|_| StoreError::Unreadable { what: "idempotency key" })?;
            return transaction.rows.policy_set(ledger, version)?.ok_or_else(|| Refusal::NotFound.into());
        }
        if transaction.rows.ledger(ledger)?.is_none() {
            return Err(Refusal::FleetUnknown.into());
        }
        let version = transaction.rows.highest_policy(ledger)? + 1;
        let set = PolicySet { version, ..self.set.clone() };
        transaction.rows.insert_policy_set(&set)?;
        let repeatable = self.repeatable.clone().map(|mut repeatable| {
            repeatable.value.resource = version.to_string();
            repeatable
        });
        remember(transaction.rows, repeatable.as_ref())?;
        Ok(set)
    }
}

/// Makes a set that was put the one that counts.
#[derive(Debug)]
pub struct ActivatePolicySet {
    /// The ledger of its scope.
    pub ledger: LedgerName,
    /// Which set.
    pub version: u64,
    /// The number of the activation that the caller read, where it said so.
    pub expected: Option<u64>,
    /// Who did it: a SPIFFE ID.
    pub by: String,
    /// Who did it and why, for the ledger.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

/// What an activation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activated {
    /// What counts now.
    pub activation: PolicyActivation,
    /// Its set.
    pub set: PolicySet,
    /// Where the ledger says so; None where it counted before.
    pub position: Option<u64>,
}

impl Act for ActivatePolicySet {
    type Outcome = Activated;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![self.ledger.clone()]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Activated, StoreError> {
        let active = transaction.rows.active_policy(&self.ledger)?;
        let number = active.as_ref().map_or(0, |active| active.number);
        if self.expected.is_some_and(|expected| expected != number) {
            return Err(Refusal::EtagMismatch.into());
        }
        let set = transaction.rows.policy_set(&self.ledger, self.version)?.ok_or(Refusal::NotFound)?;
        if let Some(activation) = active
            && activation.version == self.version
        {
            return Ok(Activated { activation, set, position: None });
        }
        let activation = PolicyActivation {
            ledger: self.ledger.clone(),
            number: number + 1,
            version: self.version,
            at: self.at,
            by: self.by.clone(),
        };
        let position = activate(transaction, &activation, &set, &self.details)?;
        Ok(Activated { activation, set, position: Some(position) })
    }
}

/// A scope's first set, which counts from the beginning.
#[derive(Debug, Clone)]
pub struct FirstPolicySet {
    /// The set.
    pub set: PolicySet,
    /// Who did it.
    pub details: Details,
}

impl Act for FirstPolicySet {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![self.set.ledger.clone()]
    }

    /// Does nothing where a set counts.
    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        if transaction.rows.active_policy(&self.set.ledger)?.is_some() {
            return Ok(());
        }
        first_policy_set(transaction, self)
    }
}

/// Puts and activates a scope's first set, in the transaction that makes the scope.
pub(super) fn first_policy_set(transaction: &mut Transaction<'_>, first: &FirstPolicySet) -> Result<(), StoreError> {
    let ledger = &first.set.ledger;
    let version = transaction.rows.highest_policy(ledger)? + 1;
    let set = PolicySet { version, ..first.set.clone() };
    let activation =
        PolicyActivation { ledger: ledger.clone(), number: 1, version, at: set.created_at, by: set.created_by.clone() };
    transaction.rows.insert_policy_set(&set)?;
    activate(transaction, &activation, &set, &first.details)?;
    Ok(())
}

fn activate(
    transaction: &mut Transaction<'_>,
    activation: &PolicyActivation,
    set: &PolicySet,
    details: &Details,
) -> Result<u64, StoreError> {
    transaction.rows.insert_policy_activation(activation)?;
    let event = Event::PolicyActivated { version: activation.version, hash: set.hash };
    transaction.append(&activation.ledger, activation.at, event, Some(details))
}
