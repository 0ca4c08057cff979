//! Certificates that are adopted when they are first seen, by their fingerprints.

use fleetmark_domain::{Fingerprint, FleetName, LedgerName, Name, Refusal};

use crate::store::model::{AdoptWhen, AuthorityId, Expected, ExternalSwitch};
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// What became of a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// It is adopted when it is first seen.
    Expected,
    /// It was adopted before.
    Known,
}

/// Expects certificates of one external authority. No standing changes by it, so the ledger does not speak of it: each adoption's
/// details do.
#[derive(Debug)]
pub struct Expect {
    /// Its fleet.
    pub fleet: FleetName,
    /// Which external authority.
    pub authority: AuthorityId,
    /// The certificates.
    pub expected: Vec<Expected>,
}

impl Act for Expect {
    type Outcome = Vec<Result<Expectation, Refusal>>;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::Fleet(self.fleet.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Self::Outcome, StoreError> {
        let rows = &mut *transaction.rows;
        let external = rows.external(self.authority)?.ok_or(Refusal::NotFound)?;
        if external.switch == ExternalSwitch::Ended || external.rules.adopt.when == AdoptWhen::Import {
            return Err(Refusal::TransitionNotAllowed.into());
        }
        let mut outcomes = Vec::with_capacity(self.expected.len());
        for expected in &self.expected {
            let adopted = rows.external_certificate(&expected.fingerprint)?;
            let earlier = rows.expected(&expected.fingerprint)?;
            let others = [adopted.as_ref().map(|known| known.authority), earlier.map(|earlier| earlier.authority)];
            outcomes.push(match others.into_iter().flatten().find(|other| *other != self.authority) {
                Some(_) => Err(Refusal::ExternalAuthorityTaken),
                None if adopted.is_some() => Ok(Expectation::Known),
                None => {
                    rows.put_expected(expected)?;
                    Ok(Expectation::Expected)
                }
            });
        }
        Ok(outcomes)
    }
}

/// Expects a certificate no longer.
#[derive(Debug)]
pub struct Unexpect {
    /// The fleet of its external authority.
    pub fleet: FleetName,
    /// Which.
    pub fingerprint: Fingerprint,
}

impl Act for Unexpect {
    /// What was expected, and its external authority's name.
    type Outcome = (Expected, Name);

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::Fleet(self.fleet.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Self::Outcome, StoreError> {
        let rows = &mut *transaction.rows;
        let expected = rows.expected(&self.fingerprint)?.ok_or(Refusal::NotFound)?;
        let external = rows.external(expected.authority)?.filter(|external| external.fleet == self.fleet);
        let external = external.ok_or(Refusal::NotFound)?;
        rows.delete_expected(&self.fingerprint)?;
        Ok((expected, external.name))
    }
}
