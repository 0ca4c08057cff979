//! Policy sets, and which of them counts.

use diesel::prelude::*;
use fleetmark_domain::Timestamp;

use super::codes::{number, octets, parsed, signed};
use crate::store::StoreError;
use crate::store::model::{PolicyActivation, PolicySet, PolicyVersion};
use crate::store::schema::{policy_activations, policy_sets};

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = policy_sets)]
pub struct PolicySetRow {
    ledger: String,
    version: i64,
    text: String,
    hash: Vec<u8>,
    note: String,
    created_at: i64,
    created_by: String,
}

impl From<&PolicySet> for PolicySetRow {
    fn from(set: &PolicySet) -> Self {
        Self {
            ledger: set.ledger.as_str().to_owned(),
            version: signed(set.version),
            text: set.text.clone(),
            hash: set.hash.to_vec(),
            note: set.note.clone(),
            created_at: set.created_at.0,
            created_by: set.created_by.clone(),
        }
    }
}

impl TryFrom<PolicySetRow> for PolicySet {
    type Error = StoreError;

    fn try_from(row: PolicySetRow) -> Result<Self, StoreError> {
        Ok(Self {
            ledger: parsed(&row.ledger, "policy set")?,
            version: number(row.version, "policy set")?,
            text: row.text,
            hash: octets(&row.hash, "policy set")?,
            note: row.note,
            created_at: Timestamp(row.created_at),
            created_by: row.created_by,
        })
    }
}

/// Version, hash, note, time and author as they are read.
pub type PolicyVersionColumns = (i64, Vec<u8>, String, i64, String);

impl TryFrom<PolicyVersionColumns> for PolicyVersion {
    type Error = StoreError;

    fn try_from((version, hash, note, created_at, created_by): PolicyVersionColumns) -> Result<Self, StoreError> {
        Ok(Self {
            version: number(version, "policy set")?,
            hash: octets(&hash, "policy set")?,
            note,
            created_at: Timestamp(created_at),
            created_by,
        })
    }
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = policy_activations)]
pub struct PolicyActivationRow {
    ledger: String,
    number: i64,
    version: i64,
    activated_at: i64,
    activated_by: String,
}

impl From<&PolicyActivation> for PolicyActivationRow {
    fn from(activation: &PolicyActivation) -> Self {
        Self {
            ledger: activation.ledger.as_str().to_owned(),
            number: signed(activation.number),
            version: signed(activation.version),
            activated_at: activation.at.0,
            activated_by: activation.by.clone(),
        }
    }
}

impl TryFrom<PolicyActivationRow> for PolicyActivation {
    type Error = StoreError;

    fn try_from(row: PolicyActivationRow) -> Result<Self, StoreError> {
        Ok(Self {
            ledger: parsed(&row.ledger, "policy activation")?,
            number: number(row.number, "policy activation")?,
            version: number(row.version, "policy activation")?,
            at: Timestamp(row.activated_at),
            by: row.activated_by,
        })
    }
}

macro_rules! policy_rows {
    () => {
        fn policy_set(&mut self, ledger: &LedgerName, version: u64) -> Result<Option<PolicySet>, StoreError> {
            let query = policy_sets::table.find((ledger.as_str(), signed(version))).select(PolicySetRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(PolicySet::try_from).transpose()
        }

        fn policy_versions(&mut self, ledger: &LedgerName, after: u64, limit: u32) -> Result<Vec<PolicyVersion>, StoreError> {
            let query = policy_sets::table
                .filter(policy_sets::ledger.eq(ledger.as_str()))
                .filter(policy_sets::version.gt(signed(after)))
                .order(policy_sets::version)
                .limit(limit.into())
                .select((
                    policy_sets::version,
                    policy_sets::hash,
                    policy_sets::note,
                    policy_sets::created_at,
                    policy_sets::created_by,
                ));
            records::<PolicyVersionColumns, _>(query.load(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn highest_policy(&mut self, ledger: &LedgerName) -> Result<u64, StoreError> {
            let query = policy_sets::table
                .filter(policy_sets::ledger.eq(ledger.as_str()))
                .select(diesel::dsl::max(policy_sets::version));
            let highest: Option<i64> = query.get_result(&mut self.connection).map_err(|error| self.fault(error))?;
            highest.map_or(Ok(0), |highest| codes::number(highest, "policy set"))
        }

        fn insert_policy_set(&mut self, set: &PolicySet) -> Result<(), StoreError> {
            let query = diesel::insert_into(policy_sets::table).values(PolicySetRow::from(set));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn active_policy(&mut self, ledger: &LedgerName) -> Result<Option<PolicyActivation>, StoreError> {
            let query = policy_activations::table
                .filter(policy_activations::ledger.eq(ledger.as_str()))
                .order(policy_activations::number.desc())
                .limit(1)
                .select(PolicyActivationRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(PolicyActivation::try_from).transpose()
        }

        fn insert_policy_activation(&mut self, activation: &PolicyActivation) -> Result<(), StoreError> {
            let query = diesel::insert_into(policy_activations::table).values(PolicyActivationRow::from(activation));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }
    };
}
