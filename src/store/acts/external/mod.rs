//! Other authorities come to be and change.
//!
//! - [`adopt`]: their certificates are adopted.
//! - [`expect`]: certificates that may be adopted when they are first seen.
//! - [`merge`]: what they say of them is merged with what we say.

pub mod adopt;
pub mod expect;
pub mod merge;

use fleetmark_domain::{FleetName, LedgerName, Refusal, Timestamp};
use fleetmark_external::{FIRST_ID, issuer_hash, rules};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::{Event, ExternalAuthority};

pub use adopt::{Adopt, Arrival, Fate, Permit};
pub use merge::{MergeForeign, PutForeignList, merged};
pub(super) use merge::{as_they_are, as_we_say, by_us, say};

use super::{Repeatable, made_before, remember};
use crate::store::model::{AuthorityId, External, ExternalRules, ExternalSwitch};
use crate::store::transaction::Transaction;
use crate::store::{Act, Lane, StoreError};

/// Makes an external authority.
#[derive(Debug)]
pub struct CreateExternal {
    /// As it is to be; its id is set here.
    pub external: External,
    /// For a repeat.
    pub repeatable: Option<Repeatable>,
    /// Who did it.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

impl Act for CreateExternal {
    type Outcome = External;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::Fleet(self.external.fleet.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<External, StoreError> {
        let External { fleet, name, .. } = &self.external;
        if let Some(id) = made_before(transaction.rows, self.repeatable.as_ref())? {
            let id = id.parse().map_err(|_| StoreError::Unreadable { what: "remembered external authority" })?;
            return transaction.rows.external(id)?.ok_or_else(|| Refusal::NotFound.into());
        }
        if transaction.rows.fleet(fleet)?.is_none() {
            return Err(Refusal::FleetUnknown.into());
        }
        if transaction.rows.external_by_name(fleet, &name.folded())?.is_some() {
            return Err(Refusal::NameTaken.into());
        }
        let all = transaction.rows.externals(None)?;
        check_material(&all, 0, &self.external.material)?;
        let id = all.last().map_or(FIRST_ID, |last| last.id.saturating_add(1));
        let external = External { id, ..self.external.clone() };
        transaction.rows.insert_external(&external)?;
        let repeatable = self.repeatable.clone().map(|mut repeatable| {
            repeatable.value.resource = id.to_string();
            repeatable
        });
        remember(transaction.rows, repeatable.as_ref())?;
        write_external(transaction, &external, self.at, &self.details)?;
        Ok(external)
    }
}

/// A CA certificate belongs to one external authority that has not ended: who holds its certificates must be clear.
fn check_material(all: &[External], own: AuthorityId, material: &[u8]) -> Result<(), StoreError> {
    let new = split(material)?;
    for other in all.iter().filter(|other| other.id != own && other.switch != ExternalSwitch::Ended) {
        if split(&other.material)?.iter().any(|der| new.contains(der)) {
            return Err(Refusal::ExternalAuthorityTaken.into());
        }
    }
    Ok(())
}

fn split(material: &[u8]) -> Result<Vec<&[u8]>, StoreError> {
    fleetmark_external::split(material).map_err(|_| StoreError::Unreadable { what: "external authority's certificates" })
}

/// Rules and CA certificates in one, as gateways fetch them; the ledger has their hash.
pub fn rules_document(external: &External) -> Vec<u8> {
    rules::join(&serde_json::to_vec(&external.rules).unwrap_or_default(), &external.material)
}

/// What rules and CA certificates come to: what the ledger has of them, and docs/external.md says.
pub fn rules_hash(external: &External) -> [u8; 32] {
    fleetmark_external::sha256(&[&rules_document(external)])
}

fn write_external(
    transaction: &mut Transaction<'_>,
    external: &External,
    at: Timestamp,
    details: &Details,
) -> Result<(), StoreError> {
    let hashes: Result<_, _> = split(&external.material)?.iter().map(|der| issuer_hash(der)).collect();
    let mut issuers: Vec<_> = hashes.map_err(|_| StoreError::Unreadable { what: "external authority's certificate" })?;
    issuers.sort_unstable();
    issuers.dedup();
    let event = Event::ExternalAuthorityChanged(ExternalAuthority {
        authority: external.id,
        state: external.state(),
        rules: rules_hash(external),
        issuers,
        naming: external.rules.naming.clone(),
    });
    transaction.append(&LedgerName::Fleet(external.fleet.clone()), at, event, Some(details)).map(drop)
}

/// Changes an external authority; what is None stays. One that has ended does not change any more.
#[derive(Debug)]
pub struct ChangeExternal {
    /// Its fleet.
    pub fleet: FleetName,
    /// Which.
    pub id: AuthorityId,
    /// What was read, where the caller said so.
    pub version: Option<u64>,
    /// Its rules anew; the naming rule must be the same.
    pub rules: Option<ExternalRules>,
    /// Its CA certificates anew.
    pub material: Option<Vec<u8>>,
    /// What operators say.
    pub switch: Option<ExternalSwitch>,
    /// Whether what it says is past its end.
    pub stale: Option<bool>,
    /// Who did it, and why.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

impl Act for ChangeExternal {
    type Outcome = External;

    fn lane(&self) -> Lane {
        let is_bad_news = self.stale == Some(true) || self.switch.is_some_and(|switch| switch != ExternalSwitch::Enabled);
        if is_bad_news { Lane::Urgent } else { Lane::Ordinary }
    }

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::Fleet(self.fleet.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<External, StoreError> {
        let current = transaction.rows.external(self.id)?.ok_or(Refusal::NotFound)?;
        if self.version.is_some_and(|version| version != current.version) {
            return Err(Refusal::EtagMismatch.into());
        }
        let mut next = current.clone();
        next.rules = self.rules.clone().unwrap_or(next.rules);
        next.material = self.material.clone().unwrap_or(next.material);
        next.switch = self.switch.unwrap_or(next.switch);
        next.stale = self.stale.unwrap_or(next.stale);
        if next == current {
            return Ok(current);
        }
        if current.switch == ExternalSwitch::Ended || next.rules.naming != current.rules.naming {
            return Err(Refusal::TransitionNotAllowed.into());
        }
        if next.material != current.material {
            check_material(&transaction.rows.externals(None)?, next.id, &next.material)?;
        }
        // The server's own news about the status is no change that an operator could have missed.
        if self.stale.is_none() {
            next.version = current.version.saturating_add(1);
        }
        transaction.rows.update_external(&next)?;
        write_external(transaction, &next, self.at, &self.details)?;
        Ok(next)
    }
}
