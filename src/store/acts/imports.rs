//! Devices are registered in bulk: many lines, one transaction, no more than a few rows a line.

use fleetmark_domain::{FleetName, Kind, LedgerName, Refusal, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::Event;

use super::limits::{has_touched, usage};
use super::subjects::with_attributes;
use crate::store::model::{Hardware, HardwareId, HardwareSource, Subject, SubjectId, SubjectState, Token};
use crate::store::rows::Rows;
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// Registers devices of one fleet, names and hardware of which are distinct.
#[derive(Debug)]
pub struct ImportDevices {
    /// Their fleet.
    pub fleet: FleetName,
    /// They.
    pub arrivals: Vec<Arrival>,
    /// Whether a device that is there with another record gets this one.
    pub update: bool,
    /// Whether one that is refused keeps all out.
    pub whole: bool,
    /// The operator, against whose limit changed devices count.
    pub by: SubjectId,
    /// Now.
    pub at: Timestamp,
}

/// A device of an import.
#[derive(Debug)]
pub struct Arrival {
    /// Its record.
    pub subject: Subject,
    /// Its TPM's endorsement key.
    pub hardware: Option<HardwareId>,
    /// Its token, where it is to have one; its subject is set here. A device that has had a certificate gets none.
    pub token: Option<Token>,
    /// Who did it.
    pub details: Details,
}

/// What became of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is new.
    Registered,
    /// It has another record now.
    Updated,
    /// It was so already.
    Unchanged,
}

/// What became of one, and whether its token was minted.
pub type Imported = Result<(Fate, bool), Refusal>;

/// What is to be done with one: the record that is there, where there is one.
type Plan = Result<(Fate, Option<Subject>), Refusal>;

impl ImportDevices {
    /// What would become of them; nothing is written.
    ///
    /// # Errors
    /// `FleetUnknown`.
    pub fn foresee(&self, rows: &mut dyn Rows) -> Result<Vec<Imported>, StoreError> {
        let plans = self.plans(rows)?;
        let outcome = |(arrival, plan): (&Arrival, Plan)| plan.map(|(fate, known)| (fate, arrival.mints(known.as_ref())));
        Ok(self.arrivals.iter().zip(plans).map(outcome).collect())
    }

    fn plans(&self, rows: &mut dyn Rows) -> Result<Vec<Plan>, StoreError> {
        if rows.fleet(&self.fleet)?.is_none() {
            return Err(Refusal::FleetUnknown.into());
        }
        let mut plans = Vec::with_capacity(self.arrivals.len());
        let mut room = None;
        for arrival in &self.arrivals {
            let plan = match self.plan(rows, arrival) {
                Ok((Fate::Updated, Some(known))) => self.within_limit(rows, &mut room, known)?,
                Ok(plan) => Ok(plan),
                Err(StoreError::Refused(refusal)) => Err(refusal),
                Err(error) => return Err(error),
            };
            plans.push(plan);
        }
        Ok(plans)
    }

    fn plan(&self, rows: &mut dyn Rows, arrival: &Arrival) -> Result<(Fate, Option<Subject>), StoreError> {
        let asked = &arrival.subject;
        let known = rows.subject_by_name(Kind::Device, Some(&self.fleet), &asked.name.folded())?;
        let owner = match arrival.hardware {
            Some(id) => rows.hardware(&id)?.map(|hardware| hardware.subject),
            None => None,
        };
        let is_own = owner.is_some() && owner == known.as_ref().map(|known| known.id);
        if let Some(owner) = owner
            && !is_own
            && rows.subject(owner)?.is_some_and(|owner| owner.state != SubjectState::Out)
        {
            return Err(Refusal::HardwareOfAnother.into());
        }
        let Some(known) = known else { return Ok((Fate::Registered, None)) };
        if known.state == SubjectState::Out {
            return Err(Refusal::IdentityOut.into());
        }
        let is_same = known.attributes == asked.attributes && (arrival.hardware.is_none() || is_own);
        match (known.name == asked.name, is_same) {
            (true, true) => Ok((Fate::Unchanged, Some(known))),
            (true, false) if self.update => Ok((Fate::Updated, Some(known))),
            _ => Err(Refusal::NameTaken.into()),
        }
    }

    /// Whether the operator may change one more device. `room` is how many more, once that is known.
    fn within_limit(&self, rows: &mut dyn Rows, room: &mut Option<u64>, known: Subject) -> Result<Plan, StoreError> {
        if has_touched(rows, self.by, &self.fleet, known.id, self.at)? {
            return Ok(Ok((Fate::Updated, Some(known))));
        }
        let left = if let Some(left) = *room {
            left
        } else {
            let usage = usage(rows, self.by, &self.fleet, self.at)?;
            usage.limit.saturating_sub(usage.used)
        };
        *room = Some(left.saturating_sub(1));
        Ok(if left == 0 { Err(Refusal::BlastRadiusExceeded) } else { Ok((Fate::Updated, Some(known))) })
    }

    fn write(
        &self,
        transaction: &mut Transaction<'_>,
        arrival: &Arrival,
        (fate, known): (Fate, Option<Subject>),
    ) -> Result<(Fate, bool), StoreError> {
        let is_minted = arrival.mints(known.as_ref());
        let id = match known {
            None => self.register(transaction, arrival)?,
            Some(known) if fate == Fate::Updated => self.change(transaction, arrival, known)?,
            Some(known) => known.id,
        };
        if let Some(token) = arrival.token.as_ref().filter(|_| is_minted) {
            transaction.rows.insert_token(&Token { subject: Some(id), ..token.clone() })?;
        }
        Ok((fate, is_minted))
    }

    fn register(&self, transaction: &mut Transaction<'_>, arrival: &Arrival) -> Result<SubjectId, StoreError> {
        let id = transaction.rows.insert_subject(&arrival.subject)?;
        let registered = Event::Registered { subject: id, kind: Kind::Device };
        let details = with_attributes(&arrival.details, &arrival.subject);
        transaction.append(&self.ledger(), self.at, registered, Some(&details))?;
        self.bind(transaction, arrival, id)?;
        Ok(id)
    }

    fn change(&self, transaction: &mut Transaction<'_>, arrival: &Arrival, known: Subject) -> Result<SubjectId, StoreError> {
        let id = known.id;
        if let Some(new) = arrival.hardware {
            for old in transaction.rows.hardware_of(id)? {
                if old.source == HardwareSource::EndorsementKey && old.id != new {
                    transaction.rows.delete_hardware(&old.id)?;
                }
            }
            self.bind(transaction, arrival, id)?;
        }
        let version = known.version.saturating_add(1);
        let changed = Subject { version, attributes: arrival.subject.attributes.clone(), ..known };
        transaction.rows.update_subject(&changed)?;
        transaction.rows.touch(self.by, &self.fleet, id, self.at)?;
        let details = with_attributes(&arrival.details, &changed);
        transaction.append(&self.ledger(), self.at, Event::Changed { subject: id }, Some(&details))?;
        Ok(id)
    }

    fn bind(&self, transaction: &mut Transaction<'_>, arrival: &Arrival, subject: SubjectId) -> Result<(), StoreError> {
        let Some(id) = arrival.hardware else { return Ok(()) };
        let known = Hardware { id, subject, source: HardwareSource::EndorsementKey, since: self.at };
        transaction.rows.put_hardware(&known)
    }

    fn ledger(&self) -> LedgerName {
        LedgerName::from(Some(&self.fleet))
    }
}

impl Arrival {
    /// Whether its token is minted: it has had no certificate.
    fn mints(&self, known: Option<&Subject>) -> bool {
        self.token.is_some() && known.is_none_or(|known| known.last_generation == 0)
    }
}

impl Act for ImportDevices {
    type Outcome = Vec<Imported>;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![self.ledger()]
    }

    /// All are judged before the first is written.
    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Vec<Imported>, StoreError> {
        let plans = self.plans(transaction.rows)?;
        let is_kept_out = self.whole && plans.iter().any(Result::is_err);
        let mut outcomes = Vec::with_capacity(plans.len());
        for (arrival, plan) in self.arrivals.iter().zip(plans) {
            outcomes.push(match plan {
                Ok((fate, known)) if is_kept_out => Ok((fate, arrival.mints(known.as_ref()))),
                Ok(plan) => Ok(self.write(transaction, arrival, plan)?),
                Err(refusal) => Err(refusal),
            });
        }
        Ok(outcomes)
    }
}
